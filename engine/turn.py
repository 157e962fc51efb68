"""A user's turn: everything that one input sets in motion, in the order that `engine/actor.py` tells."""

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from engine import duplicates, goals, history, machine, run_ids
from engine.admission import refusal, with_entry
from engine.catalog import Catalog
from engine.conditions import Facts
from engine.due import first_due, moving_to
from engine.durations import milliseconds
from engine.entries import Api, Changed, Schedule
from engine.events import MAX_ANSWER_BYTES, carried, check, check_entry, check_nesting, key_in, worth_of
from engine.journey import Journey
from engine.local_time import read_local, to_instant, zone
from engine.machine import Move
from engine.outcomes import Forward, Place
from engine.policy import Request, judge, with_contact, zone_name
from engine.profiles import changes_between, merged
from schemas.inputs import Asked, Entered, Event, Granted, Input, Receipt
from schemas.outputs import JournalEntry, JournalKind, Message
from schemas.state import Contact, OpenGoal, Run, Sent, User

MAX_FIRINGS = 1000  # timers of one run in one input: a loop of short delays must not stop the partition after an outage
MAX_ROUNDS = 32  # of runs that see what other runs changed in the profile, and of messages considered, in one input
MAX_REFUSED = 64

_Waiting = tuple[str, Request, Place, list[str]]  # a run that came to a message


