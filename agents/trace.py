"""One user's story, told from the journal so that a marketer can read it.

Each entry of the journal becomes at most one sentence, in the order of the log. Three kinds of entry are gathered: what
became of a message stands behind the sentence that asked for it; a step that doesn't wait is told together with where it
led; and the cause is said where something sets a run moving, not again at each step of the same walk. Without the
definition of a journey its steps are told by their names alone.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Literal, get_args

from rich.console import Console
from rich.table import Table
from rich.text import Text

from engine.durations import describe
from engine.journey import Journey
from engine.steps import Branch, Cohorts, Delay, Exit, Send, Step, WaitFor
from schemas.inputs import ReceiptStatus
from schemas.outputs import JournalEntry

FindJourney = Callable[[str, int], Journey | None]
Mood = Literal["begin", "plain", "message", "end", "good", "bad", "quiet"]

STYLES: dict[Mood, str] = {
    "begin": "bold",
    "plain": "",
    "message": "cyan",
    "end": "bold",
    "good": "bold green",
    "bad": "bold red",
    "quiet": "dim",
}

LIFE = get_args(ReceiptStatus)  # in the order in which it happens to a mail

# Only what happened to the person is worth a word; that a worker was about to call its provider is not, unless it ended there.
FATES = {"unknown": "unknown: it may have arrived", "dropped": "kept back by the channel"}


@dataclass(frozen=True)
class Sentence:
    """One line of the story. `journey` is empty where the sentence is about the user alone."""

    at: int
    journey: str
    text: str
    mood: Mood = "plain"


def tell(entries: Sequence[JournalEntry], find_journey: FindJourney = lambda name, version: None) -> list[Sentence]:
    """Return the story of one user's entries, which are in the order of the log."""
    return _Teller(entries, find_journey).tell()


class _Teller:
    def __init__(self, entries: Sequence[JournalEntry], find_journey: FindJourney) -> None:
        self.entries = entries
        self.find_journey = find_journey
        self.fates: dict[str, list[JournalEntry]] = {}
        self.next_step: dict[int, str] = {}
        self.sent = {entry.message for entry in entries if entry.kind == "sent"}
        last_step: dict[str, int] = {}
        for index, entry in enumerate(entries):
            if entry.kind in ("receipt", "attempt", "retry"):
                self.fates.setdefault(entry.message, []).append(entry)
            elif entry.kind == "step":
                if entry.run in last_step:
                    self.next_step[last_step[entry.run]] = entry.step
                last_step[entry.run] = index

    def tell(self) -> list[Sentence]:
        story: list[Sentence] = []
        walking: dict[str, tuple[str, int]] = {}  # run -> the cause and time of its present walk
        for index, entry in enumerate(self.entries):
            walk = (entry.cause, entry.at)
            if entry.kind == "step" and entry.run in walking and walking[entry.run] != walk:
                story.append(Sentence(entry.at, label(entry), f"goes on, because {because(entry.cause)}", "quiet"))
            if entry.run and entry.kind in ("entered", "step", "sent", "blocked"):
                walking[entry.run] = walk
            text, mood = self._say(index, entry, walking.get(entry.run) == walk)
            if text:
                story.append(Sentence(entry.at, label(entry), text, mood))
        return story

    def _say(self, index: int, entry: JournalEntry, same_walk: bool) -> tuple[str, Mood]:
        kind: str = entry.kind  # a journal written by a newer version has kinds that this one does not know
        match kind:
            case "entered":
                key = f" ({entry.detail['key']})" if "key" in entry.detail else ""
                return f"entered{key}, because {because(entry.cause)}", "begin"
            case "step":
                return self._arrival(index, entry), "plain"
            case "sent":
                return self._message(entry), "message"
            case "blocked":
                return f"{self._what_was_to_be_sent(entry)} was kept back: {blocked(entry.reason)}", "bad"
            case "receipt" if entry.message not in self.sent:  # the entry that asked for it is no longer retained
                what = f"the message of '{entry.step}'" if entry.step else "an earlier message"
                return f"{what}: {fate(entry)}", "quiet"
            case "goal":
                worth = f", worth {entry.detail['value']}" if "value" in entry.detail else ""
                return f"reached its goal: {because(entry.cause)}{worth}", "good"
            case "exited":
                why = "" if same_walk else f", because {because(entry.cause)}"
                reason = "" if entry.reason in ("done", "exit_on") else f": {entry.reason}"
                return f"left{reason}{why}", "end"
            case "suspended":
                return f"stands still at '{entry.step}' after an error: {entry.reason}", "bad"
            case "resumed":
                return f"was let go on by an operator at '{entry.step}'", "plain"
            case "not_entered":
                return f"not entered although {because(entry.cause)}: {entry.reason}", "quiet"
            case "dropped":
                return f"{dropped(entry)}", "quiet"
            case "linked":
                return f"turned out to be {entry.detail.get('user')}, whose story goes on", "begin"
            case "absorbed":
                return f"{entry.detail.get('alias')} turned out to be the same person", "begin"
            case "not_linked":
                return f"{entry.detail.get('alias')} was not taken for the same person: {entry.reason}", "quiet"
            case "attempt" | "retry" | "receipt":
                return "", "plain"  # told with the message
            case _:
                return f"{entry.kind.replace('_', ' ')} at '{entry.step}'" + f": {entry.reason}" * bool(
                    entry.reason
                ), "plain"

    def _arrival(self, index: int, entry: JournalEntry) -> str:
        step = self._step(entry)
        following = self.next_step.get(index, "")
        match step:
            case Delay():
                return f"waits {describe(step.duration)}"
            case WaitFor():
                awaited = " or ".join(str(condition) for condition in step.conditions())
                return f"waits up to {describe(step.timeout)} for: {awaited}"
            case Branch():
                way = next((label for label, target in step.edges() if target == following), "")
                return (
                    f"decided at '{entry.step}': {way}, so on to '{following}'" if way else f"decided at '{entry.step}'"
                )
            case Cohorts():
                return (
                    f"drawn at random at '{entry.step}': '{following}'"
                    if following
                    else f"drawn at random at '{entry.step}'"
                )
            case Send() | Exit():
                return ""  # its own sentence follows: what was sent or kept back, or that the run left
            case None:
                return f"arrived at '{entry.step}'"
            case _:
                return f"at '{entry.step}': {step.describe()}"

    def _message(self, entry: JournalEntry) -> str:
        channel = str(entry.detail.get("channel", "message"))
        template = str(entry.detail.get("template", entry.step)).partition("@")[0]
        fates = self.fates.get(entry.message, [])
        receipts = [each for each in fates if each.kind == "receipt"]
        # A click may be in the log before the provider's answer is: receipts are a set, told in the order of a mail's life.
        told = list(dict.fromkeys(fate(each) for each in sorted(receipts, key=_stage)))
        if not told:
            told = [fate(each) for each in fates[-1:]]
        return " → ".join([f"{channel} '{template}' asked for", *told])

    def _what_was_to_be_sent(self, entry: JournalEntry) -> str:
        step = self._step(entry)
        return (
            f"{' or '.join(step.channels)} '{step.template}'"
            if isinstance(step, Send)
            else f"the message of '{entry.step}'"
        )

    def _step(self, entry: JournalEntry) -> Step | None:
        journey = self.find_journey(entry.journey, entry.version)
        return journey.steps.get(entry.step) if journey else None


