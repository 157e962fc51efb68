"""The secrets that are made once and kept in the data folder, readable by their owner only."""

import os
import secrets
from pathlib import Path

from pydantic import SecretStr

from engine.runtime.settings import Settings

DEFAULT_TENANT = "default"


def with_kept_secrets(settings: Settings) -> Settings:
    """Return the settings with a link secret, and with a write key for the tenant `default` if none was set.

    What is missing is taken from the data folder, or made and kept there, so that links in mails that are out and keys
    in clients stay good over restarts.
    """
    kept: dict[str, object] = {}
    if not settings.link_secret.get_secret_value():
        kept["link_secret"] = SecretStr(kept_secret(settings.data / "link-secret"))
    if not settings.write_keys:
        kept["write_keys"] = {DEFAULT_TENANT: [SecretStr(kept_secret(settings.data / "write-key"))]}
    return settings.model_copy(update=kept)


def kept_secret(path: Path) -> str:
    """Return the secret in a file; make both if there is none. 192 random bits, URL-safe."""
    try:
        return path.read_text("ascii").strip()
    except FileNotFoundError:
        pass
    path.parent.mkdir(parents=True, exist_ok=True)
    write_private(path, secrets.token_urlsafe(24))
    return path.read_text("ascii").strip()  # what is in the file counts, should two have made one at once


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.part")
    unfinished.unlink(missing_ok=True)
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
