"""The Kafka host: partitions, their stores and the log on Apache Kafka, with the promises of `engine.runtime.host`."""
