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
from agents.demo.view import Scene, View, in_a_few_words
from agents.stopping import stop_signals, until_one_ends
from schemas.outputs import JournalEntry

LOOKS_EVERY_SECONDS = 1.0
MOST_PLAYING = 1000  # customers at once; each stays about 3 seconds


def main(console: Console, data: Path, port: int, mailbox_port: int, customers_per_second: float, seed: int) -> None:
    """Play until SIGINT or SIGTERM."""
    uvloop.run(_play(console, data, port, mailbox_port, customers_per_second, seed))


async def _play(
    console: Console, data: Path, port: int, mailbox_port: int, customers_per_second: float, seed: int
) -> None:
    scene = Scene("", "", data, paces())

    def on_entry(entry: JournalEntry) -> None:
        if (happening := in_a_few_words(entry)) is not None:
            scene.happenings.append(happening)

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
            say(f"mailbox   {stage.mailbox_url}")
            scene.mails.extend(list(stage.mailbox.mails)[-10:])
            with View(console, scene) as view:
                await until_one_ends(
                    stage.server.until(stop),
                    _keep_coming(stage, data, customers_per_second, seed),
                    _keep_looking(stage, scene, view),
                )
            say("stopping: what was accepted is folded, deliveries under way end")
    say(f"stopped; everything is in {data}, and the next demo goes on from there")


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
