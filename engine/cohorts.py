"""Where a user falls in a random split: the same place on every worker, at every replay."""

from collections.abc import Mapping

import xxhash


def point(user: str, salt: str) -> float:
    """Return a point in [0, 1): the first 53 bits of xxh64 over `salt` and `user`, so that it is the same everywhere."""
    return (xxhash.xxh64_intdigest(f"{salt}\0{user}".encode()) >> 11) / (1 << 53)


def cohort(weights: Mapping[str, float], user: str, salt: str) -> str:
    """Return the cohort a user belongs to. Weights needn't sum to 100: each counts in proportion to all."""
    left = point(user, salt) * sum(weights.values())
    for name, weight in weights.items():
        left -= weight
        if left < 0:
            return name
    return name  # rounding: the point lay at the very end
