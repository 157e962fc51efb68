"""That recorded events are read from every form they come in, and that what can't be read is named and passed over."""

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from agents.backtest.columns import Columns
from agents.backtest.files import MOST_FILES
from agents.backtest.recording import Recorded
from agents.backtest.versions import find_version
from engine.backtest import Version
from engine.definitions import dump
from engine.errors import InvalidInput, JourneyError
from engine.policy import Policy
from schemas.inputs import Entered, Erased, Event, Receipt
from tests.agents.recordings import CDNOW, read, written

NOON = 1_767_268_800_000  # 1 January 2026, 12:00 UTC
EXAMPLES = Path(__file__).parents[2] / "journeys"


def lines(path: Path, *values: object) -> Path:
    path.write_text("".join(f"{value if isinstance(value, str) else json.dumps(value)}\n" for value in values), "utf-8")
    return path


def test_our_own_form_is_what_the_topic_holds_with_the_user_beside_it(tmp_path: Path) -> None:
    event = {"type": "event", "id": "m1", "name": "paid", "occurred_at": NOON, "properties": {"total": 5}}
    place = lines(
        tmp_path / "events.ndjson",
        {**event, "user": "ada"},
        "",
        {**event, "key": "default:ben", "at": "2026-01-01T13:00:00Z"},
        {**event, "key": "elsewhere:cy"},
        {
            "type": "event",
            "user": 7,
            "name": "paid",
            "occurred_at": "2026-01-01T12:00:00+01:00",
            "profile": {"tier": "gold"},
        },
        {"user": "dee", "name": "paid", "at": NOON},
        {"type": "erased", "user": "ada", "id": "e1", "at": NOON},
        {"type": "entered", "user": "ada", "id": "e2", "journey": "welcome", "by": "api", "at": NOON},
        {
            "type": "receipt",
            "user": "ada",
            "message": "r:1",
            "status": "opened",
            "occurred_at": NOON,
            "channel": "email",
        },
    )
    recorded, rejects = read(place)
    assert rejects.count == 0
    assert [(each.user, each.at) for each in recorded[:4]] == [
        ("ada", NOON), ("ben", NOON + 3_600_000), ("7", NOON - 3_600_000), ("dee", NOON),
    ]  # fmt: skip
    assert recorded[0].input == Event("m1", "paid", NOON, {"total": 5})
    assert recorded[2].input == Event("events.ndjson:5", "paid", NOON - 3_600_000, {}, {"tier": "gold"})
    assert [type(each.input) for each in recorded[4:]] == [Erased, Entered, Receipt]


def test_segments_form_is_read_as_the_ingress_reads_it(tmp_path: Path) -> None:
    place = lines(
        tmp_path / "calls.jsonl",
        {"type": "track", "userId": "ada", "event": "paid", "messageId": "m1", "timestamp": "2026-01-01T12:00:00Z",
         "properties": {"total": 5}},
        {"type": "identify", "userId": "ada", "traits": {"tier": "gold"}, "receivedAt": "2026-01-01T12:00:01Z"},
        {"type": "page", "anonymousId": "x", "name": "Home", "sentAt": "2026-01-01T12:00:02Z"},
    )  # fmt: skip
    recorded, rejects = read(place)
    assert rejects.count == 0
    assert written(recorded) == [
        ("ada", NOON, "paid"),
        ("ada", NOON + 1000, "identify"),
        ("anon:x", NOON + 2000, "page"),
    ]
    assert recorded[1].input == Event("calls.jsonl:2", "identify", NOON + 1000, {}, {"tier": "gold"})


def test_the_topic_as_kcat_writes_it_keeps_the_times_of_its_records(tmp_path: Path) -> None:
    event = json.dumps({"type": "event", "id": "m1", "name": "paid", "occurred_at": NOON, "properties": {"total": 5}})
    activated = json.dumps(
        {"type": "activated", "tenant": "default", "kind": "journey", "name": "j", "version": 1, "hash": ""}
    )
    record = {
        "topic": "equeengage.events",
        "partition": 3,
        "offset": 1,
        "tstype": "logappend",
        "ts": NOON + 700,
        "broker": 1,
    }
    place = lines(
        tmp_path / "topic.ndjson",
        {**record, "key": None, "payload": activated},
        {**record, "key": "default:ada", "payload": event, "headers": ["tenant", "default"]},
        {**record, "key": "elsewhere:ada", "payload": event},
        {**record, "key": "default:ada", "payload": "{"},
        {**record, "key": "default/quota:mails", "payload": event},
    )
    recorded, rejects = read(place)
    assert recorded == [Recorded("ada", NOON + 700, Event("m1", "paid", NOON, {"total": 5}))]
    assert list(rejects.first.values()) == ["topic.ndjson:4"]


