"""What the demo shows on the terminal: a live view, or a line now and then where there is no terminal."""

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from agents.demo.figures import Figures
from agents.demo.mailbox import Mail
from agents.trace import fate
from schemas.outputs import JournalEntry

BARS = " ▁▂▃▄▅▆▇█"
LATEST = 30  # lines kept; as many are shown as the terminal has room for
LINE_EVERY_SECONDS = 10.0  # where there is no terminal
FIXED_ROWS = 13  # of the view: frames, figures, a notice, the cursor's line


@dataclass(frozen=True)
class Happening:
    """An entry of the journal in a few words."""

    at: int
    user: str
    text: str
    style: str = ""


@dataclass
class Scene:
    """Everything the view shows."""

    server_url: str
    mailbox_url: str
    data: Path
    paces: dict[str, str]  # journey -> how fast it is played
    figures: Figures = field(default_factory=Figures)
    mails: deque[Mail] = field(default_factory=lambda: deque(maxlen=LATEST))
    happenings: deque[Happening] = field(default_factory=lambda: deque(maxlen=LATEST))
    notice: str = ""


class View:
    """Shows the scene as long as the context lasts. Call `update` about once a second."""

    def __init__(self, console: Console, scene: Scene) -> None:
        self.console = console
        self.scene = scene
        self._live = Live(console=console, auto_refresh=False, transient=False) if console.is_terminal else None
        self._next_line_at = 0.0

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self) -> None:
        if self._live is not None:
            self._live.update(draw(self.scene, self.console.height), refresh=True)
        elif time.monotonic() >= self._next_line_at:
            self._next_line_at = time.monotonic() + LINE_EVERY_SECONDS
            self.console.print(in_a_line(self.scene.figures), highlight=False, soft_wrap=True)


def draw(scene: Scene, height: int) -> RenderableType:
    """Return the whole view, made to fit a terminal of this height."""
    room = max(3, min(LATEST, height - FIXED_ROWS - len(scene.paces)))
    return Group(
        Panel(
            _numbers(scene),
            title="[bold]Equeengage[/] · a small shop and its customers",
            title_align="left",
            border_style="blue",
            subtitle=f"up {_uptime(scene.figures)} · Ctrl-C to stop",
            subtitle_align="right",
        ),
        _latest(scene, room),
    )


def in_a_few_words(entry: JournalEntry) -> Happening | None:
    """Say an entry of the journal shortly; None if it isn't worth a line here."""
    journey = entry.journey.replace("_", " ")
    match entry.kind:
        case "entered":
            text, style = f"enters {journey}", "bold"
        case "sent":
            template = str(entry.detail.get("template", entry.step)).partition("@")[0]
            text, style = f"{entry.detail.get('channel', 'message')} {template!r} asked for", "cyan"
        case "receipt" if entry.reason != "accepted":  # each mail is in the other list
            text, style = f"{entry.step or journey}: {fate(entry)}", "green" if entry.reason == "clicked" else ""
        case "goal":
            text, style = f"is what {journey} was for", "bold green"
        case "exited":
            text, style = f"leaves {journey}" + (f": {entry.reason}" if entry.reason != "done" else ""), "dim"
        case "suspended" | "blocked":
            text, style = f"{entry.kind} in {journey}: {entry.reason}", "red"
        case _:
            return None
    return Happening(entry.at, entry.user, text, style)


def in_a_line(figures: Figures) -> str:
    """Return the figures in one line, for logs."""
    messages = ", ".join(f"{count} {state}" for state, count in figures.messages.items() if count)
    return (
        f"up {_uptime(figures)}: {figures.events} events ({figures.events_per_second:.0f}/s), {figures.runs} runs entered, "
        f"{figures.exited} ended; messages: {messages or 'none yet'}; event to message p50 {_seconds(figures.p50_seconds)}, "
        f"p99 {_seconds(figures.p99_seconds)}"
    )


def _numbers(scene: Scene) -> Table:
    figures = scene.figures
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    table.add_row("mailbox", Text(scene.mailbox_url, f"bold link {scene.mailbox_url}"))
    table.add_row("server", scene.server_url)
    table.add_row(
        "events",
        Text.assemble(
            (f"{figures.events_per_second:.1f}/s", "bold"),
            f"  {_chart(figures.trend)}  ",
            (f"{figures.events} in all", "dim"),
        ),
    )
    for name, pace in scene.paces.items():
        entered = Text.assemble((str(figures.entered.get(name, 0)), "bold"), " entered", (f"   {pace}", "dim"))
        table.add_row(name.replace("_", " "), entered)
    table.add_row("runs", f"{figures.exited} ended, {figures.goals} reached their goal")
    table.add_row("messages", _messages(figures.messages))
    latency = Text.assemble(
        "p50 ", (_seconds(figures.p50_seconds), "bold"), ", p99 ", (_seconds(figures.p99_seconds), "bold"),
        ("  from the event to the message asked for", "dim"),
    )  # fmt: skip
    table.add_row("latency", latency)
    if scene.happenings:
        table.add_row("a story", f"equeengage trace {scene.happenings[0].user} --data {scene.data}")
    if scene.notice:
        table.add_row("", Text(scene.notice, "yellow"))
    return table


def _messages(messages: dict[str, int]) -> Text:
    way = ("asked for", "accepted", "opened", "clicked")
    text = Text(" → ").join(Text.assemble((str(messages.get(state, 0)), "bold"), f" {state}") for state in way)
    for state, count in messages.items():
        if state not in way and count:
            text.append("   ").append(f"{count} {state}", "yellow" if state == "kept back" else "red")
    return text


def _latest(scene: Scene, room: int) -> Table:
    table = Table.grid(expand=True, padding=(0, 1))
    table.add_column(ratio=1)
    table.add_column(ratio=1)
    mails = [_mail(mail) for mail in list(scene.mails)[-room:]]
    happenings = [_happening(happening) for happening in list(scene.happenings)[-room:]]
    table.add_row(
        Panel(_filled(mails, room), title="latest mails", title_align="left", border_style="dim"),
        Panel(_filled(happenings, room), title="latest in the journal", title_align="left", border_style="dim"),
    )
    return table


def _mail(mail: Mail) -> Text:
    return _line(mail.received_at, (mail.recipient.partition("@")[0], "cyan"), (f"  {mail.subject}", ""))


def _happening(happening: Happening) -> Text:
    return _line(happening.at, (happening.user, "magenta"), (f"  {happening.text}", happening.style))


def _line(at: int, *parts: tuple[str, str]) -> Text:
    return Text.assemble((f"{_clock(at)} ", "dim"), *parts, no_wrap=True, overflow="ellipsis")


def _filled(lines: Sequence[Text], room: int) -> RenderableType:
    """Return the lines with empty ones below, so that the panel doesn't jump."""
    return Group(*lines, *[Text("")] * (room - len(lines)))


def _chart(values: tuple[float, ...]) -> str:
    most = max(values, default=0.0) or 1.0
    return "".join(BARS[min(len(BARS) - 1, int(value / most * (len(BARS) - 1) + 0.999))] for value in values)


def _seconds(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value * 1000:.1f} ms" if value < 0.1 else f"{value:.2f} s"


def _uptime(figures: Figures) -> str:
    return str(timedelta(seconds=int(figures.uptime_seconds)))


def _clock(at: int) -> str:
    return datetime.fromtimestamp(at / 1000).astimezone().strftime("%H:%M:%S")
