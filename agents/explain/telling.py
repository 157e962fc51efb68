"""How an explanation is told: the answer first, then every moment at which something was decided, with what it saw."""

from collections.abc import Iterator
from datetime import tzinfo

import msgspec
from rich.console import Console
from rich.text import Text

from agents.explain.answer import answer, flips_of, shown, why_not
from agents.explain.histories import History
from agents.trace import STYLES, tell
from engine.explain import Explanation, Look, Moment
from engine.judging import Judged

PLACES = {"entry": "entry", "exit_on": "exit", "goal": "goal"}


def show(console: Console, explanation: Explanation, history: History, zone: tzinfo | None = None) -> None:
    """Print an explanation, times in a zone, or in local time."""
    console.print(Text(f"{explanation.user} and {explanation.journey}", "bold"))
    for line in knowledge(explanation, history, zone):
        console.print(Text(line, "dim"))
    console.print()
    for sentence in answer(explanation, zone):
        console.print(Text(sentence))
    if explanation.moments:
        console.print()
        console.print(Text("What was decided, and by what", "underline"))
    for moment in explanation.moments:
        console.print()
        _show_moment(console, explanation, moment, zone)


def knowledge(explanation: Explanation, history: History, zone: tzinfo | None) -> Iterator[str]:
    """Yield from when on and up to when this is known, and how sure it is."""
    if history.known_from_at is None:
        yield "The recording is empty."
        return
    since = shown(history.known_from_at, zone)
    if not history.is_whole:
        yield f"Known from {since} on: what the log held before is beyond its retention, so runs begun then aren't told of."
    else:
        what = "the first record of the log" if history.is_log else "the first record of the file"
        yield f"Known from {since} on, {what}, up to {shown(explanation.until_at, zone)}."
    if agrees(explanation, history) is False:
        yield (
            "Folding once more gave another state than the host holds: "
            + (
                "its beginning is forgotten."
                if not history.is_whole
                else "was it written by another version of equeengage?"
            )
        )
    if explanation.forgotten:
        yield f"{explanation.forgotten:,} older moments are left out."
    for reason, count in explanation.refused.most_common():
        yield f"{count:,} inputs could not be folded: {reason}"


def agrees(explanation: Explanation, history: History) -> bool | None:
    """Did folding once more give the very state that the host holds? None where that can't be said."""
    return None if history.kept is None else history.kept == explanation.state


def document(explanation: Explanation, history: History) -> bytes:
    """Return the explanation as JSON, for other programs. Instants are milliseconds."""
    told = {
        "journey": explanation.journey,
        "user": explanation.user,
        "known_from_at": history.known_from_at,
        "is_whole": history.is_whole,
        "until_at": explanation.until_at,
        "agrees_with_the_host": agrees(explanation, history),
        "answer": list(answer(explanation)),
        "runs": [{name: getattr(run, name) for name in run.__struct_fields__} for run in explanation.runs],
        "passed_over": dict(explanation.passed_over),
        "refused": dict(explanation.refused),
        "forgotten": explanation.forgotten,
        "moments": explanation.moments,
    }
    return msgspec.json.format(msgspec.json.encode(told), indent=2) + b"\n"


def _show_moment(console: Console, explanation: Explanation, moment: Moment, zone: tzinfo | None) -> None:
    console.print(Text.assemble((shown(moment.at, zone), "dim"), "  ", (moment.input, "bold")))
    for look in moment.looks:
        for line in _look(look):
            console.print(Text("  ").append_text(line), soft_wrap=True)
    refusal = why_not(moment) if any(entry.kind == "not_entered" for entry in moment.journal) else ""
    if refusal:
        console.print(Text(f"  not entered: {refusal}", STYLES["bad"]))
    versions = explanation.versions
    for sentence in tell(moment.journal, lambda name, version: versions.get(version)):
        if not (refusal and sentence.text.startswith("not entered")):
            console.print(Text(f"  → {sentence.text}", STYLES[sentence.mood]))


def _look(look: Look) -> Iterator[Text]:
    place = PLACES.get(look.place, f"'{look.place}'")
    yield Text.assemble(_mark(look.judged), f" {place}: ", look.judged.text, _saw(look.judged))
    yield from (Text("    ").append_text(line) for line in _parts(look.judged))
    for flip in flips_of(look):
        yield Text(f"    {flip}", "yellow")


def _parts(judged: Judged) -> Iterator[Text]:
    for part in judged.parts:
        yield Text.assemble(_mark(part), " ", _words(part), _saw(part))
        yield from (Text("  ").append_text(line) for line in _parts(part))


def _words(judged: Judged) -> str:
    match judged.kind:
        case "all_of" if len(judged.parts) > 1:
            return "all of"
        case "any_of":
            return "any of"
        case "not":
            return "not"
        case _:
            return judged.text


def _mark(judged: Judged) -> tuple[str, str]:
    return ("✓", "green") if judged.holds else ("✗", "red")


def _saw(judged: Judged) -> tuple[str, str]:
    return (f"   saw {judged.saw}" if judged.saw and judged.saw != judged.text else "", "cyan")
