"""`equeengage ingress`: HTTP in, in front of Kafka."""

from agents.cli.setup import Host, Port, load_settings


def ingress(port: Port = None, host: Host = None) -> None:
    """Run the ingress alone, in front of Kafka: events and the links in mails. Start as many as you like.

    Needs EQUEENGAGE_WRITE_KEYS, and EQUEENGAGE_LINK_SECRET as the channels have it.

    Examples:

      EQUEENGAGE_KAFKA__BOOTSTRAP=127.0.0.1:9092 equeengage ingress --port 8080
    """
    settings = load_settings(port=port, host=host)
    from rich.console import Console

    from agents.gateway import run
    from engine.runtime import logs

    logs.configure(settings.log_level)
    run(settings, Console(highlight=False, soft_wrap=True).print)
