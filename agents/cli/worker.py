"""`equeengage worker`: users' journeys, on Kafka."""

from typing import Annotated

import typer

from agents.cli.setup import Data, MetricsPort, load_settings


def worker(
    data: Data = None,
    processes: Annotated[
        int, typer.Option("--processes", "-n", min=1, max=256, help="One for each core you give it.")
    ] = 1,
    standby: Annotated[
        bool,
        typer.Option(
            "--standby",
            help="Copy the stores of all other partitions, too, so that taking one over is quick. [EQUEENGAGE_KAFKA__STANDBY]",
            show_default=False,
        ),
    ] = False,
    metrics_port: MetricsPort = None,
) -> None:
    """Move users through their journeys, on Kafka. Start more, here or on other machines, until it is fast enough.

    Several processes are supervised: one that dies is started again and gets its partitions back. Ctrl-C or SIGTERM stops
    all of them cleanly. The data folder keeps RocksDB stores, which are rebuilt from Kafka should they be lost.

    Examples:

      EQUEENGAGE_KAFKA__BOOTSTRAP=127.0.0.1:9092 equeengage worker --data data/worker
      equeengage worker --data data/worker --processes 4 --metrics-port 9100
      equeengage worker --data data/standby --standby
    """
    settings = load_settings(data=data, metrics_port=metrics_port)
    settings.kafka.standby |= standby
    from agents.worker import run_worker
    from engine.runtime import logs

    logs.configure(settings.log_level)
    where = f"{settings.kafka.bootstrap}, topics {settings.kafka.prefix}.*, stores in {settings.data}"
    typer.echo(f"{processes} worker {'process' if processes == 1 else 'processes'} on {where}; Ctrl-C stops")
    run_worker(settings, processes, (settings.host, settings.metrics_port) if settings.metrics_port else None)
    typer.echo("stopped; what was not folded waits on Kafka")
