"""`equeengage channel`: messages out, from Kafka."""

from typing import Annotated

import typer

from agents.cli.setup import Data, MetricsPort, load_settings


def channel(
    name: Annotated[str, typer.Argument(help="Which channel: email, webhook or call.", show_default=False)],
    data: Data = None,
    metrics_port: MetricsPort = None,
) -> None:
    """Deliver one channel's messages from Kafka. Start as many as there is work for, each with a data folder of its own.

    email needs EQUEENGAGE_SMTP_URL, EQUEENGAGE_PUBLIC_URL (where the ingress is reached) and EQUEENGAGE_LINK_SECRET.

    Examples:

      equeengage channel email --data data/email
      equeengage channel webhook --data data/webhook
      EQUEENGAGE_ALLOWED_WEBHOOK_HOSTS=crm.internal equeengage channel call --data data/call
    """
    settings = load_settings(data=data, metrics_port=metrics_port)
    from agents.channel import run
    from engine.runtime import logs

    logs.configure(settings.log_level)
    typer.echo(f"delivering {name} from {settings.kafka.bootstrap}, stores in {settings.data}; Ctrl-C stops")
    run(name, settings, (settings.host, settings.metrics_port) if settings.metrics_port else None)
    typer.echo("stopped; what was not begun waits on Kafka")
