"""`equeengage topics`: the topics on Kafka."""


def create() -> None:
    """Create."""
