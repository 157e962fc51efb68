"""`equeengage serve`: everything in one process."""

from typing import Annotated

import typer

from agents.cli.setup import Data, Host, Journeys, Port, load_settings


def serve(
    data: Data = None,
    port: Port = None,
    journeys: Journeys = None,
    host: Host = None,
    public_url: Annotated[
        str | None,
        typer.Option(
            "--public-url", help="What links in mails begin with. [EQUEENGAGE_PUBLIC_URL]", show_default=False
        ),
    ] = None,
    smtp_url: Annotated[
        str | None,
        typer.Option(
            "--smtp-url",
            help="smtp://user:password@host:port; better in the environment. [EQUEENGAGE_SMTP_URL]",
            show_default=False,
        ),
    ] = None,
    accept_clock: Annotated[
        bool, typer.Option("--accept-clock", help="Go on although this machine's clock is far behind the log's.")
    ] = False,
) -> None:
    """Run everything in one process: HTTP in, journeys, mail and webhooks out. RocksDB is log and state.

    Publishes what changed in the journeys folder at the start, and says so. Ctrl-C or SIGTERM stops cleanly: nothing new is
    accepted, what is under way is finished, everything is on the disk.

    Examples:

      equeengage serve --data ./data --journeys ./my-journeys
      EQUEENGAGE_WRITE_KEYS=shop:s3cret EQUEENGAGE_SMTP_URL=smtp://user:pw@mail.example.com:587 equeengage serve --port 80
    """
    settings = load_settings(
        data=data, port=port, journeys=journeys, host=host, public_url=public_url, smtp_url=smtp_url
    )
    from rich.console import Console

    from agents.server import run
    from engine.runtime import logs

    logs.configure(settings.log_level)
    console = Console(highlight=False, soft_wrap=True)
    run(settings, console.print, accept_clock=accept_clock)
