"""The ingress as a process of its own: HTTP in, records on Kafka out. Start as many as you like.

It keeps nothing: a 2xx means that the brokers have acknowledged the event. While they don't answer, requests get 503 and
SDKs come again; the process goes on.
"""

import contextlib

import uvloop

from agents.channels.link_routes import link_routes
from agents.channels.links import SECRET_BYTES, check_public_url
from agents.collecting import spare_what_is_there
from agents.ingress.application import check, make_app, wall_clock
from agents.listening import answering, take_port, url_of
from agents.server import Say, ServerFailed
from agents.stopping import stop_signals
from engine.runtime.kafka import topics
from engine.runtime.kafka.log import KafkaLog
from engine.runtime.metrics import Metrics
from engine.runtime.settings import Settings


def run(settings: Settings, say: Say) -> None:
    """Answer until SIGINT or SIGTERM. Raises what keeps the process from starting."""
    if not settings.write_keys:
        raise ServerFailed("EQUEENGAGE_WRITE_KEYS: nobody could send anything; set it to tenant:key,tenant:key")
    if len(settings.link_secret.get_secret_value()) < SECRET_BYTES:
        raise ServerFailed(
            f"EQUEENGAGE_LINK_SECRET: set the same text of at least {SECRET_BYTES} characters for all ingresses and channels"
        )
    try:
        check(settings)
        if settings.public_url:
            check_public_url(settings.public_url)
    except ValueError as error:
        raise ServerFailed(str(error)) from None
    uvloop.run(_serve(settings, say))


async def _serve(settings: Settings, say: Say) -> None:
    with stop_signals() as stop, contextlib.closing(take_port(settings.host, settings.port)) as port:
        await topics.check(settings.kafka)
        metrics = Metrics()
        log = KafkaLog(settings.kafka, metrics)
        await log.start()
        try:
            app = make_app(log, settings, metrics=metrics, ready=log.waits_for, clock=wall_clock)
            app.add_routes(link_routes(log, settings.link_secret.get_secret_value().encode(), metrics, wall_clock))
            async with answering(app, port):
                say(f"HTTP      {url_of(port)}")
                say(f"Kafka     {settings.kafka.bootstrap}, topics {settings.kafka.prefix}.*")
                spare_what_is_there()
                say("ready; Ctrl-C stops")
                await stop.wait()
                say("stopping: requests under way are answered")
        finally:
            await log.stop()
    say("stopped; every acknowledged event is on Kafka")
