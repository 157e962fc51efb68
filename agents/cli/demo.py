"""`equeengage demo`: a small shop, live."""

from pathlib import Path
from typing import Annotated

import typer


def demo(
    once: Annotated[
        bool,
        typer.Option(
            "--once", help="Play about half a minute unattended, compare the mails with what must come, exit."
        ),
    ] = False,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", help="The data folder. [default: data/demo; with --once a fresh one]", show_default=False
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option("--port", help="The server's port. [default: 8080; with --once any free one]", show_default=False),
    ] = None,
    mailbox_port: Annotated[
        int | None,
        typer.Option(
            "--mailbox-port", help="The mailbox page's port. [default: 8025; with --once any]", show_default=False
        ),
    ] = None,
    customers: Annotated[
        float, typer.Option("--customers", min=0.1, max=50, help="How many come to the shop each second.")
    ] = 1.0,
    seed: Annotated[int, typer.Option("--seed", help="Who comes, and what they do.")] = 7,
) -> None:
    """See it work: a server, three journeys played faster, a shop's customers and a mailbox for their mails.

    The customers are played through Segment's own client over HTTP; the mails come over SMTP into a mailbox with a page to
    read them. It keeps what it knows in data/demo and goes on from there at the next start.

    Examples:

      equeengage demo
      equeengage demo --customers 5
      equeengage demo --once
    """
    from rich.console import Console

    from agents.cli.failure import Failed
    from engine.runtime import logs

    try:
        from agents.demo import live
        from agents.demo import once as unattended
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("aiosmtpd", "segment"):
            raise
        raise Failed(f"the demo needs {error.name}; install it with: pip install 'equeengage[demo]'") from None
    console = Console()
    if once:
        logs.configure("error")
        raise typer.Exit(unattended.main(console, data, port or 0, mailbox_port or 0, seed))
    data = data or Path("data/demo")
    data.mkdir(parents=True, exist_ok=True)
    with (data / "server.log").open("a", encoding="utf-8") as stream:  # the terminal shows the view
        logs.configure("info", stream)
        live.main(
            console,
            data,
            8080 if port is None else port,
            8025 if mailbox_port is None else mailbox_port,
            customers,
            seed,
        )
