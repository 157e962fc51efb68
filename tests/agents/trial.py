"""A journey of two mails with a click between them, and the events that take somebody through it."""

import base64
from collections.abc import Mapping
from pathlib import Path

import aiohttp

JOURNEY = """
from engine import Delay, Exit, Journey, Send, WaitFor, days, on, receipt, seconds

journey = Journey(
    name="trial", version={version}, entry=on("trial_started"), start="hello",
    steps={{
        "hello": Send("email", template="hello", then="answer"),
        "answer": WaitFor(receipt("hello", "clicked"), timeout=days(30), then="pause", on_timeout="done"),
        "pause": Delay(seconds(2), then="thanks"),
        "thanks": Send("email", template="thanks", then="done"),
        "done": Exit(),
    }},
)
"""
IDENTIFY = {"type": "identify", "userId": "ann", "messageId": "m1", "traits": {"email": "ann@example.com"}}
TRIAL = {"type": "track", "userId": "ann", "messageId": "m2", "event": "trial_started"}


def write_journey(folder: Path, version: int = 1) -> None:
    (folder / "trial.py").write_text(JOURNEY.format(version=version))


def with_key(key: str) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(f'{key}:'.encode()).decode()}"}


async def post(session: aiohttp.ClientSession, url: str, *events: Mapping[str, object]) -> None:
    async with session.post(
        f"{url}/v1/batch", json={"batch": list(events)}, headers=with_key("s3cret-key")
    ) as response:
        assert response.status == 200, await response.text()
