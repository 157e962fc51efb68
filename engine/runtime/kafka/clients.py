"""How every client of ours reaches the broker: addresses, TLS, SASL, and what we demand of all readers and writers."""

import asyncio
import contextlib
import ssl
from collections.abc import Iterable
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from engine.runtime.settings import Kafka

# A record may have up to 1 MiB by Kafka's default; less is worth a round trip only where nothing more is there.
FETCH_BYTES = 4 << 20
# The largest record batch we build: below the 1,048,588 bytes that a topic accepts by default.
BATCH_BYTES = 900_000
STOPS_WITHIN_SECONDS = 5.0


def connection(settings: Kafka) -> dict[str, Any]:
    """The arguments by which any aiokafka client connects."""
    arguments: dict[str, Any] = {
        "bootstrap_servers": settings.bootstrap,
        "security_protocol": settings.security,
        "client_id": settings.app,
    }
    if settings.security.endswith("SSL"):
        arguments["ssl_context"] = ssl.create_default_context()
    if settings.security.startswith("SASL"):
        arguments |= {
            "sasl_mechanism": settings.sasl_mechanism,
            "sasl_plain_username": settings.username,
            "sasl_plain_password": settings.password.get_secret_value(),
        }
    return arguments


def reader(settings: Kafka, fetch_bytes: int = FETCH_BYTES, **more: Any) -> AIOKafkaConsumer:
    """A consumer, not started. It reads committed records only and never moves to an offset on its own."""
    return AIOKafkaConsumer(
        **connection(settings),
        isolation_level="read_committed",
        auto_offset_reset="none",
        enable_auto_commit=False,
        max_partition_fetch_bytes=fetch_bytes,
        **more,
    )


def writer(settings: Kafka, batch_bytes: int = BATCH_BYTES, **more: Any) -> AIOKafkaProducer:
    """A producer, not started. All replicas in sync must have a record before it counts; retries double nothing."""
    return AIOKafkaProducer(
        **connection(settings),
        acks="all",
        enable_idempotence=True,
        compression_type=None if settings.compression == "none" else settings.compression,
        max_batch_size=batch_bytes,
        **more,
    )


def operator(settings: Kafka) -> AIOKafkaAdminClient:
    """An admin client, not started."""
    return AIOKafkaAdminClient(**connection(settings), request_timeout_ms=20_000)


async def stop(producer: AIOKafkaProducer) -> None:
    """Stop a producer; if its broker does not answer, give up what it still had to send."""
    with contextlib.suppress(KafkaError):
        try:
            await asyncio.wait_for(producer.stop(), STOPS_WITHIN_SECONDS)
        except TimeoutError:  # `stop` flushes, and retries for ever; it has no way to say "without"
            await producer.client.close()
            sending = producer._sender.sender_task
            sending.cancel()
            await asyncio.wait({sending}, timeout=STOPS_WITHIN_SECONDS)


def hush(producer: AIOKafkaProducer, sent: Iterable["asyncio.Future[Any]"]) -> None:
    """Look at the errors of a producer that was given up. aiokafka leaves some in futures that nobody can await, and
    asyncio would report each as never retrieved."""
    waiters = [producer._txn_manager.wait_for_transaction_end(), *sent]
    for batches in producer._message_accumulator._batches.values():
        waiters += [batch._drain_waiter for batch in batches]
    for waiter in waiters:
        if waiter is not None and waiter.done() and not waiter.cancelled():
            waiter.exception()