class Turn:
    """One call of `handle`: the user as it is so far, and what was asked for on the way."""

    __slots__ = (
        "before", "catalog", "changed_by_steps", "contacts", "earlier", "entered", "errors", "goals", "history",
        "inputs", "is_erased", "journal", "messages", "now", "older", "policy", "profile", "refused", "runs", "seen",
        "tenant", "user_id", "waiting",
    )  # fmt: skip

    def __init__(self, catalog: Catalog, tenant: str, user_id: str, user: User, now: int, older: bytes) -> None:
        self.catalog = catalog
        self.tenant = tenant
        self.user_id = user_id
        self.now = now
        self.before = user
        self.policy = catalog.policy_of(tenant)
        self.profile = user.profile
        self.history = self.earlier = user.history
        self.runs = list(user.runs)
        self.entered = user.entered
        self.goals = user.goals
        self.seen = user.seen
        self.older = older
        self.contacts = user.contacts
        self.refused = user.refused
        self.messages: list[Message] = []
        self.journal: list[JournalEntry] = []
        self.inputs: list[tuple[str, Input]] = []
        self.errors: list[Exception] = []
        self.waiting: list[_Waiting] = []
        self.is_erased = False
        self.changed_by_steps: dict[str, Any] | None = None  # the profile before steps began to change it

    # What was due

    def fire_what_is_due(self) -> None:
        firings: dict[str, int] = {}
        while True:
            following = first_due(self.runs, self.catalog, self.tenant, self.now)
            if following is None:
                if not self.waiting:
                    return
                self._consider()
                continue
            at, run, move = following
            if self._is_at_a_message(run):
                if move is not machine.stop:
                    self._consider()  # It came there before, so it moves on from where the policy lets it.
                    continue
                self.waiting = [each for each in self.waiting if each[0] != run.id]
            is_timer = move is machine.time_out
            place = self._place(at, "timer" if is_timer else "operator")
            firings[run.id] = firings.get(run.id, 0) + is_timer
            if is_timer and firings[run.id] > MAX_FIRINGS:
                reason = f"more than {MAX_FIRINGS} timers were due at once; resume the run to let it go on"
                self._suspend(run, RuntimeError(reason), place)
            else:
                current = self.catalog.current.get((self.tenant, run.journey), 0)
                self._move(run, place, move, doing="" if is_timer else moving_to(current))
                for _ in range(MAX_ROUNDS):  # Who waits for a change sees it before a later timer ends their wait.
                    if self.changed_by_steps is None:
                        break
                    self._show_changes(at)

    def _is_paused(self, journey: str, at: int | None = None) -> bool:
        """Is the journey paused now; or was it at an earlier time, at which a timer was due?"""
        control = self.catalog.controls.get((self.tenant, journey))
        if control is None or control.paused_at is None:
            return False
        return at is None or at == self.now or at > control.paused_at

    # Events

    def take_event(self, event: Event) -> None:
        check(event)
        cause = f"event {event.name} #{event.id}"
        if not self._is_first(event.id, cause):
            return
        before = self.profile
        if event.profile:
            self.profile = merged(before, event.profile)
        trackers = self.catalog.tracking(self.tenant, event.name)
        if trackers:
            facts = Facts(self.profile, event.name, event.properties, history=self.history, now=self.now)
            self.history = history.note(self.history, trackers, facts, min(event.occurred_at, self.now))
        place = self._place(self.now, cause)
        if self.goals or self.runs:
            self._tell(event, place, bool(event.profile or trackers))
        for journey in self.catalog.beginning_with(self.tenant, event.name):
            assert not isinstance(journey.entry, Api | Changed | Schedule)
            facts = Facts(self.profile, event.name, event.properties, history=self.history, now=self.now)
            if journey.entry.holds(facts):
                self._enter(journey, event.id, event.properties, event.occurred_at, place)
        if event.profile:
            self._profile_changed(before, place, event.properties)

    def _is_first(self, id: str, cause: str) -> bool:
        """Remember the id of an input; return False if it is known already."""
        seen = duplicates.noted(self.seen, self.older, id, self.now)
        if seen is None:
            self._note("dropped", cause, reason="duplicate")
            return False
        self.seen = seen
        return True

    def _tell(self, event: Event, place: Place, is_news: bool) -> None:
        """Let the goals and the live runs know of an event. `is_news`: it has changed what is known of the user, too."""
        facts = Facts(self.profile, event.name, event.properties, history=self.history, now=self.now)
        if self.goals:
            self._reach_goals(place, facts)
            if event.profile:  # The profile is everybody's, also of runs with another key.
                self._reach_goals(place, Facts(self.profile, None, history=self.history, now=self.now))
        journeys = self.catalog.journeys
        for run in tuple(self.runs):
            journey = journeys[self.tenant, run.journey, run.version]
            names = journey.hearing[run.step]
            if names is not None and event.name not in names:
                continue
            if run.key is None or run.key == key_in(event.properties, journey.key):
                self._show(run, place, facts)
            elif names is None and is_news:
                self._show(run, place, self._bare_facts(run))

    def _profile_changed(self, before: dict[str, Any], place: Place, properties: dict[str, Any]) -> None:
        """Let runs that follow the profile read it again, and journeys begin that wait for a change."""
        after = self.profile  # what runs change from here on is a change of its own
        changed = changes_between(before, after)
        if not changed:
            return
        for run in tuple(self.runs):
            self._move(run, place, machine.look_later if self._is_paused(run.journey, place.at) else machine.follow)
        if place.at < self.now:  # Who enters enters now, however late the step was that made them.
            place = self._place(self.now, place.cause)
        for journey in self.catalog.changes.get(self.tenant, ()):
            entry = journey.entry
            if isinstance(entry, Changed) and entry.attribute in changed:
                facts = Facts(after, None, properties, history=self.history, now=self.now)
                if entry.who is None or entry.who.holds(facts):
                    self._enter(journey, place.cause, {**properties, **after}, self.now, place)

    def _reach_goals(self, place: Place, facts: Facts, only: str | None = None) -> None:
        """Count each open goal that is reached now, once."""
        self.goals, done = goals.reached(self.goals, self.catalog, self.tenant, self.runs, facts, self.now, only)
        for goal in done:
            aim = self._journey(goal).goal
            worth = None if aim is None else worth_of(facts.properties, aim.value)
            self._note(
                "goal", place.cause, journey=goal.journey, version=goal.version, run=goal.run,
                detail={} if worth is None else {"value": worth},
            )  # fmt: skip

    # Entries

    def take_entry(self, entered: Entered) -> None:
        """Begin a run by API, by another journey, or by a schedule."""
        check_entry(entered)
        cause = f"{entered.by} #{entered.id}"
        if not self._is_first(entered.id, cause):
            return
        control = self.catalog.controls.get((self.tenant, entered.journey))
        journey = self.catalog.of(self.tenant, entered.journey)
        if journey is None or (control is not None and control.is_closed):
            self._note("not_entered", cause, journey=entered.journey, reason="no such journey is active")
            return
        entry = journey.entry
        if entered.by == "schedule" and not isinstance(entry, Schedule):
            return  # of a version before this one
        if isinstance(entry, Api | Schedule) and entry.who is not None:
            facts = Facts(self.profile, None, entered.properties, history=self.history, now=self.now)
            if not entry.who.holds(facts):
                if not isinstance(entry, Schedule):  # a sweep goes through everybody: no news that most aren't meant
                    self._note(
                        "not_entered", cause, journey=journey.name, version=journey.version, reason=f"not {entry.who}"
                    )
                return
        self._enter(journey, entered.id, entered.properties, self.now, self._place(self.now, cause), entered.local)

    def _enter(
        self, journey: Journey, id: str, properties: dict[str, Any], occurred_at: int, place: Place, local: str = ""
    ) -> None:
        key = key_in(properties, journey.key)
        slot = journey.name if key is None else f"{journey.name}|{key}"
        is_paused = bool(self.catalog.steered) and self._is_paused(journey.name)
        refused = refusal(journey, key, self.runs, self.entered.get(slot), occurred_at, self.now, is_paused)
        if refused:
            self._note("not_entered", place.cause, journey=journey.name, version=journey.version, reason=refused)
            return
        run = Run(
            id=run_ids.run_id(self.tenant, self.user_id, journey, id, key, self.now),
            journey=journey.name,
            version=journey.version,
            step=journey.start,
            visit=0,
            entered_at=self.now,
            arrived_at=self.now,
            due_at=self.now,  # so that a run suspended before its first step starts when it is resumed
            key=key,
            event=carried(properties),
        )
        self.entered = with_entry(self.entered, slot, self.now)
        self.goals = goals.with_goal(self.goals, journey, run, self.now)
        self._note(
            "entered", place.cause, journey=journey.name, version=journey.version, run=run.id,
            detail={} if key is None else {"key": key},
        )  # fmt: skip
        if local:
            where = zone(zone_name(self.policy, self.profile))
            run = replace(run, due_at=max(self.now, to_instant(read_local(local), where)))
        if journey.entry_cap is not None:
            run = replace(run, due_at=None, mode="asked")
            within_ms = milliseconds(journey.entry_cap.within)
            asked = Asked(f"{run.id}:0", self.user_id, most=journey.entry_cap.most, within_ms=within_ms)
            self._give(Forward(f"quota:entries.{journey.name}", asked))
        self.runs.append(run)
        if run.due_at == self.now:
            self._move(run, place, machine.start)

    # Receipts and grants

    def take_receipt(self, receipt: Receipt) -> None:
        check_nesting(receipt.answer, "the answer")
        run_id, _, visit = receipt.message.rpartition(":")
        run = self._find(run_id)
        step = next((name for name, sent in run.sends.items() if str(sent.visit) == visit), "") if run else ""
        if run is not None and step and receipt.status in run.sends[step].statuses:
            return  # Receipts are sets: the second of a kind is no news.
        place = self._place(self.now, f"receipt {receipt.status}")
        journey, _, version = run_id.rpartition(".")[0].rpartition(".")
        self._note(
            "receipt", place.cause, message=receipt.message, run=run_id, journey=journey, step=step,
            version=int(version) if version.isdecimal() else 0, reason=receipt.status,
            detail={"channel": receipt.channel, **({"detail": receipt.detail} if receipt.detail else {})},
        )  # fmt: skip
        if receipt.status in ("unsubscribed", "complained"):
            topic = getattr(self._journey(run).steps[step], "topic", "all") if run is not None and step else "marketing"
            self._refuse(f"{receipt.channel}:{'all' if receipt.status == 'complained' else topic}")
        if run is None or not step:
            return
        sent = Sent(run.sends[step].visit, tuple(sorted({*run.sends[step].statuses, receipt.status})))
        answers = {**run.answers, step: carried(receipt.answer, MAX_ANSWER_BYTES)} if receipt.answer else run.answers
        informed = replace(run, sends={**run.sends, step: sent}, answers=answers)
        self._replace(run, informed)
        facts = self._bare_facts(informed)
        self._reach_goals(place, facts, only=run_id)
        self._show(informed, place, facts)

    def _refuse(self, what: str) -> None:
        if what not in self.refused:
            self.refused = (*self.refused, what)[-MAX_REFUSED:]

    def take_grant(self, grant: Granted) -> None:
        """A quota's answer; one that is for an earlier visit, or for a run that has ended, is nothing any more."""
        run_id, _, visit = grant.id.rpartition(":")
        run = self._find(run_id)
        if run is None or run.suspended or run.mode != "asked" or str(run.visit) != visit:
            return
        place = self._place(self.now, "quota")
        granted = machine.granted_in_pause if self._is_paused(run.journey) else machine.granted
        self._move(run, place, lambda journey, run, place: granted(journey, run, grant.at, place))

    # Operators, erasure

    def unsuspend(self, run_id: str) -> bool:
        """Let a run's timers fire again. Return False if it isn't suspended, or gone."""
        run = self._find(run_id)
        if run is None or not run.suspended:
            return False
        self._replace(run, replace(run, suspended=""))
        self._note("resumed", "operator", journey=run.journey, version=run.version, run=run.id, step=run.step)
        return True

    def look_again(self, run_id: str) -> None:
        """Show a resumed run what came while it stood still: its receipts, and what the profile is by now."""
        run = self._find(run_id)
        if run is not None and not run.suspended:
            self._show(run, self._place(self.now, "operator"), self._bare_facts(run))

    def erase(self) -> None:
        """Forget everything but that there is nothing to remember."""
        for run in tuple(self.runs):
            self.journal += machine.end(run, "erased", self._place(self.now, "erasure")).journal
        self.runs, self.waiting = [], []
        self.is_erased = True

    # Moving runs

    def settle(self) -> None:
        """Put what runs came to before the policy, and show the others what was changed, until nothing more moves."""
        for _ in range(MAX_ROUNDS):
            if self.waiting:
                self._consider()
            elif self.changed_by_steps is not None:
                self._show_changes(self.now)
            else:
                return
        for run_id, _, place, _ in self.waiting:
            stuck = self._find(run_id)
            if stuck is not None:
                self._suspend(stuck, RuntimeError(f"more than {MAX_ROUNDS} messages in one input"), place)

    def _is_at_a_message(self, run: Run) -> bool:
        return bool(self.waiting) and any([run_id == run.id for run_id, *_ in self.waiting])

    def _show_changes(self, at: int) -> None:
        """Let the runs see what steps have changed in the profile at that time."""
        before, self.changed_by_steps = self.changed_by_steps, None
        assert before is not None
        place = self._place(at, "profile")
        for run in tuple(self.runs):
            if not self._is_at_a_message(run):  # What becomes of that is for the policy to say first.
                self._show(run, place, self._bare_facts(run, at))
        self._profile_changed(before, place, {})

    def _consider(self) -> None:
        """Judge the messages that runs have come to: the highest priority first, what was due first, the oldest run."""
        waiting, self.waiting = self.waiting, []
        if len(waiting) > 1:
            order = {run.id: at for at, run in enumerate(self.runs)}
            priority = {run.id: self._journey(run).priority for run in self.runs}
            waiting.sort(key=lambda each: (-priority[each[0]], each[2].at, order[each[0]]))
        for run_id, request, place, passed in waiting:
            run = self._find(run_id)
            if run is None:
                continue
            if holdout := self._journey(run).holdout:
                request = replace(request, holdout=holdout)
            judged = User(profile=self.profile, contacts=self.contacts, refused=self.refused)
            verdict = judge(self.policy, self.user_id, judged, request, self.now)
            place.profile = self.profile
            asked = len(self.messages)
            self._move(
                run, place,
                lambda journey, run, place, v=verdict, p=passed: machine.decide(journey, run, v, place, p),
            )  # fmt: skip
            if self.policy.caps and not request.transactional:
                for message in self.messages[asked:]:
                    if message.transactional:  # also what the run called on its way on
                        continue
                    contact = Contact(self.now, message.channel, message.topic)
                    self.contacts = with_contact(self.policy, self.contacts, contact)

    def _show(self, run: Run, place: Place, facts: Facts) -> None:
        """Let a run see what is the case, and what became of its own messages. A paused one obeys its exit only."""
        facts.sends = run.sends
        facts.here = run.sends.get(run.step)
        facts.answers = run.answers
        if self.catalog.steered and self._is_paused(run.journey, place.at):
            exit_on = self._journey(run).exit_on
            if exit_on is not None and exit_on.holds(facts):
                self._move(run, place, lambda journey, run, place: machine.end(run, "exit_on", place))
            elif facts.name is None:  # a receipt or an attribute, which still is there when the journey goes on
                self._move(run, place, machine.look_later)
            return
        self._move(run, place, machine.resume, facts)

    def _bare_facts(self, run: Run, at: int | None = None) -> Facts:
        """What is the case without an event at hand."""
        now = self.now if at is None else at
        return Facts(self.profile, None, run.event, history=self.history, now=now)

    def _move(self, run: Run, place: Place, move: Callable[..., Move | None], *given: Facts, doing: str = "") -> None:
        """Move one run, all or nothing: if it fails, it stands suspended as it was."""
        try:
            moved = move(self.catalog.journeys[self.tenant, run.journey, run.version], run, place, *given)
        except Exception as error:
            place.profile = self.profile
            self._suspend(run, error, place, doing)
            return
        if moved is None:
            return
        self._replace(run, moved.run)
        if moved.messages:
            self.messages += moved.messages
        self.journal += moved.journal
        for forward in moved.inputs:
            self._give(forward)
        if place.profile is not self.profile:
            if self.changed_by_steps is None:
                self.changed_by_steps = self.profile
            self.profile = place.profile
        if moved.request is not None:
            self.waiting.append((run.id, moved.request, place, moved.passed))

    def _give(self, forward: Forward) -> None:
        key = f"{self.tenant}/{forward.to}" if forward.to else f"{self.tenant}:{self.user_id}"
        self.inputs.append((key, forward.input))

    def _suspend(self, run: Run, error: Exception, place: Place, doing: str = "") -> None:
        reason = f"{doing}{type(error).__name__}: {error}"[:500]
        self._replace(run, replace(run, suspended=reason))
        suspended = machine.entry("suspended", run, place, reason=reason)
        self.journal.append(suspended)
        self.errors.append(error)

    def _find(self, run_id: str) -> Run | None:
        for run in self.runs:
            if run.id == run_id:
                return run
        return None

    def _replace(self, run: Run, by: Run | None) -> None:
        for at, each in enumerate(self.runs):
            if each.id == run.id:
                if by is None:
                    del self.runs[at]
                else:
                    self.runs[at] = by
                return

    def _journey(self, run: Run | OpenGoal) -> Journey:
        """Return the version that a run is in. That it isn't there would be our fault, not the run's."""
        return self.catalog.journeys[self.tenant, run.journey, run.version]

    def _place(self, at: int, cause: str) -> Place:
        return Place(
            self.tenant, self.user_id, self.profile, self.history, self.earlier, self.policy, at, self.now, cause
        )

    def _note(self, kind: JournalKind, cause: str, **more: Any) -> None:
        self.journal.append(JournalEntry(kind, self.now, self.tenant, self.user_id, cause, **more))

    def finish(self) -> tuple[User, bytes]:
        """Return the user as it is now, the same object if nothing has changed, and the seen ids kept apart."""
        user = self.before
        if self.is_erased:
            return User(erased=True), b""
        has_older = user.has_older
        if duplicates.overflows(self.seen):
            self.seen, self.older = duplicates.spill(self.seen, self.older, self.now)
            has_older = bool(self.older)
        runs = tuple(self.runs)
        if (
            self.seen is user.seen
            and self.profile is user.profile
            and self.history is user.history
            and self.entered is user.entered
            and self.goals is user.goals
            and self.contacts is user.contacts
            and self.refused is user.refused
            and runs == user.runs
        ):
            return user, self.older
        after = User(
            self.profile, runs, self.entered, self.goals, self.seen, has_older, self.history, self.contacts,
            self.refused, aliases=user.aliases,
        )  # fmt: skip
        return after, self.older