def label(entry: JournalEntry) -> str:
    """Return a journey's name as people say it: "Cart abandonment v3"."""
    if not entry.journey:
        return ""
    name = entry.journey.replace("_", " ")
    version = f" v{entry.version}" if entry.version else ""  # none where a journey of that name isn't active
    return f"{name[:1].upper()}{name[1:]}{version}"


def because(cause: str) -> str:
    """Say the cause of an entry as the end of a sentence that goes on with "because"."""
    kind, _, rest = cause.partition(" ")
    match kind:
        case "event":
            name = rest.rpartition(" #")[0] or rest
            return f"{name} happened"
        case "receipt":
            return f"the message was {rest}" if rest not in FATES else f"the message is {FATES[rest]}"
        case "timer":
            return "the wait was over"
        case "operator":
            return "an operator said so"
        case "link":
            return "two ids turned out to be one person"
        case "api":
            return "another system asked for it"
        case "schedule":
            return "its scheduled time had come"
        case run if (
            rest.startswith("#") and "." in run
        ):  # an Enter step: the run that asked, <journey>.<version>.<hash>
            return f"{run.partition('.')[0].replace('_', ' ')} led there"
        case _:
            return cause or "of a cause that was not recorded"


def fate(entry: JournalEntry) -> str:
    """Say in a word or two what became of a message."""
    if entry.kind == "attempt":
        return "on its way to the provider"
    if entry.kind == "retry":
        return f"the provider said later{f' ({entry.reason})' if entry.reason else ''}"
    status = entry.reason or entry.cause.partition(" ")[2]
    detail = entry.detail.get("detail", "")
    words = FATES.get(status, status)
    return f"{words} ({detail})" if detail and status not in ("accepted", "opened", "clicked") else words


def _stage(receipt: JournalEntry) -> int:
    return LIFE.index(receipt.reason) if receipt.reason in LIFE else len(LIFE)


def blocked(reason: str) -> str:
    return "it would have come too late" if reason == "late" else reason


def dropped(entry: JournalEntry) -> str:
    kind, _, rest = entry.cause.partition(" ")
    name = rest.rpartition(" #")[0] or entry.cause or "an input"
    if rest.startswith("#"):  # an entry, asked for by API, by a schedule or by a run
        name = f"an entry{' by API' if kind == 'api' else ''}"
    return (
        f"{name} came twice and was counted once"
        if entry.reason == "duplicate"
        else f"{name} changed nothing: {entry.reason}"
    )


def show(console: Console, title: str, story: Iterable[Sentence], zone: tzinfo | None = None) -> None:
    """Print a story, a heading for each day, in local time unless a zone is given."""
    console.print(Text(title, "bold"))
    day, table = "", _days_table()
    for sentence in story:
        at = datetime.fromtimestamp(sentence.at / 1000, UTC).astimezone(zone)
        if f"{at:%A, %d %B %Y}" != day:
            if day:
                console.print(table)
            day, table = f"{at:%A, %d %B %Y}", _days_table()
            console.print()
            console.print(Text(day, "underline"))
        table.add_row(f"{at:%H:%M:%S}", sentence.journey, Text(sentence.text, STYLES[sentence.mood]))
    console.print(table)


def _days_table() -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True, style="dim")
    table.add_column(no_wrap=True, style="magenta", min_width=22)
    table.add_column(overflow="fold")
    return table
