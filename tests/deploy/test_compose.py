"""That the compose file and the image fit what the program takes and where it listens."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from engine.runtime.settings import Settings
from tests.test_documents import parse, unknown_settings

DEPLOY = Path(__file__).parents[2] / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"] == "equeengage"}
DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")


def environment_of_the_image() -> dict[str, str]:
    return dict(re.findall(r"(?:ENV |^ {4})([A-Z_]+)=(\S+)", DOCKERFILE.rpartition("FROM ")[2], re.MULTILINE))


@pytest.mark.parametrize("name", OURS)
def test_each_command_is_one_the_program_takes(name: str) -> None:
    parse(OURS[name]["command"])


@pytest.mark.parametrize("name", OURS)
def test_each_environment_makes_valid_settings(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {**environment_of_the_image(), **OURS[name]["environment"]}
    assert not unknown_settings(" ".join(environment))
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    settings = Settings()
    assert settings.kafka.bootstrap == "kafka:9092"
    assert settings.link_secret == Settings().link_secret
    assert settings.host == "0.0.0.0"  # else nobody outside the container reaches it
    health = f":{settings.metrics_port or settings.port}/healthz"
    assert environment["HEALTH_URL"].endswith(health) or OURS[name].get("healthcheck") == {"disable": True}


def test_prometheus_scrapes_what_listens() -> None:
    config = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text(encoding="utf-8"))
    job = next(job for job in config["scrape_configs"] if job["job_name"] == "equeengage")
    scraped = {target for group in job["static_configs"] for target in group["targets"]}
    listening = set()
    for name, service in OURS.items():
        port = int(service["environment"].get("EQUEENGAGE_METRICS_PORT", 0))
        if port:
            command = service["command"]
            processes = int(command[command.index("--processes") + 1]) if "--processes" in command else 1
            listening |= {f"{name}:{port + number}" for number in range(processes)}
        elif service.get("restart") != "no":
            listening.add(f"{name}:8080")
    assert scraped == listening


def test_what_is_mounted_and_waited_for_is_there() -> None:
    for name, service in SERVICES.items():
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            assert (DEPLOY / source).exists() if source.startswith(".") else source in COMPOSE["volumes"], volume
        assert set(service.get("depends_on", ())) <= SERVICES.keys(), name


def test_ports_are_open_to_this_machine_only() -> None:
    for service in SERVICES.values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))


def test_images_are_pinned() -> None:
    for name, service in SERVICES.items():
        assert name in OURS or re.fullmatch(r"[\w./-]+:v?\d[\w.]*", service["image"]), name


def test_the_image_copies_what_is_there_and_does_not_run_as_root() -> None:
    ignored = (DEPLOY.parent / ".dockerignore").read_text(encoding="utf-8")
    for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE):
        for source in line.split()[:-1]:
            assert (DEPLOY.parent / source).exists(), source
            assert f"!{source}" in ignored.splitlines(), f"{source} is kept out by .dockerignore"
    assert "USER equeengage" in DOCKERFILE.rpartition("FROM ")[2]


def test_the_locks_agree() -> None:
    """The image runs what the tests ran with."""

    def pins(path: Path) -> dict[str, str]:
        return dict(re.findall(r"^([a-z0-9-]+)==([^\s\\;]+)", path.read_text(encoding="utf-8"), re.MULTILINE))

    small, full = pins(DEPLOY / "requirements.lock"), pins(DEPLOY.parent / "requirements.lock")
    assert small.items() <= full.items()
    assert not small.keys() & {"pytest", "mypy", "ruff", "hypothesis"}
    assert {"aiohttp", "rocksdict", "faust-streaming"} <= small.keys()
