"""A backtest as a web page in one file, to be mailed or attached: nothing is loaded from elsewhere, and no script runs."""

from collections import Counter
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from agents.backtest import plots
from agents.backtest.figures import Figure, figures_of, notes_of
from agents.backtest.play import Played
from agents.backtest.tables import date
from agents.trace import FindJourney, Sentence, tell
from engine.comparison import BUSIEST, Comparison, Outcome

STYLE = Path(__file__).parent / "static" / "page.css"
POLICY = "default-src 'none'; style-src 'unsafe-inline'"
CARDS = ("runs begun", "messages", "users who get any", "of the runs", "their value", "of the messages")
NAMES = {"of the runs": "goal rate", "their value": "value of goals", "of the messages": "cost"}
MOST_ROWS = 8  # of a plot with a bar for each reason


def page_of(played: Played, find_journey: FindJourney) -> str:
    """Return the page."""
    comparison = played.comparison
    title = f"{comparison.old.journey} against {comparison.new.journey}"
    body = "".join([*_header(comparison), *_plots(comparison), *_differences(played, find_journey), *_foot(played)])
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Backtest: {escape(title)}</title><style>{STYLE.read_text('utf-8')}</style></head>"
        f"<body><main>{body}</main></body></html>\n"
    )


def _header(comparison: Comparison) -> Iterator[str]:
    old, new = escape(comparison.old.journey), escape(comparison.new.journey)
    yield f'<h1>{old}<span class="arrow">→</span><span class="new">{new}</span></h1>'
    yield (
        f'<p class="about">{comparison.inputs:,} recorded inputs of {comparison.users:,} users,'
        f" {comparison.first_at[:10]} to {comparison.last_at[:10]}, played through both versions.</p>"
    )
    yield '<div class="cards">'
    for figure in figures_of(comparison):
        if figure.label in CARDS:
            yield _card(figure)
    share = comparison.differing_users / comparison.users if comparison.users else 0
    yield (
        '<div class="card"><div class="what">treated differently</div>'
        f'<div class="value">{comparison.differing_users:,}</div><div class="was">{share:.1%} of all users</div></div></div>'
    )


def _card(figure: Figure) -> str:
    return (
        f'<div class="card"><div class="what">{escape(NAMES.get(figure.label, figure.label))}</div>'
        f'<div class="value">{figure.written(figure.new)} <small>{escape(figure.change)}</small></div>'
        f'<div class="was">{figure.written(figure.old)} before</div></div>'
    )


def _plots(comparison: Comparison) -> Iterator[str]:
    old, new = comparison.old, comparison.new
    names = (old.journey, new.journey)
    legend = f'<span class="legend"><i class="old"></i>{escape(names[0])}<i class="new"></i>{escape(names[1])}</span>'
    yield _section("Messages", plots.over_time(_per_day(old), _per_day(new), names, "messages", plots.WIDE), legend)
    per_user = plots.columns(old.messages_per_user, new.messages_per_user, names, "messages", BUSIEST)
    yield '<div class="two">'
    yield _section("Runs begun", plots.over_time(old.entered_per_day, new.entered_per_day, names, "runs"))
    yield _section("Goals reached", plots.over_time(old.goals_per_day, new.goals_per_day, names, "goals"))
    yield _section("Users", per_user, "<small>by how many messages they get</small>")
    yield _section("Messages by template", plots.rows(_pairs(old.templates, new.templates), names, "messages"))
    yield _section("How runs end", plots.rows(_pairs(old.exits, new.exits), names, "ended runs"))
    if old.by_journey or new.by_journey:
        each = _pairs(_of_journeys(old), _of_journeys(new))
        yield _section("Messages by journey", plots.rows(each, names, "messages"))
    kept = _pairs({**old.blocked, **_held(old)}, {**new.blocked, **_held(new)})
    yield _section("Messages kept back", plots.rows(kept, names, "messages kept back"))
    yield "</div>"


def _section(heading: str, content: str, more: str = "") -> str:
    return f"<section><h2>{heading}{more}</h2>{content}</section>"


def _differences(played: Played, find_journey: FindJourney) -> Iterator[str]:
    comparison = played.comparison
    if not comparison.differences:
        yield '<section><h2>Who is treated differently</h2><p class="none">Nobody.</p></section>'
        return
    most = max(difference.users for difference in comparison.differences)
    yield "<section><h2>Who is treated differently <small>with an example each</small></h2>"
    for place, difference in enumerate(comparison.differences):
        story = played.stories[difference.example]
        yield (
            f"<details{' open' if place == 0 else ''}><summary><b>{difference.users:,}</b>"
            f'<span class="share"><i style="width:{difference.users / most:.1%}"></i></span>'
            f'<span>{escape(difference.text)}</span><span class="example">such as {escape(difference.example)}</span></summary>'
            '<div class="stories">'
            f"{_story('old', comparison.old.journey, tell(story.old, find_journey))}"
            f"{_story('new', comparison.new.journey, tell(story.new, find_journey))}</div></details>"
        )
    yield "</section>"


def _story(side: str, heading: str, sentences: Sequence[Sentence]) -> str:
    told = "".join(
        f'<li class="{each.mood}"><time>{date(each.at)}</time>{escape(each.text)}</li>' for each in sentences
    )
    return f'<div class="side-{side}"><h3>{escape(heading)}</h3><ol>{told or "<li class=quiet>nothing</li>"}</ol></div>'


def _foot(played: Played) -> Iterator[str]:
    comparison = played.comparison
    yield "<section><h2>All figures <small>days and dates are UTC</small></h2><table><thead><tr><th></th><th></th>"
    for heading in (comparison.old.journey, comparison.new.journey, "change"):
        yield f'<th class="number">{escape(heading)}</th>'
    yield "</tr></thead><tbody>"
    group = ""
    for figure in figures_of(comparison):
        name, group = "" if figure.group == group else figure.group, figure.group
        yield (
            f'<tr><td class="group">{escape(name)}</td><td>{escape(figure.label)}</td>'
            f'<td class="number">{figure.written(figure.old)}</td><td class="number">{figure.written(figure.new)}</td>'
            f'<td class="number{" same" if figure.change == "=" else ""}">{escape(figure.change)}</td></tr>'
        )
    yield "</tbody></table></section><section><h2>What to know</h2>"
    yield f'<ul class="notes">{"".join(f"<li>{escape(note)}</li>" for note in notes_of(played))}</ul></section>'


def _per_day(outcome: Outcome) -> dict[str, int]:
    """Return the messages of all channels by day."""
    total: Counter[str] = Counter()
    for days in outcome.messages_per_day.values():
        total.update(days)
    return dict(total)


def _of_journeys(outcome: Outcome) -> dict[str, int]:
    return {name: counts["messages"] for name, counts in outcome.by_journey.items()}


def _held(outcome: Outcome) -> dict[str, int]:
    return {f"held: {reason}": count for reason, count in outcome.held.items()}


def _pairs(old: dict[str, int], new: dict[str, int]) -> list[tuple[str, float, float]]:
    names = sorted({**old, **new}, key=lambda name: -(old.get(name, 0) + new.get(name, 0)))
    return [(name, old.get(name, 0), new.get(name, 0)) for name in names[:MOST_ROWS]]
