"""`equeengage channel`."""


def channel() -> None:
    """channel on Kafka."""
    raise NotImplementedError
