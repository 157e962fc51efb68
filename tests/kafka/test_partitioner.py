"""Our partitioner and that of other clients agree on every key."""

from aiokafka.partitioner import murmur2 as aiokafkas
from hypothesis import given
from hypothesis import strategies as st

from engine.runtime.kafka.partitioner import murmur2, partition_of

# From the tests of the Java client (org.apache.kafka.common.utils.UtilsTest), as unsigned numbers.
JAVAS = {
    b"21": -973932308 & 0xFFFFFFFF,
    b"foobar": -790332482 & 0xFFFFFFFF,
    b"a-little-bit-long-string": -985981536 & 0xFFFFFFFF,
    b"a-little-bit-longer-string": -1486304829 & 0xFFFFFFFF,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971 & 0xFFFFFFFF,
    b"abc": 479470107,
}


def test_it_hashes_as_the_java_client_does() -> None:
    assert {key: murmur2(key) for key in JAVAS} == JAVAS


@given(st.binary(max_size=200))
def test_it_hashes_as_aiokafka_does(key: bytes) -> None:
    assert murmur2(key) == aiokafkas(key)


@given(st.binary(max_size=200), st.integers(1, 1000))
def test_a_partition_is_one_of_the_topics(key: bytes, count: int) -> None:
    assert 0 <= partition_of(key, count) < count
