"""The real application over a log that remembers, behind a real socket."""

from collections.abc import AsyncIterator, Callable

import pytest
from aiohttp.test_utils import TestClient, TestServer
from aiohttp.web import Application, Request
from pydantic import SecretStr

from agents.ingress import make_app
from engine.runtime.metrics import Metrics
from engine.runtime.settings import Settings, Webhook
from tests.ingress.remembering_log import RememberingLog
from tests.ingress.serving import Doorstep

NOW = 1_735_689_600_000  # 2025-01-01T00:00:00Z
STANDARD_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

Client = TestClient[Request, Application]
MakeApp = Callable[..., Application]
Serve = Callable[[Application], TestServer]


@pytest.fixture
def log() -> RememberingLog:
    return RememberingLog()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def settings() -> Settings:
    return Settings(
        write_keys={"shop": [SecretStr("shop-key"), SecretStr("shop-key-2")], "bank": [SecretStr("bank-key")]},
        webhooks={
            "payments": Webhook(
                tenant="bank",
                secret=SecretStr("s3cret"),
                header="X-Payments-Signature",
                user="data.customer.id",
                event="type",
                event_prefix="payment_",
                properties="data",
            ),
            "crm": Webhook(tenant="shop", secret=SecretStr(STANDARD_SECRET), scheme="standard-webhooks"),
        },
    )


@pytest.fixture(params=[Doorstep, TestServer], ids=["doorway", "framework"])
def serve(request: pytest.FixtureRequest) -> Serve:
    """Both ways that a tracking call takes."""
    way: Serve = request.param
    return way


@pytest.fixture
async def client(log: RememberingLog, settings: Settings, metrics: Metrics, serve: Serve) -> AsyncIterator[Client]:
    app = make_app(log, settings, metrics=metrics, clock=lambda: NOW)
    async with TestClient(serve(app)) as client:
        yield client
