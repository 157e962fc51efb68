"""That what runs on Kafka can be looked at: where everybody is, and what a shadow would have done."""

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.agents.command import equeengage, started
from tests.agents.test_on_kafka import settings as settings
from tests.agents.test_shadow import write_shadow
from tests.agents.waiting import until


async def test_runs_are_counted_and_a_shadow_is_reported_from_what_kafka_holds(
    tmp_path: Path, journeys: Path, settings: dict[str, Any]
) -> None:
    """Also after the worker has stopped."""
    place = write_shadow(journeys)
    assert equeengage("topics", "create", **settings).returncode == 0
    assert equeengage("publish", "--journeys", journeys, **settings).returncode == 0

    def said(*arguments: object) -> str:
        result = equeengage(*arguments, **settings)
        assert result.returncode == 0, result.stderr
        return result.stdout

    with ExitStack() as stack:
        running = stack.enter_context(
            started(tmp_path, "worker", "--data", tmp_path / "worker", ready="partitions assigned", **settings)
        )
        said("send", "ann", "trial_started", "--profile", "email=ann@example.com")
        assert "trial v2 runs as a shadow beside v1" in said("shadow", "start", place)
        said("send", "bob", "trial_started", "--profile", "email=bob@example.com")
        await until(lambda: '"done": 1' in said("shadow", "report", "trial", "--json"), "bob's run in the shadow")
        assert running.stop() == 0
    assert "  answer: answer | wait up to 30 days for hello clicked | 2 here" in said("draw", "trial@1", "--counts")
    moved = said("diff", "trial@1", place, "--kafka").splitlines()
    assert [line.split()[:3] for line in moved if "v1 answer" in line] == [["2", "v1", "answer"]]
    found = json.loads(said("shadow", "report", "trial", "--json"))
    assert (found["active"]["messages"], found["shadow"]["messages"]) == ({"email": 1}, {"email": 2})
    [difference] = found["differences"]
    assert (difference["text"], difference["example"]) == ("get more messages from the shadow", "bob")
    assert "get more messages from the shadow; for example bob:" in said("shadow", "report", "trial")
    assert "has ended; its report stays" in said("shadow", "stop", "trial")
