"""That Segment's own client for Node, unmodified, gets everything it is given into the log, in order and once."""

import subprocess
from pathlib import Path

from tests.clients.servers import Served


def send(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["node", "send.mjs", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)


def test_every_call_arrives_in_order_and_once(served: Served, node_client: Path) -> None:
    done = send(node_client, served.url, served.write_key, "ada", "100")
    assert (done.returncode, done.stderr) == (0, "")
    events = {event.id: event for event in served.events("ada")}
    assert len(events) == len(served.events("ada")) == 105
    by_name = {event.name: event for event in events.values()}
    # It sends its batches at the same time, so the order between batches is not its own either.
    numbers = [event.properties["number"] for event in events.values() if event.name == "order_placed"]
    assert sorted(numbers) == list(range(100))
    assert by_name["order_placed"].properties["text"] == "Grüße 👋"
    assert by_name["identify"].profile == {
        "email": "ada@example.com",
        "tier": "gold",
        "joined": "2025-01-31T12:00:00.000Z",
    }
    assert by_name["page"].properties == {"name": "Cart", "url": "/cart"}
    assert by_name["screen"].properties == {"name": "Home"}
    assert by_name["group"].properties == {"groupId": "acme", "plan": "team"}
    assert by_name["alias"].properties == {"previousId": "anonymous-1"}


def test_a_wrong_key_is_told(served_alone: Served, node_client: Path) -> None:
    done = send(node_client, served_alone.url, "nobody", "ada", "1")
    assert done.returncode == 1
    assert "not delivered" in done.stderr
    assert served_alone.events("ada") == []
