"""What steers a partition: definitions that become active, what operators do to journeys, sweeps through the users.

These records are addressed to a partition and change its catalog, from their place in the log on. What they do to a user
is done at the user's next input, at the moment of the record; a sweep sees to it that nobody is waited for in vain.
"""

import msgspec

from engine.catalog import Catalog, schedule_of
from engine.definitions import thaw, thaw_policy
from engine.errors import JourneyError
from engine.journey import Journey
from engine.policy import Policy
from engine.runtime import states
from engine.runtime.host import Batch, Definitions, PartitionHost, PartitionStopped, Store
from schemas.inputs import Activated, Controlled, Swept
from schemas.journal import LINES_TYPE, write_entries
from schemas.outputs import JournalEntry
from schemas.records import JSON_TYPE, NewRecord, Record
from schemas.state import Campaign

CHUNK = 500  # users of a sweep per record: 50 kB of outputs
KNOWN_KINDS = ("journey", "policy", "shadow")

_encode = msgspec.json.Encoder().encode


class MissingDefinition(Exception):  # noqa: N818 - says what is the case
    """The body of a definition that a record activates has not arrived yet."""

    def __init__(self, key: str) -> None:
        super().__init__(f"the definition {key} has not arrived yet")
        self.key = key


class Steering:
    """What the steering records of one batch come to, beside the catalog.

    Versions that become current one after the other are put into the catalog together: a thousand journeys copy its indexes
    once, not a thousand times. `begun` are those that aren't in it yet; ask for `settled` before anything else looks at it.
    """

    def __init__(self, host: PartitionHost, definitions: Definitions, batch: Batch) -> None:
        self.host = host
        self.definitions = definitions
        self.batch = batch
        self.begun: list[tuple[str, Journey, int]] = []  # tenant, version, since when (ms)

    def settled(self, catalog: Catalog) -> Catalog:
        """Return the catalog with the versions that have become current since the last time."""
        if self.begun:
            catalog = catalog.activate_all(self.begun)
            self.begun.clear()
        return catalog

    def activate(self, catalog: Catalog, activated: Activated, now: int) -> Catalog:
        """Make a definition current. Never parked: a partition that can't follow stops, for it would differ from the others.

        Raises MissingDefinition or PartitionStopped.
        """
        if activated.kind not in KNOWN_KINDS:
            raise PartitionStopped(
                f"a {activated.kind} was activated, which this version doesn't know; upgrade this worker"
            )
        if activated.kind == "shadow":
            return self._begin_or_end_shadow(self.settled(catalog), activated, now)
        slot = f"{activated.tenant}/{activated.kind}/{activated.name}"
        definition = read(self.definitions, f"{slot}@{activated.version}", activated.hash)
        self._remember(slot, states.Activation(activated.version, activated.hash, now))
        if isinstance(definition, Policy):
            return catalog.activate_policy(activated.tenant, definition)
        self.begun.append((activated.tenant, definition, now))
        if definition.moves:
            self._sweep(f"{definition.name}@{definition.version}:{now}", activated.tenant)
        self._plan_campaign(activated.tenant, definition, now)
        if (activated.tenant, definition.name) in catalog.controls:
            catalog = self.settled(catalog)
            self._keep_control(catalog, activated.tenant, definition.name)
        return catalog

    def _begin_or_end_shadow(self, catalog: Catalog, activated: Activated, now: int) -> Catalog:
        """Let a version run as a shadow from here on, or, without a hash, let that of the name end.

        The journal of this partition is told where, so that a report counts both sides from here on.
        """
        tenant, name = activated.tenant, activated.name
        slot = states.ACTIVE + f"{tenant}/shadow/{name}".encode()
        if activated.hash:
            shadow = read(self.definitions, _shadows_body(tenant, name, activated.hash), activated.hash)
            assert isinstance(shadow, Journey)
            after = catalog.with_shadow(tenant, shadow, now)
            is_swept = bool(shadow.moves)
            self.batch.states[slot] = states.encode_activations(
                [states.Activation(activated.version, activated.hash, now)]
            )
        else:
            after = catalog.without_shadow(tenant, name)
            is_swept = True  # so that nothing is left of it, with whomever
            self.batch.states[slot] = None
        reason = "began" if activated.hash else "ended"
        told = JournalEntry(
            "shadowed", now, tenant, "", "operator", name, activated.version, reason=reason, shadow=True
        )
        [line] = write_entries([told])
        self.batch.outputs.append(
            NewRecord("journal", None, line, (LINES_TYPE, ("tenant", tenant.encode())), self.host.number)
        )
        if is_swept:
            self._sweep(f"shadow of {name} {reason}:{now}", tenant)
        return after

    def control(self, catalog: Catalog, controlled: Controlled, now: int) -> Catalog:
        """Pause, resume, stop or retire a journey. One that isn't known is noted all the same."""
        after = catalog.control(controlled.tenant, controlled.journey, controlled.action, now)
        self._keep_control(after, controlled.tenant, controlled.journey)
        if controlled.action in ("stop", "resume", "pause"):
            self._sweep(f"{controlled.action} {controlled.journey}:{now}", controlled.tenant)
        return after

    def set_campaign(self, key: bytes, campaign: Campaign | None, due_before: int | None) -> None:
        """Put a campaign's state and timer into the batch; None deletes both."""
        due_at = None if campaign is None else campaign.next_at
        self.batch.states[states.USER + key] = None if campaign is None else states.encode_actor(campaign, due_at)
        earlier = self.batch.timers.get(key)
        before = due_before if earlier is None else earlier[0]
        if before != due_at:
            self.batch.timers[key] = (before, due_at)
        else:
            self.batch.timers.pop(key, None)

    def _plan_campaign(self, tenant: str, journey: Journey, now: int) -> None:
        """Let the campaign of a journey live in the partition that its key belongs to, if the journey has a schedule."""
        key = f"{tenant}/campaign:{journey.name}".encode()
        if self.host.partition_for(key) != self.host.number:
            return
        slot = states.USER + key
        raw = self.batch.states[slot] if slot in self.batch.states else self.host.store.get(slot)
        schedule = schedule_of(journey)
        if schedule is not None:
            next_at = schedule.next_time(now)[0]
            self.set_campaign(key, Campaign(tenant, journey.name, journey.version, next_at), states.due_in(raw))
        elif raw is not None:
            self.set_campaign(key, None, states.due_in(raw))

    def _sweep(self, id: str, tenant: str) -> None:
        swept = Swept(id, tenant)
        self.batch.outputs.append(NewRecord("events", None, _encode(swept), (JSON_TYPE,), self.host.number))

    def _remember(self, slot: str, now: states.Activation) -> None:
        key = states.ACTIVE + slot.encode()
        raw = self.batch.states[key] if key in self.batch.states else self.host.store.get(key)
        known = [] if raw is None else states.decode_activations(raw)
        self.batch.states[key] = states.encode_activations(
            [*(each for each in known if each.version != now.version), now]
        )

    def _keep_control(self, catalog: Catalog, tenant: str, journey: str) -> None:
        key = states.CONTROL + f"{tenant}/{journey}".encode()
        self.batch.states[key] = states.encode_control(catalog.controls[tenant, journey])


