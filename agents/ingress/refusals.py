"""What can be wrong with an event or a request that the sender must put right.

`reason` is one of a few fixed words: it is a label of a metric, the header `invalid-reason` of a record in
`events.invalid`, and the `code` of an answer. `detail` is a sentence for a person.
"""

from typing import Final

from engine.errors import InvalidInput

STATUS: Final = {"write_key": 401, "signature": 401, "unknown": 404, "timeout": 408}  # all other reasons: 400


class Refusal(InvalidInput):
    """The sender must act. `user` is whose event it is, as far as that could be read."""

    def __init__(self, reason: str, detail: str, user: str = "") -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
        self.user = user

    @property
    def status(self) -> int:
        """The HTTP status if the whole request is refused.

        400 also for what is too large, as Segment answers: its SDKs know 400 and give up, as they must.
        """
        return STATUS.get(self.reason, 400)


class HangUp(Refusal):
    """The sender must act, and what is left of the body is not to be read: it is a bomb, broken, or does not come."""
