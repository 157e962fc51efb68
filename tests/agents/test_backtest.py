"""That `equeengage backtest` tells what two versions make of real purchases, in a terminal, as JSON and as a page."""

import json
import os
import re
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from agents.backtest.figures import Figure
from agents.backtest.play import Plan
from agents.backtest.plots import columns, over_time, rows
from agents.backtest.recording import Recorded, Rejects
from agents.backtest.shares import fold_in
from agents.backtest.versions import find_version
from agents.cli.program import run
from engine.backtest import World
from engine.errors import InvalidInput
from tests.agents.recordings import CDNOW

EXAMPLES = Path(__file__).parents[2] / "journeys"
HOW = ("--separator", " ", "--user-column", "customer_id", "--time-format", "%Y%m%d", "--event", "order_placed")
LAST_DAY = date(1998, 6, 30)


@pytest.fixture(scope="module")
def purchases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The purchases of every tenth customer: those of whom the literature tells."""
    place = tmp_path_factory.mktemp("cdnow") / "purchases.txt"
    head, *lines = CDNOW.read_text().splitlines()
    place.write_text("\n".join([head, *(line for line in lines if int(line.split()[0]) % 10 == 0)]))
    return place


@pytest.fixture(scope="module")
def later(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Version 2 of the example journey, which is more patient: 45 days of silence, and two weeks more."""
    source = (EXAMPLES / "win_back.py").read_text()
    changed = source.replace("version=1", "version=2").replace("days(30)", "days(45)").replace("days(7)", "days(14)")
    place = tmp_path_factory.mktemp("later") / "win_back_v2.py"
    place.write_text(changed)
    return place


def silences(purchases: Path) -> Iterator[timedelta]:
    """Yield how long each purchase was followed by none, until the end of the record."""
    days: dict[str, list[date]] = {}
    for line in purchases.read_text().splitlines()[1:]:
        customer, day, *_ = line.split()
        days.setdefault(customer, []).append(date.fromisoformat(day))
    for each in days.values():
        yield from (after - before for before, after in zip(each, [*each[1:], LAST_DAY], strict=True))