def test_lines_that_are_no_input_are_counted_with_the_first_place_of_each_reason(tmp_path: Path) -> None:
    good = {"user": "ada", "name": "paid", "occurred_at": NOON}
    place = lines(tmp_path / "e.ndjson", good, "{", '{"name": "paid"}', {"user": "ada", "name": "x"}, "[1]", good)
    recorded, rejects = read(place)
    assert len(recorded) == 2
    assert rejects.count == 4
    assert rejects.first["the line names no user: add user, or key"] == "e.ndjson:3"
    assert rejects.first["the line has no time: add occurred_at, or at"] == "e.ndjson:4"


def test_a_file_wrong_in_every_line_keeps_few_reasons(tmp_path: Path) -> None:
    wrong = [{"type": "track", "event": "x" * (300 + n), "userId": "a", "timestamp": f"{n}x"} for n in range(50)]
    _, rejects = read(lines(tmp_path / "e.ndjson", *wrong))
    assert rejects.count == 50
    assert len(rejects.reasons) <= 21


@pytest.mark.parametrize("line", ["nonsense", '{"type": "surprise"}', "[]"])
def test_a_file_that_does_not_begin_with_an_input_is_refused(tmp_path: Path, line: str) -> None:
    with pytest.raises(InvalidInput, match=r"e\.ndjson: the first line"):
        read(lines(tmp_path / "e.ndjson", line))


def test_csv_finds_usual_columns_by_itself_and_makes_numbers_of_numbers(tmp_path: Path) -> None:
    place = tmp_path / "orders.csv"
    place.write_text(
        "\ufeffuser_id,event,timestamp,total,paid,zip,note\n"
        'ada,order_placed,2026-01-01T12:00:00Z,12.5,true,01234,"a, b"\n'
        "ben,order_placed,1767268800,7,false,10115,\n"
        "\n"
        "cy,order_placed,yesterday,1,,,\n"
        ",order_placed,1767268800,1,,,\n"
        "dee,order_placed\n",
        "utf-8",
    )
    recorded, rejects = read(place)
    assert [each.input for each in recorded] == [
        Event(
            "orders.csv:2", "order_placed", NOON, {"total": 12.5, "paid": True, "zip": "01234", "note": "a, b"}
        ),
        Event("orders.csv:3", "order_placed", NOON, {"total": 7, "paid": False, "zip": 10115}),
    ]  # fmt: skip
    assert rejects.reasons == {
        "a time can't be read; say how it is written with --time-format": 1,
        "the row names no user": 1,
        "the row has more or fewer cells than the header": 1,
    }


def test_csv_takes_any_columns_when_told_and_puts_some_into_the_profile(tmp_path: Path) -> None:
    place = tmp_path / "o.csv"
    place.write_text("who;when;tier;order\nada;31.12.2025 13:00 +0100;gold;o1\n", "utf-8")
    columns = Columns("who", "when", None, "order_placed", "order", "%d.%m.%Y %H:%M %z", ("tier",))
    (recorded,), _ = read(place, columns=columns, separator=";")
    assert recorded.input == Event("o1", "order_placed", NOON - 86_400_000, {}, {"tier": "gold"})


@pytest.mark.parametrize(
    ("columns", "complaint"),
    [
        (Columns(), r"o\.csv: no column is known to hold the user; name it with --user-column: who, order"),
        (Columns(user="wo"), r"o\.csv has no column 'wo'; it has who, order"),
        (Columns(user="who", event_name="x"), "no column is known to hold the time"),
    ],
)
def test_columns_that_are_not_there_are_named_beside_those_that_are(
    tmp_path: Path, columns: Columns, complaint: str
) -> None:
    (tmp_path / "o.csv").write_text("who,order\nada,1\n")
    with pytest.raises(InvalidInput, match=complaint):
        read(tmp_path / "o.csv", columns=columns)


def test_parquet_gives_the_same_as_csv_and_keeps_what_is_nested(tmp_path: Path) -> None:
    moment = datetime(2026, 1, 1, 12, tzinfo=UTC)
    table = pyarrow.table(
        {
            "user": ["ada", "ben", None],
            "event": ["paid", "paid", "paid"],
            "time": pyarrow.array([moment, moment, moment], pyarrow.timestamp("us", "UTC")),
            "total": [1.5, None, 2.0],
            "items": [[{"sku": "a"}], [], []],
        }
    )
    pyarrow.parquet.write_table(table, tmp_path / "e.parquet")
    recorded, rejects = read(tmp_path / "e.parquet")
    assert [each.input for each in recorded] == [
        Event("e.parquet:1", "paid", NOON, {"total": 1.5, "items": [{"sku": "a"}]}),
        Event("e.parquet:2", "paid", NOON, {"items": []}),
    ]
    assert rejects.first == {"the row names no user": "e.parquet, row 3"}


