"""How a command gets its settings: from the environment, with the command's options over them."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agents.cli.failure import Failed

if TYPE_CHECKING:
    from engine.runtime.settings import Settings

# Options that several commands share. All default to None: what is not given is taken from the environment.
Data = Annotated[
    Path | None, typer.Option("--data", help="The data folder. [EQUEENGAGE_DATA, default: data]", show_default=False)
]
Journeys = Annotated[
    Path | None,
    typer.Option(
        "--journeys", help="The folder of your journeys. [EQUEENGAGE_JOURNEYS, default: journeys]", show_default=False
    ),
]
Host = Annotated[
    str | None,
    typer.Option("--host", help="The address to listen on. [EQUEENGAGE_HOST, default: 127.0.0.1]", show_default=False),
]
Port = Annotated[
    int | None,
    typer.Option("--port", help="The port; 0 takes a free one. [EQUEENGAGE_PORT, default: 8080]", show_default=False),
]
MetricsPort = Annotated[
    int | None,
    typer.Option(
        "--metrics-port", help="Answer /metrics and /healthz here. [EQUEENGAGE_METRICS_PORT]", show_default=False
    ),
]
OnKafka = Annotated[
    bool,
    typer.Option(
        "--kafka", help="On Kafka; this is the default where EQUEENGAGE_KAFKA__BOOTSTRAP is set.", show_default=False
    ),
]
Tenant = Annotated[str, typer.Option("--tenant", help="Whose it is.")]


def load_settings(**options: Any) -> "Settings":
    """Return the settings of this process. Raises Failed, naming the variable or option that is wrong."""
    from pydantic import ValidationError
    from pydantic_settings import SettingsError

    from engine.runtime.settings import Settings

    given = {name: value for name, value in options.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = "__".join(str(part) for part in first["loc"])
        source = f"--{name.replace('_', '-')}" if name in given else f"EQUEENGAGE_{name.upper()}"
        reason = str(first["msg"]).removeprefix("Value error, ")
        raise Failed(f"{source}: {reason}", exit_code=2) from None
    except SettingsError as error:
        raise Failed(f"the settings can't be read: {error}; values of nested settings are JSON", exit_code=2) from None


def is_on_kafka(settings: "Settings", asked: bool) -> bool:
    """Whether a command that can do both works on Kafka: it was asked to, or a broker is set."""
    return asked or "bootstrap" in settings.kafka.model_fields_set


def trace_command(user: str, data: Path | None) -> str:
    """Return what to type to see what came of it."""
    return shlex.join(["equeengage", "trace", user, *(["--data", str(data)] if data else [])])


def silence_libraries() -> None:
    """Let libraries log nothing: what goes wrong in a short command is told in one line, by us."""
    import logging

    logging.disable(logging.CRITICAL)
