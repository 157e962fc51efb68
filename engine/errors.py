"""Errors, named by who must act."""


class JourneyError(Exception):
    """The author must act: a definition is wrong. Raised at import or publish, never at run time."""


class InvalidInput(Exception):  # noqa: N818 - the field's word
    """The sender must act: a 4xx or the invalid topic; never retried."""


class TemporaryFailure(Exception):  # noqa: N818 - the field's word
    """The provider cannot take the message now. Safe to retry: nothing was handed over.

    `retry_after_seconds` is what the provider asked for, if it did.
    """

    def __init__(self, reason: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after_seconds = retry_after_seconds


class PermanentFailure(Exception):  # noqa: N818 - the field's word
    """The provider will never take this message.

    `bounced` says that the address itself does not work; `gone` that nothing may go to it any more: it is suppressed.
    """

    def __init__(self, reason: str, bounced: bool = False, gone: bool = False) -> None:
        super().__init__(reason)
        self.bounced = bounced
        self.gone = gone


class UnknownOutcome(Exception):  # noqa: N818 - the field's word
    """The message was handed over, and then no answer came: it may have arrived."""