def test_a_date_of_parquet_is_midnight_and_a_number_may_have_a_format(tmp_path: Path) -> None:
    days = pyarrow.table({"user": [7], "date": pyarrow.array([20_454], pyarrow.date32())})
    pyarrow.parquet.write_table(days, tmp_path / "d.parquet")
    (recorded,), _ = read(tmp_path / "d.parquet", columns=Columns(event_name="x"))
    assert (recorded.user, recorded.at) == ("7", NOON - 12 * 3_600_000)
    numbers = pyarrow.table({"user": [7], "date": [20_260_101]})
    pyarrow.parquet.write_table(numbers, tmp_path / "n.parquet")
    (recorded,), _ = read(tmp_path / "n.parquet", columns=Columns(event_name="x", time_format="%Y%m%d"))
    assert recorded.at == NOON - 12 * 3_600_000


def test_files_of_a_folder_are_merged_by_time_whatever_they_hold(tmp_path: Path) -> None:
    """A folder with a file for each kind of event, one of them packed."""
    (tmp_path / "a_orders.csv").write_text("user,event,time\nada,order,1767268800\nada,order,1767268860\n")
    with gzip.open(tmp_path / "b_visits.ndjson.gz", "wt") as file:
        file.write(json.dumps({"user": "ada", "name": "visit", "occurred_at": NOON + 30_000}) + "\n")
    (tmp_path / "README").write_text("not one of them")
    recorded, _ = read(tmp_path)
    assert [name for _, _, name in written(recorded)] == ["order", "visit", "order"]


def test_a_place_without_events_is_refused_with_what_would_do(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="there is nothing at"):
        read(tmp_path / "none")
    with pytest.raises(InvalidInput, match="holds no events"):
        read(tmp_path)
    (tmp_path / "events.dat").write_text("x")
    with pytest.raises(InvalidInput, match="doesn't say what it holds; say it with --format"):
        read(tmp_path / "events.dat")
    for number in range(MOST_FILES + 1):
        (tmp_path / f"{number}.csv").touch()
    with pytest.raises(InvalidInput, match="512 is the limit"):
        read(tmp_path)


def test_broken_files_are_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "e.parquet").write_text("no")
    (tmp_path / "e.csv").write_bytes(b"user,event,time\n\xff\xfe,x,1\n")
    (tmp_path / "e.ndjson.gz").write_bytes(gzip.compress(b'{"user": "a", "name": "b", "at": 1}\n' * 900)[:-20])
    for name, complaint in (("e.parquet", "is not Parquet"), ("e.csv", "is not CSV"), ("e.ndjson.gz", "is cut off")):
        with pytest.raises(InvalidInput, match=complaint):
            read(tmp_path / name)


def test_the_purchases_of_cdnow_are_read_as_they_are() -> None:
    columns = Columns("customer_id", "date", None, "order_placed", None, "%Y%m%d")
    recorded, rejects = read(CDNOW, columns=columns, format="csv", separator=" ")
    assert rejects.count == 0
    assert len(recorded) == 69_659
    assert len({each.user for each in recorded}) == 23_570
    assert recorded[0].user == "00001"
    assert sum(
        each.input.properties["dollar_value"] for each in recorded if isinstance(each.input, Event)
    ) == pytest.approx(2_500_315.63)


# Which version is meant


def test_a_version_is_a_module_a_json_file_or_a_journey_of_a_folder(tmp_path: Path) -> None:
    module = find_version(str(EXAMPLES / "win_back.py")).journey
    (tmp_path / "frozen.json").write_bytes(dump(module))
    assert module.label == "win_back v1"
    published = {("win_back", 1): module}
    for text in (f"{EXAMPLES}:win_back", str(tmp_path / "frozen.json"), "win_back@1"):
        assert find_version(text, lambda *named: published.get(named)) == Version(module)


def test_a_version_comes_with_the_policy_that_stands_beside_it(tmp_path: Path) -> None:
    source = (EXAMPLES / "win_back.py").read_text()
    (tmp_path / "win_back.py").write_text(
        source + "\nfrom engine import Policy\npolicy = Policy(version=1, holdout=10)\n"
    )
    policy = Policy(version=1, holdout=10)
    for text in (f"{tmp_path}:win_back", f"{tmp_path}/win_back.py"):
        assert find_version(text).beside == (policy,)
    journey = find_version(f"{tmp_path}:win_back").journey
    assert find_version("win_back@1", lambda name, version: journey, policy).beside == (policy,)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{examples}", "has several journeys: cart_abandonment, .*; say which: .*:cart_abandonment"),
        ("{examples}:win", "has no journey 'win'; it has cart_abandonment"),
        ("{examples}/none.py", "there is no file or folder"),
        ("win_back@1", "--events names no data folder"),
        ("{here}/empty.py", "there is no journey in"),
        ("{here}/broken.json", r"broken\.json: "),
    ],
)
def test_a_version_that_is_not_there_is_refused_with_what_is(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "empty.py").write_text('"""Nothing."""\n')
    (tmp_path / "broken.json").write_text("{}")
    with pytest.raises(JourneyError, match=complaint):
        find_version(text.format(examples=EXAMPLES, here=tmp_path))
