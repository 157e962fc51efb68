"""`equeengage worker`."""


def worker() -> None:
    """worker on Kafka."""
    raise NotImplementedError
