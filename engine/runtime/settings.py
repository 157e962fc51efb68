"""What can be set: `EQUEENGAGE_*` environment variables, `__` for nesting; the command's options override them."""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

TENANT = re.compile(r"[a-z0-9-]{1,64}\Z")


class Kafka(BaseModel):
    """`EQUEENGAGE_KAFKA__BOOTSTRAP` and its neighbours."""

    bootstrap: str = "127.0.0.1:9092"
    prefix: str = "equeengage"  # topics are <prefix>.events, <prefix>.messages.email ...
    app: str = "equeengage"  # consumer group, transactional ids and changelogs are named after it
    partitions: int = Field(24, ge=1, le=1000)
    replication: int = Field(1, ge=1, le=10)
    security: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: str = "PLAIN"
    username: str = ""
    password: SecretStr = SecretStr("")
    # Of what we write. What goes to a broker costs a core more than what snappy takes: the journal shrinks to an eighth.
    compression: Literal["none", "snappy", "lz4", "zstd", "gzip"] = "snappy"
    session_timeout_seconds: float = Field(10.0, ge=6, le=300)
    standby: bool = False  # copy the stores of all partitions, so that taking one over is quick (worker --standby)
    # What an operator may agree to, once a partition has stopped and said why:
    clock_ahead_minutes: float = Field(10.0, gt=0)  # how far a record may lie ahead of the host's clock
    accept_create_time: bool = False  # fold records that a producer's clock has dated
    accept_gap: bool = False  # go on where unread records were deleted; fold again what a lost changelog forgot


class Webhook(BaseModel):
    """How the calls of one `/v1/webhooks/{source}` are checked and read; paths are dotted: `data.customer.id`."""

    tenant: str
    secret: SecretStr
    scheme: Literal["hmac-sha256", "standard-webhooks"] = "hmac-sha256"
    header: str = "X-Signature"  # for hmac-sha256: hex or base64, with or without "sha256=" before it
    user: str = "user_id"
    event: str = "type"
    event_prefix: str = ""
    id: str = "id"
    properties: str = ""  # "": the whole body


class Endpoint(BaseModel):
    """Where the channel `webhook` posts for one tenant, and the Standard Webhooks secret it signs with."""

    url: str
    secret: SecretStr


class Settings(BaseSettings):
    """All settings of all processes."""

    model_config = SettingsConfigDict(env_prefix="EQUEENGAGE_", env_nested_delimiter="__", extra="ignore")

    data: Path = Path("data")
    journeys: Path = Path("journeys")
    host: str = "127.0.0.1"
    port: int = Field(8080, ge=0, le=65535)
    metrics_port: int = Field(0, ge=0, le=65000)  # worker, channel: /metrics; process n of a worker adds n; 0: nowhere
    write_keys: Annotated[dict[str, list[SecretStr]], NoDecode] = Field(default_factory=dict)
    public_url: str = ""  # what links in mails begin with; default: where the server listens
    link_secret: SecretStr = SecretStr("")  # signs links; embedded: made once and kept in the data folder
    smtp_url: SecretStr = SecretStr("smtp://127.0.0.1:1025")  # smtp://user:password@host:port, smtps://
    email_from: str = "Equeengage <hello@example.com>"
    email_per_second: float = Field(100.0, gt=0)
    webhooks: dict[str, Webhook] = Field(default_factory=dict)
    endpoints: dict[str, Endpoint] = Field(default_factory=dict)  # tenant -> where its webhook messages go
    call_secrets: dict[str, SecretStr] = Field(default_factory=dict)  # tenant -> what signs its Call steps
    allowed_webhook_hosts: Annotated[list[str], NoDecode] = Field(default_factory=list)  # may be http, may be private
    kafka: Kafka = Field(default_factory=Kafka)
    partitions: int = Field(4, ge=1, le=64)  # embedded; fixed once the data folder exists
    retention_days: float = Field(7.0, gt=0)  # embedded: how long the log keeps its records
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator("write_keys", mode="before")
    @classmethod
    def _parse_write_keys(cls, value: object) -> object:
        """`tenant:key,tenant:key`; a tenant may have several keys."""
        if not isinstance(value, str):
            return value
        keys: dict[str, list[str]] = {}
        for pair in filter(None, (part.strip() for part in value.split(","))):
            tenant, colon, key = pair.partition(":")
            if not colon or not key or not TENANT.match(tenant):
                raise ValueError("write keys are written tenant:key,tenant:key with a tenant of [a-z0-9-]")
            keys.setdefault(tenant, []).append(key)
        return keys

    @field_validator("allowed_webhook_hosts", mode="before")
    @classmethod
    def _parse_hosts(cls, value: object) -> object:
        return [host.strip() for host in value.split(",") if host.strip()] if isinstance(value, str) else value
