"""What a run is called says what it is of, and nothing else that is the same."""

from base64 import b32decode
from hashlib import blake2b

from hypothesis import given
from hypothesis import strategies as st

from engine import Exit, Journey, on
from engine.run_ids import run_id

JOURNEY = Journey(name="welcome", version=3, entry=on("signed_up"), start="end", steps={"end": Exit()})


@given(st.text(), st.text(), st.none() | st.text(), st.integers(0, 1 << 50))
def test_the_letters_are_80_bits_of_blake2b_in_base32(user: str, event: str, key: str | None, now: int) -> None:
    name, version, letters = run_id("shop", user, JOURNEY, event, key, now).split(".")
    assert (name, version, len(letters)) == ("welcome", "3", 16)
    told = "\0".join(["shop", user, "welcome", "3", event, key or "", str(now)])
    assert b32decode(letters.upper()) == blake2b(told.encode(), digest_size=10).digest()


def test_it_stays_what_it_was_in_the_versions_before() -> None:
    assert run_id("shop", "ann", JOURNEY, "m-1", None, 1_767_225_600_000) == "welcome.3.jmxr7hkwvh2rowwp"
