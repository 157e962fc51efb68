"""A backtest as JSON, for other programs: all figures, and the stories of the examples."""

from typing import Any

import msgspec

from agents.backtest.figures import notes_of
from agents.backtest.play import Played
from agents.backtest.tables import date
from agents.trace import FindJourney, tell
from schemas.outputs import JournalEntry


def report_of(played: Played, find_journey: FindJourney) -> str:
    """Return the report. Its keys are those of `engine.comparison.Comparison`, with `examples` and `notes` added."""

    def told(entries: list[JournalEntry]) -> list[dict[str, Any]]:
        return [{"at": each.at, "shown_at": date(each.at), "text": each.text} for each in tell(entries, find_journey)]

    report = msgspec.to_builtins(played.comparison)
    report["examples"] = [
        {"user": story.user, "old": told(story.old), "new": told(story.new)} for story in played.stories.values()
    ]
    report["could_not_be_used"] = dict(played.rejects.reasons)
    report["left_out"] = dict(played.left_out)
    report["notes"] = list(notes_of(played))
    return msgspec.json.format(msgspec.json.encode(report), indent=2).decode() + "\n"
