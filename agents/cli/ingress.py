"""`equeengage ingress`."""


def ingress() -> None:
    """ingress on Kafka."""
    raise NotImplementedError
