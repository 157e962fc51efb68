"""What tests of whole processes stand on: a folder with a journey of two mails, and a mailbox over SMTP."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agents.demo.mailbox import Mailbox, receiving
from tests.agents.trial import write_journey


@pytest.fixture
def journeys(tmp_path: Path) -> Path:
    folder = tmp_path / "journeys"
    (folder / "templates").mkdir(parents=True)
    write_journey(folder)
    for name in ("hello", "thanks"):
        (folder / "templates" / f"{name}.subject.txt").write_text(name.capitalize())
        (folder / "templates" / f"{name}.html").write_text(
            f'<html><body><p>{name}</p><a href="https://shop.example/{name}">Go</a></body></html>'
        )
    return folder


@pytest.fixture
async def mailbox(tmp_path: Path) -> AsyncIterator[tuple[Mailbox, str]]:
    box = Mailbox(tmp_path / "mails")
    async with receiving(box) as port:
        yield box, f"smtp://127.0.0.1:{port}"