def test_win_back_on_the_purchases_of_a_record_shop(
    purchases: Path, later: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """How many mails there must be is counted from the purchases alone: one for each silence that lasted long enough."""
    report, page = tmp_path / "report.json", tmp_path / "page.html"
    arguments = ["--events", purchases, *HOW, "--reachable", "--price", "email=0.01", "--json", report, "--html", page]
    assert run(["backtest", *map(str, [EXAMPLES / "win_back.py", later, *arguments])]) == 0
    told = json.loads(report.read_text("utf-8"))
    gaps = Counter(silences(purchases))
    for version, first, second in (("old", 30, 37), ("new", 45, 59)):
        assert told[version]["templates"] == {
            "email:miss_you": sum(count for gap, count in gaps.items() if gap >= timedelta(days=first)),
            "email:last_call": sum(count for gap, count in gaps.items() if gap >= timedelta(days=second)),
        }
    assert (told["inputs"], told["users"]) == (gaps.total(), 2357)
    assert told["new"]["cost"] == pytest.approx(told["new"]["messages"]["email"] / 100)
    assert told["differing_users"] == sum(each["users"] for each in told["differences"])
    assert {each["user"] for each in told["examples"]} == {each["example"] for each in told["differences"]}
    said = capsys.readouterr().out
    assert "win_back v1 against win_back v2" in said
    assert f"{told['old']['templates']['email:miss_you']:,}" in said
    assert "for example" in said
    check_page(page.read_text("utf-8"), told)


class Page(HTMLParser):
    """Checks that what is opened is closed, and keeps what is said and what is loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.loaded: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.loaded += [value or "" for name, value in attributes if name in ("src", "href", "action", "data")]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def check_page(html: str, told: dict[str, Any]) -> None:
    page = Page()
    page.feed(html)
    assert page.open == []
    assert page.loaded == []
    assert not re.search(r"https?://|@import|url\(", html)
    assert page.tags["script"] == 0
    assert page.tags["svg"] >= 5
    text = " ".join(page.text)
    for difference in told["differences"]:
        assert difference["text"] in text
    assert f"{told['new']['messages']['email']:,}" in text


def test_the_same_command_gives_the_same_report(purchases: Path, later: Path, tmp_path: Path) -> None:
    few = tmp_path / "few.txt"
    few.write_text("\n".join(purchases.read_text().splitlines()[:200]))
    shares = ["--opens", "0.4", "--clicks", "0.1", "--bounces", "0.02"]
    for name in ("a.json", "b.json"):
        arguments = ["--events", few, *HOW, "--reachable", *shares, "--json", tmp_path / name]
        assert run(["backtest", *map(str, [EXAMPLES / "win_back.py", later, *arguments])]) == 0
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    report = json.loads((tmp_path / "a.json").read_text())
    assert report["old"]["receipts"]["opened"] > 0


def test_parts_played_by_several_processes_add_up_to_the_same(purchases: Path, later: Path, tmp_path: Path) -> None:
    few = tmp_path / "few.txt"
    wrong = ["00010 never 1 1.00", "broken"]
    few.write_text("\n".join([*purchases.read_text().splitlines()[:2000], *wrong]))
    for workers in ("1", "3"):
        arguments = [
            "--events",
            few,
            *HOW,
            "--reachable",
            "--opens",
            "0.4",
            "--price",
            "email=0.01",
            "--workers",
            workers,
        ]
        report = ["--json", tmp_path / f"{workers}.json"]
        assert run(["backtest", *map(str, [EXAMPLES / "win_back.py", later, *arguments, *report])]) == 0
    assert (tmp_path / "1.json").read_bytes() == (tmp_path / "3.json").read_bytes()
    told = json.loads((tmp_path / "3.json").read_text())
    assert sum(told["could_not_be_used"].values()) == 2
    assert told["old"]["goals"] > 0


def test_what_goes_wrong_in_a_part_is_told_as_if_it_were_one(
    later: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "e.ndjson").write_text("nonsense\n")
    arguments = ["--events", tmp_path / "e.ndjson", "--workers", "2"]
    assert run(["backtest", *map(str, [EXAMPLES / "win_back.py", later, *arguments])]) == 1
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1
    assert "e.ndjson: the first line is not a JSON object" in error


class Dying:
    """A recording of which the second reader dies, as a process does that is killed for want of memory."""

    size = 1

    def read(self, rejects: Rejects, progress: Callable[[int], None]) -> Iterator[Recorded]:
        os.kill(os.getpid(), signal.SIGKILL)
        yield from ()


def test_a_part_that_is_killed_is_missed() -> None:
    version = find_version(str(EXAMPLES / "win_back.py"))
    with pytest.raises(InvalidInput, match="ended from outside, perhaps for want of memory; try fewer --workers"):
        fold_in(2, Plan(version, version, World()), Dying(), Silent())


class Silent:
    def begin(self, what: str, size: int) -> None: ...

    def advance(self, by: int) -> None: ...


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--events", "none.csv"], "there is nothing at none.csv"),
        (["--events", "{file}", "--format", "xml"], "--format: 'xml' is none of ndjson, csv and parquet"),
        (["--events", "{file}", "--price", "email"], "--price: 'email' is not written CHANNEL=AMOUNT"),
        (["--events", "{file}", "--until", "soon"], "--until: 'soon' is not a time"),
        (["--events", "{file}", "--opens", "3"], "opens is a share between 0 and 1, not 3"),
        (["--events", "{file}"], "no column is known to hold the user; name it with --user-column"),
    ],
)
def test_misuse_is_told_in_one_line_with_what_would_be_right(
    arguments: list[str], complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "e.csv"
    file.write_text("a,b\n1,2\n")
    journey = str(EXAMPLES / "win_back.py")
    assert run(["backtest", journey, journey, *(each.format(file=file) for each in arguments)]) in (1, 2)
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1
    assert complaint in error


# Plots and figures


def test_a_plot_of_many_days_is_by_weeks_and_loses_nothing() -> None:
    first = date(2026, 1, 1)
    old = {f"{first + timedelta(days=n):%Y-%m-%d}": 1 for n in range(200)}
    plot = over_time(old, {"2026-03-01": 5}, ("a v1", "a v2"), "mails")
    assert "mails per week" in plot
    assert sum(int(number) for number in re.findall(r"(\d+) in a v1", plot)) == 200
    assert sum(int(number) for number in re.findall(r"(\d+) in a v2", plot)) == 5
    assert "mails per day" in over_time({"2026-03-01": 5}, {}, ("a", "b"), "mails")


def test_plots_of_nothing_say_so_and_texts_are_escaped() -> None:
    for plot in (
        over_time({}, {}, ("a", "b"), "runs"),
        columns({}, {}, ("a", "b"), "runs", 20),
        rows([], ("a", "b"), "runs"),
    ):
        assert plot == '<p class="none">No runs in either version.</p>'
    assert "<b>" not in rows([("<b>", 1, 0)], ("a", "b"), "runs")


def test_no_number_runs_out_of_a_plot() -> None:
    for most in (1, 2, 3, 7, 10, 99, 101, 12_345, 7_654_321):
        plot = columns({1: most}, {2: most}, ("a", "b"), "users", 20)
        heights = [float(y) for y in re.findall(r'<rect class="bar \w+" x="[\d.]+" y="([\d.]+)"', plot)]
        assert min(heights) >= 12
        ticks = re.findall(r'class="tick end"[^>]*>([^<]+)<', plot)
        assert 2 <= len(ticks) <= 7
        assert len(set(ticks)) == len(ticks)


@pytest.mark.parametrize(
    ("old", "new", "unit", "change"),
    [
        (10, 10, "count", "="),
        (0, 5, "count", "new"),
        (200, 199, "count", "-0.5 %"),
        (100, 150, "count", "+50 %"),
        (0.3, 0.25, "share", "-5.0 pt"),
    ],
)
def test_a_change_is_said_in_percent_and_that_of_a_share_in_points(
    old: float, new: float, unit: Any, change: str
) -> None:
    assert Figure("", "", old, new, unit).change == change


def test_a_recording_without_addresses_and_a_schedule_that_nothing_plays_are_pointed_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weekly = tmp_path / "weekly.py"
    weekly.write_text(
        "from engine import Exit, Journey, schedule\n"
        'journey = Journey(name="weekly", version=1, entry=schedule("0 9 * * 1"), start="end", steps={"end": Exit()})\n'
    )
    file = tmp_path / "e.csv"
    file.write_text("user,event,time\nada,signed_up,2026-01-01T12:00:00Z\nada,page,2026-01-09T12:00:00Z\n")
    assert run(["backtest", str(EXAMPLES / "welcome.py"), str(weekly), "--events", str(file)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "2 messages had no address to go to" in said
    assert "weekly v1 is entered by a schedule; files don't hold its entries" in said


ALL = """
from engine import Cap, Exit, Journey, Policy, Send, always, days, on

def journey(name, priority):
    return Journey(
        name=name, version=1, entry=on("visited"), reentry=always, priority=priority, start="send",
        steps={"send": Send("email", template=name, then="end"), "end": Exit()},
    )

tips = journey("tips", 0)
"""


def test_two_folders_are_compared_with_all_their_journeys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new, events = tmp_path / "old", tmp_path / "new", tmp_path / "events.ndjson"
    for folder, more in ((old, 'thanks = journey("thanks", -1)\n'), (new, 'offer = journey("offer", 5)\n')):
        folder.mkdir()
        (folder / "all.py").write_text(ALL + more + "policy = Policy(version=1, caps=(Cap(1, days(7)),))\n")
    visited = {"name": "visited", "occurred_at": "2026-01-05T08:00:00Z", "profile": {"email": "a@example.com"}}
    events.write_text("".join(json.dumps({**visited, "user": user, "id": f"of {user}"}) + "\n" for user in "abc"))
    report, page = tmp_path / "report.json", tmp_path / "page.html"
    arguments = [old, new, "--events", events, "--json", report, "--html", page]
    assert run(["backtest", *map(str, arguments)]) == 0
    told = json.loads(report.read_text("utf-8"))
    assert {name: counts["messages"] for name, counts in told["old"]["by_journey"].items()} == {"thanks": 0, "tips": 3}
    assert {name: counts["messages"] for name, counts in told["new"]["by_journey"].items()} == {"offer": 3, "tips": 0}
    said = capsys.readouterr().out
    assert f"{old} against {new}" in said.replace("\n", "")
    [row] = [line.split() for line in said.splitlines() if "offer: messages" in line]
    assert row[-3:] == ["0", "3", "new"]
    assert "3 get as many messages, but other ones; for example a:" in said
    assert "Messages by journey" in page.read_text("utf-8")
    assert run(["backtest", str(old), str(new / "all.py"), "--events", str(events)]) == 1
    assert "name two folders, to compare all of them" in capsys.readouterr().err
