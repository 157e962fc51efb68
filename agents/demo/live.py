"""`equeengage demo`: the shop goes on until Ctrl-C, and what happens is shown as it does."""

import asyncio
import time
from pathlib import Path
from random import Random

import uvloop
from rich.console import Console

from agents.demo.customers import make_customer
from agents.demo.figures import Meter
from agents.demo.stage import RESERVED, Stage, find_drawn, paces, reserve_numbers, staged
from agents.demo.view import Scene, View
from agents.server import stop_signals
from agents.trace import tell
from schemas.outputs import JournalEntry

LOOKS_EVERY_SECONDS = 1.0
MOST_PLAYING = 1000  # customers at once; each stays about 3 seconds
TOLD = frozenset({"entered", "sent", "receipt", "goal", "exited", "suspended", "blocked"})


def main(console: Console, data: Path, port: int, mailbox_port: int, customers_per_second: float, seed: int) -> None:
    """Play until SIGINT or SIGTERM."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_play(console, data, port, mailbox_port, customers_per_second, seed))


async def _play(
    console: Console, data: Path, port: int, mailbox_port: int, customers_per_second: float, seed: int
) -> None:
    scene = Scene("", "", "; ".join(paces()))

    def on_entry(entry: JournalEntry) -> None:
        if entry.kind in TOLD and entry.reason != "accepted":
            scene.happenings.extend((entry.user, sentence) for sentence in tell([entry])[-1:])

    def say(line: str) -> None:
        console.print(line, highlight=False, soft_wrap=True)

    with stop_signals() as stop:
        async with staged(
            data,
            say,
            find_drawn(seed),
            port=port,
            mailbox_port=mailbox_port,
            on_mail=scene.mails.append,
            on_entry=on_entry,
        ) as stage:
            scene.server_url, scene.mailbox_url = stage.server.url, stage.mailbox_url
            scene.mails.extend(list(stage.mailbox.mails)[-10:])
            with View(console, scene) as view:
                playing = asyncio.create_task(_keep_coming(stage, data, customers_per_second, seed))
                looking = asyncio.create_task(_keep_looking(stage, scene, view))
                serving = asyncio.create_task(stage.server.until(stop))
                await _until_one_ends(serving, playing, looking)
            say("stopping: what was accepted is folded, deliveries under way end")
    say(f"stopped; everything is in {data}, and the next demo goes on from there")


async def _until_one_ends(*tasks: asyncio.Task[None]) -> None:
    """Return when one has, the others cancelled. Raises what one raised."""
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    for error in ended:
        if isinstance(error, Exception):
            raise error


async def _keep_coming(stage: Stage, data: Path, per_second: float, seed: int) -> None:
    """Let customers come, in irregular intervals as people do."""
    chance = Random(seed)  # noqa: S311 - to play, not to hide
    number = last = 0
    playing: set[asyncio.Task[None]] = set()
    try:
        while True:
            if number == last:
                number = reserve_numbers(data)
                last = number + RESERVED
            if len(playing) < MOST_PLAYING:
                task = asyncio.create_task(stage.shop.play(make_customer(number, seed)))
                playing.add(task)
                task.add_done_callback(playing.discard)
                number += 1
            await asyncio.sleep(chance.expovariate(per_second))
    finally:
        for task in playing:
            task.cancel()
        await asyncio.gather(*playing, return_exceptions=True)


async def _keep_looking(stage: Stage, scene: Scene, view: View) -> None:
    meter = Meter(stage.server.metrics, time.monotonic())
    while True:
        scene.figures = meter.look(time.monotonic())
        problems = stage.shop.problems
        waits_for = stage.server.waits_for()
        scene.notice = "; ".join(waits_for) or (problems[-1] if problems else "")
        view.update()
        await asyncio.sleep(LOOKS_EVERY_SECONDS)
