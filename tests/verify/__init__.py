"""The verifier: whether what stands on Kafka is what must have come of the events, no more and no less.

`python -m tests.verify` reads the topics of `EQUEENGAGE_KAFKA__*` and ends with 1 if anything is not as it must be.
"""
