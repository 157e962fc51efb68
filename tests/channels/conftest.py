"""Fixtures of the channels' stories."""

from collections.abc import AsyncIterator

import pytest

from tests.channels.stage import HELLO, Stage


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    stage = Stage()
    await stage.publish(HELLO)
    yield stage
    await stage.close()