async def restored(store: Store, definitions: Definitions) -> Catalog:
    """Return the catalog that a store says is active, waiting for bodies that have not arrived yet."""
    catalog = Catalog()
    activations: list[tuple[str, Journey, int]] = []
    for key, raw in store.scan(states.ACTIVE, states.ACTIVE + b"\xff"):
        tenant, kind, name = key[1:].decode().split("/")
        for activation in states.decode_activations(raw):
            body = f"{tenant}/{kind}/{name}@{activation.version}"
            if kind == "shadow":
                body = _shadows_body(tenant, name, activation.hash)
            await definitions.wait(body)
            definition = read(definitions, body, activation.hash)
            if kind == "shadow":
                assert isinstance(definition, Journey)
                catalog = catalog.with_shadow(tenant, definition, activation.at)
            elif isinstance(definition, Policy):
                catalog = catalog.activate_policy(tenant, definition)
            else:
                activations.append((tenant, definition, activation.at))
    catalog = catalog.activate_all(activations)
    for key, raw in store.scan(states.CONTROL, states.CONTROL + b"\xff"):
        tenant, _, journey = key[1:].decode().partition("/")
        catalog = catalog.with_control(tenant, journey, states.decode_control(raw))
    return catalog


def read(definitions: Definitions, key: str, wanted_hash: str) -> Journey | Policy:
    """Return the definition of a key. Raises MissingDefinition or PartitionStopped."""
    definition = definitions.find(key)
    if definition is None:
        raise MissingDefinition(key)
    if definition.hash != wanted_hash:
        raise PartitionStopped(
            f"{key} was activated with SHA-256 {wanted_hash[:12]}, but the definition stored under this key has"
            f" {definition.hash[:12]}; publish the right body again, or a new version"
        )
    try:
        return thaw_policy(definition) if definition.kind == "policy" else thaw(definition)
    except JourneyError as error:
        raise PartitionStopped(
            f"{key} can't be read by this version ({error}); upgrade this worker, or publish it again"
        ) from error


def _shadows_body(tenant: str, name: str, hash: str) -> str:
    """Return where the body of a shadow is kept: by what it is, for a version that is not published may change."""
    return f"{tenant}/shadow/{name}@{hash[:12]}"


def is_activation(record: Record) -> bool:
    """Does this record make a version current? `type` is the first field that the encoder writes."""
    return record.key is None and record.value is not None and record.value.startswith(b'{"type":"activated"')


def is_sweep(record: Record) -> bool:
    """Does this record read the store? `type` is the first field that the encoder writes."""
    return record.key is None and record.value is not None and record.value.startswith(b'{"type":"swept"')


def chunk(store: Store, swept: Swept) -> tuple[list[bytes], str]:
    """Return (keys of the next users, the last of them or "" where no more follow)."""
    prefix = states.USER + f"{swept.tenant}:".encode()
    start = prefix + swept.after.encode() + b"\0" if swept.after else prefix
    keys: list[bytes] = []
    for key, _ in store.scan(start, prefix[:-1] + b";"):
        keys.append(key[1:])
        if len(keys) == CHUNK:
            return keys, key[len(prefix) :].decode()
    return keys, ""
