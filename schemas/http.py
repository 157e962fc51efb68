"""What is posted to us over HTTP and what is answered, as `/openapi.json` describes it.

The hot path does not decode with these classes but with structs that take more (numbers as ids, fields of the wrong
type, which it puts aside); a test sees to it that whatever is valid here is taken there.
"""

from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

Text = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f]*$")]
Name = Annotated[Text, Field(pattern=r"^[^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f][^\x00-\x1f\x7f]*$")]


class _Segment(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="allow")


class _Call(_Segment):
    """What all calls have. One of `userId` and `anonymousId` is required."""

    user_id: Text | None = Field(None, description="The user. An id of yours that never changes.")
    anonymous_id: Text | None = Field(None, description="Without userId: an actor of its own, `anon:<anonymousId>`.")
    message_id: Text | None = Field(
        None,
        description="The event's id, by which a repetition is recognised. Without it one that is sent twice counts twice.",
    )
    timestamp: AwareDatetime | None = Field(None, description="When it happened, ISO 8601; default: now.")
    sent_at: AwareDatetime | None = Field(
        None, description="When it was sent, by the same clock as `timestamp`: a wrong clock is corrected by it."
    )
    write_key: str | None = Field(None, description="The write key, where no Authorization header can be sent.")
    context: dict[str, Any] | None = Field(None, description="Not kept.")


class Track(_Call):
    """Something a user did."""

    event: Name = Field(description="The name of what happened.", examples=["order_placed"])
    properties: dict[str, Any] = Field({}, examples=[{"total": 99.5, "currency": "EUR"}])


class Identify(_Call):
    """Who a user is: the traits are set in the profile, `null` removes one."""

    traits: dict[str, Any] = Field({}, examples=[{"email": "ada@example.com", "tier": "gold"}])


class Page(_Call):
    """A user looked at a page or a screen of an app."""

    name: str | None = None
    category: str | None = None
    properties: dict[str, Any] = {}


class Group(_Call):
    """A user belongs to a company or the like. Recorded as the event `group`."""

    group_id: Text
    traits: dict[str, Any] = {}


class Alias(_Call):
    """A user was known by another id. Recorded as the event `alias`; nothing is merged."""

    previous_id: Text


class TrackInBatch(Track):
    type: Literal["track"]


class IdentifyInBatch(Identify):
    type: Literal["identify"]


class PageInBatch(Page):
    type: Literal["page", "screen"]


class GroupInBatch(Group):
    type: Literal["group"]


class AliasInBatch(Alias):
    type: Literal["alias"]


CallInBatch = Annotated[
    TrackInBatch | IdentifyInBatch | PageInBatch | GroupInBatch | AliasInBatch, Field(discriminator="type")
]


class Batch(_Segment):
    """Up to 2,500 calls, 32 kB each, 500 kB together. A wrong one does not keep the others from being taken."""

    batch: list[CallInBatch] = Field(max_length=2500)
    sent_at: AwareDatetime | None = None
    write_key: str | None = None


class CloudEvent(BaseModel):
    """A CloudEvent 1.0: `type` is the event's name, `subject` the user, a JSON object as `data` its properties."""

    model_config = ConfigDict(extra="allow")

    id: Text
    source: Text
    type: Name
    specversion: Literal["1.0"] = "1.0"
    subject: Text
    time: AwareDatetime | None = None
    datacontenttype: str | None = None
    data: Any = None


class Entry(BaseModel):
    """A user is to enter a journey, if its rules allow."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")

    user_id: Text = Field(description="The user. An id of yours that never changes.")
    id: Text | None = Field(
        None, description="Asked again under the same id, nothing happens twice. Without it each request asks anew."
    )
    properties: dict[str, Any] = Field(
        {}, description="What the run is begun with, as an event's properties.", examples=[{"order_id": "o-1"}]
    )


class Wrong(BaseModel):
    """One event that was not taken, and why."""

    index: int = Field(description="Its place in the batch, from 0.")
    code: str
    message: str


class Success(BaseModel):
    """The events are durable. Those named in `invalid` are not among them; they are kept in `events.invalid`."""

    success: Literal[True] = True
    invalid: list[Wrong] | None = Field(None, description="The first ten.")


class EntryTaken(BaseModel):
    """The entry is durable. Whether a run begins is for the journey's rules; the journal says what came of it."""

    success: Literal[True] = True
    id: str = Field(description="The entry's id: the one that was sent, or a new one.")


class Failure(BaseModel):
    """Nothing was taken, save with X-Strict-Mode the good events of a batch whose others are named in `invalid`."""

    success: Literal[False] = False
    code: str
    message: str
    invalid: list[Wrong] | None = Field(None, description="The first ten.")


class Alive(BaseModel):
    """The process runs."""

    alive: Literal[True] = True


class Readiness(BaseModel):
    """Whether the process may be sent work, and what it waits for."""

    ready: bool
    waiting_for: list[str]
