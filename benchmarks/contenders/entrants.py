"""Who takes part, how each is made ready, and how it is started."""

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[2]
HERE = ROOT / "benchmarks" / "contenders"
BUILD = ROOT / "build" / "contenders"
INSTALLS_WITHIN_SECONDS = 600


class NotReady(Exception):  # noqa: N818 - says what is the case
    """A contender cannot take part on this machine; the message says why."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where one run happens: topics and names of its own."""

    bootstrap: str
    topic: str
    commands: str
    app: str
    data: Path
    partitions: int

    def options(self) -> list[str]:
        named = {"bootstrap": self.bootstrap, "topic": self.topic, "commands": self.commands, "app": self.app}
        every = [*named.items(), ("data", str(self.data)), ("partitions", str(self.partitions))]
        return [part for name, value in every for part in (f"--{name}", value)]


@dataclass(frozen=True, slots=True)
class Contender:
    """One row of the table. `share`: it gets one of so many events, because it takes so long."""

    name: str
    mode: str
    command: Callable[[Place], Sequence[str]]
    versions: Callable[[], Mapping[str, str]]
    prepare: Callable[[], None] = lambda: None
    topics: Mapping[str, Mapping[str, str]] = field(
        default_factory=dict
    )  # beside the commands: suffix -> configuration
    share: int = 1
    settles_seconds: float = 0.0  # at least once: its last commit comes so long after its last command, and counts too
    measures_latency: bool = False
    ours: bool = False
    processes: int = 1  # of ours: how many share the partitions
    log_level: str = "warning"  # of ours


def _installed(*names: str) -> Callable[[], Mapping[str, str]]:
    return lambda: {"python": sys.version.split()[0], **{name: version(name) for name in names}}


def _pinned(name: str) -> Callable[[], Mapping[str, str]]:
    def read() -> Mapping[str, str]:
        lines = (HERE / f"requirements-{name}.txt").read_text().splitlines()
        pins = dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))
        return {"python": sys.version.split()[0], **pins}

    return read


def _venv(name: str) -> Path:
    return BUILD / name / "venv"


def _install(name: str) -> Callable[[], None]:
    """Return what makes the virtual environment of a contender, from the registry that pip is configured for."""

    def prepare() -> None:
        wanted, stamp = HERE / f"requirements-{name}.txt", BUILD / name / "requirements.txt"
        if stamp.exists() and stamp.read_bytes() == wanted.read_bytes():
            return
        shutil.rmtree(BUILD / name, ignore_errors=True)
        _run([sys.executable, "-m", "venv", str(_venv(name))])
        pip = [str(_venv(name) / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _run([*pip, "--requirement", str(wanted)])
        stamp.write_bytes(wanted.read_bytes())

    return prepare


def _compile() -> None:
    """Have Maven copy the jars of Kafka Streams, and javac compile the processor, if they aren't there yet."""
    pom, source, build = HERE / "streams" / "pom.xml", HERE / "streams" / "JourneySteps.java", BUILD / "kafka-streams"
    wanted = pom.read_bytes() + source.read_bytes()
    stamp = build / "stamp"
    if stamp.exists() and stamp.read_bytes() == wanted:
        return
    for tool in ("java", "javac", "mvn"):
        if shutil.which(tool) is None:
            raise NotReady(f"{tool} is not installed (Java 17 and Maven are needed)")
    shutil.rmtree(build, ignore_errors=True)
    goal = [f"-DoutputDirectory={build / 'libs'}", "-DincludeScope=runtime", "dependency:copy-dependencies"]
    _run(["mvn", "-B", "-q", "-f", str(pom), *goal])
    _run(["javac", "-proc:none", "-nowarn", "-cp", f"{build / 'libs'}/*", "-d", str(build / "classes"), str(source)])
    stamp.write_bytes(wanted)


def _run(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALLS_WITHIN_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise NotReady(f"{command[0]} was not done within {INSTALLS_WITHIN_SECONDS} s") from error
    if done.returncode:
        raise NotReady(f"{' '.join(command[:4])} ... failed: {(done.stderr or done.stdout).strip()[-300:]}")


def _streams(timers: str, commit_ms: int) -> Callable[[Place], Sequence[str]]:
    """Heap: what it needs twice over. One core is what all contenders may use, so the collector is the serial one."""
    build = BUILD / "kafka-streams"
    java = ["java", "-XX:+UseSerialGC", "-Xms256m", "-Xmx256m", "-cp", f"{build / 'libs'}/*:{build / 'classes'}"]
    more = ["--timers", timers, "--commit-ms", str(commit_ms)]
    return lambda place: [*java, "JourneySteps", *place.options(), *more]


def _streams_versions() -> Mapping[str, str]:
    jars = [jar.stem.rpartition("-") for jar in (BUILD / "kafka-streams" / "libs").glob("*.jar")]
    named = {name: number for name, _, number in jars if name in ("kafka-streams", "rocksdbjni")}
    said = subprocess.run(["java", "-version"], capture_output=True, text=True, check=True).stderr
    return {"java": said.split('"')[1], **named}


def _module(name: str, module: str, *more: str) -> Callable[[Place], Sequence[str]]:
    python = str(_venv(name) / "bin" / "python")
    return lambda place: [python, "-m", f"benchmarks.contenders.{module}", *place.options(), *more]


def _own_python(module: str, *more: str) -> Callable[[Place], Sequence[str]]:
    return lambda place: [sys.executable, "-m", f"benchmarks.contenders.{module}", *place.options(), *more]


def _our_versions() -> Mapping[str, str]:
    number = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    return {"equeengage": number, **_installed("aiokafka", "msgspec", "rocksdict")()}


COMPACTED = {"cleanup.policy": "compact"}

CONTENDERS = (
    Contender("ours", "exactly-once", lambda place: [], _our_versions, ours=True, measures_latency=True),
    Contender(
        "bare", "exactly-once", _own_python("bare"), _installed("aiokafka", "msgspec", "rocksdict"),
        topics={"-changelog": COMPACTED}, measures_latency=True,
    ),
    Contender(
        "kafka-streams", "exactly-once, waits end when their user comes back", _streams("no", 100), _streams_versions,
        prepare=_compile, measures_latency=True,
    ),
    Contender(
        "kafka-streams-timers", "exactly-once, waits end by a punctuator", _streams("yes", 100), _streams_versions,
        prepare=_compile,
    ),
    Contender(
        "quixstreams", "exactly-once", _module("quixstreams", "quix_app", "--guarantee", "exactly-once"),
        _pinned("quixstreams"), prepare=_install("quixstreams"),
    ),
    Contender(
        "quixstreams-at-least-once", "at-least-once",
        _module("quixstreams", "quix_app", "--guarantee", "at-least-once"), _pinned("quixstreams"),
        prepare=_install("quixstreams"), settles_seconds=1.5,
    ),
    Contender(
        "bytewax", "at-least-once", _module("bytewax", "bytewax_flow"), _pinned("bytewax"), prepare=_install("bytewax"),
        settles_seconds=1.5,
    ),
    Contender(
        "faust", "at-least-once", _own_python("faust_app"),
        _installed("faust-streaming", "mode-streaming", "aiokafka", "rocksdict"), share=8,
        settles_seconds=1.5,
    ),
)  # fmt: skip


def environment() -> dict[str, str]:
    """The environment of a contender: ours without what configures an installation of ours."""
    return {name: value for name, value in os.environ.items() if not name.startswith("EQUEENGAGE_")}
