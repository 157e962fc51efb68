"""`equeengage demo --once`: is what arrived in the mailbox exactly what the journeys should have sent?

A fixed cast of customers is played, every character as often as the others. What each must get stands in `customers.py`,
next to what they do; the server, its log and its journal are not asked. A mail that is missing, one too many and one that
nobody should have got are all failures. The mailbox is watched until the longest journey is over and nothing more comes.
"""

import asyncio
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import uvloop
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from agents.demo.customers import LONGEST_SECONDS, SUBJECTS, Customer, make_cast, template_of
from agents.demo.figures import Figures, Meter
from agents.demo.mailbox import Mail
from agents.demo.stage import Stage, paces, reserve_numbers, staged
from agents.demo.view import in_a_line
from agents.stopping import stop_signals, until_one_ends

CAST = 27  # three of each character
ARRIVING_SECONDS = 3.0  # over which they come to the shop
PATIENCE_SECONDS = 15.0  # for mails that are late on a busy machine
QUIET_SECONDS = 1.5  # without a mail, at the end
SHOWN = 20  # differences listed

Mails = Counter[tuple[str, str]]  # address, template


@dataclass(frozen=True)
class Comparison:
    """What must arrive against what did."""

    expected: Mails
    arrived: Mails

    @property
    def missing(self) -> Mails:
        return self.expected - self.arrived

    @property
    def unexpected(self) -> Mails:
        """What came without having to, or more often than it should."""
        return self.arrived - self.expected

    @property
    def is_exact(self) -> bool:
        return self.expected == self.arrived and bool(self.expected)

    def rows(self) -> list[tuple[str, int, int, str]]:
        """Return (template, expected, arrived, verdict), the known templates first."""
        known = [*SUBJECTS, *sorted({template for _, template in self.arrived} - SUBJECTS.keys())]
        return [(template, *self._row(template)) for template in known]

    def differences(self) -> list[str]:
        return [
            *(f"missing: {template} to {address}" for (address, template) in sorted(self.missing.elements())),
            *(f"unexpected: {template} to {address}" for (address, template) in sorted(self.unexpected.elements())),
        ]

    def _row(self, template: str) -> tuple[int, int, str]:
        def count(mails: Mails) -> int:
            return sum(number for (_, each), number in mails.items() if each == template)

        missing, unexpected = count(self.missing), count(self.unexpected)
        verdict = ", ".join([f"{missing} missing"] * bool(missing) + [f"{unexpected} unexpected"] * bool(unexpected))
        return count(self.expected), count(self.arrived), verdict or "exact"


def compare(cast: Iterable[Customer], mails: Iterable[Mail]) -> Comparison:
    """Compare what a cast must get with the mails that came."""
    expected = Counter((customer.address, template) for customer in cast for template in customer.expects)
    return Comparison(expected, Counter((mail.recipient, template_of(mail.subject)) for mail in mails))


def main(console: Console, data: Path | None, port: int, mailbox_port: int, seed: int) -> int:
    """Play once and return the exit code: 0 if all is exact. A folder made for it is removed again, if it is."""
    folder = data if data is not None else Path(tempfile.mkdtemp(prefix="equeengage-demo-"))
    is_exact = uvloop.run(_play(console, folder, port, mailbox_port, seed))
    if is_exact and data is None:
        shutil.rmtree(folder)
    elif not is_exact:
        console.print(f"what happened to each: equeengage trace USER --data {folder}", soft_wrap=True)
    return 0 if is_exact else 1


async def _play(console: Console, data: Path, port: int, mailbox_port: int, seed: int) -> bool:
    cast = make_cast(CAST, seed, reserve_numbers(data, CAST))
    find = {customer.address: customer for customer in cast}.get
    arrived: list[Mail] = []
    with stop_signals() as stop:
        async with staged(
            data, _say_nothing, find, port=port, mailbox_port=mailbox_port, on_mail=arrived.append
        ) as stage:
            _introduce(console, stage)
            meter = Meter(stage.server.metrics, time.monotonic())
            await until_one_ends(stage.server.until(stop), _watch(console, stage, cast, arrived))
            figures = meter.look(time.monotonic())
            problems = list(stage.shop.problems)
    if stop.is_set():
        raise KeyboardInterrupt
    comparison = compare(cast, arrived)
    _report(console, comparison, figures, problems)
    return comparison.is_exact and not problems


async def _watch(console: Console, stage: Stage, cast: Sequence[Customer], arrived: Sequence[Mail]) -> None:
    """Let the cast come, and return when the longest journey is over, all is there (or patience is at its end) and nothing
    has come for a moment."""
    due = sum(len(customer.expects) for customer in cast)
    seconds = ARRIVING_SECONDS + LONGEST_SECONDS
    began = time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[mails]}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("the journeys play", total=seconds, mails="")
        async with asyncio.TaskGroup() as coming:
            for place, customer in enumerate(cast):
                coming.create_task(_come(stage, customer, place * ARRIVING_SECONDS / len(cast)))
            while (passed := time.monotonic() - began) < seconds + PATIENCE_SECONDS:
                progress.update(task, completed=passed, mails=f"{len(arrived)} of {due} mails")
                if passed > seconds and len(arrived) >= due:
                    break
                await asyncio.sleep(0.1)
        count = -1
        while count != len(arrived):
            count = len(arrived)
            await asyncio.sleep(QUIET_SECONDS)


async def _come(stage: Stage, customer: Customer, after_seconds: float) -> None:
    await asyncio.sleep(after_seconds)
    await stage.shop.play(customer)


def _introduce(console: Console, stage: Stage) -> None:
    console.print(
        f"{CAST} customers of a small shop; server {stage.server.url}, mailbox {stage.mailbox_url}", soft_wrap=True
    )
    for name, pace in paces().items():
        console.print(f"  {name.replace('_', ' ')}: {pace}", style="dim")


def _report(console: Console, comparison: Comparison, figures: Figures, problems: Sequence[str]) -> None:
    table = Table(title="In the mailbox", title_justify="left")
    for heading, justify in (("template", "left"), ("expected", "right"), ("arrived", "right"), ("", "left")):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    for template, expected, arrived, verdict in comparison.rows():
        table.add_row(
            template, str(expected), str(arrived), f"[{'green' if verdict == 'exact' else 'red'}]{verdict}[/]"
        )
    expected, arrived = comparison.expected.total(), comparison.arrived.total()
    verdict = "[bold green]exact[/]" if comparison.is_exact else "[bold red]not exact[/]"
    table.add_section()
    table.add_row("[bold]all[/]", f"[bold]{expected}[/]", f"[bold]{arrived}[/]", verdict)
    console.print(table)
    console.print(in_a_line(figures), highlight=False, soft_wrap=True)
    lines = [*comparison.differences(), *(f"problem: {problem}" for problem in problems)]
    for line in lines[:SHOWN]:
        console.print(f"  {line}", style="red", highlight=False, markup=False)
    if len(lines) > SHOWN:
        console.print(f"  ... and {len(lines) - SHOWN} more", style="red")


def _say_nothing(line: str) -> None: ...
