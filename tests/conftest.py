"""What all tests share: where the broker of the Kafka tests comes from."""

pytest_plugins = ["tests.kafka.broker"]
