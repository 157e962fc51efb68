"""That the arrows between the packages point one way, and that each file reads as STYLE asks."""

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("schemas", "engine", "agents", "journeys")
OURS = {*PACKAGES, "tests", "benchmarks"}
FRAMEWORKS = {
    "aiohttp",
    "aiokafka",
    "aiosmtplib",
    "faust",
    "mode",
    "prometheus_client",
    "rocksdict",
    "structlog",
    "typer",
}
ONLY_IN_RUNTIME = {"aiokafka", "faust", "mode", "prometheus_client", "rocksdict"}
FAUST_APP = {"agents/app.py", "agents/worker.py"}  # Where a Faust user looks for the app, and what starts it.
WAITING = {"asyncio", "concurrent", "multiprocessing", "select", "socket", "subprocess", "threading"}
CHANCE_AND_CLOCKS = {"logging", "os", "random", "secrets", "time", "uuid"}
CLOCKS = {"now", "today", "utcnow"}  # of datetime and date
DRAWERS = {"base", "common", "core", "helper", "manager", "misc", "model", "service", "util"}  # and their plurals
LONGEST_FILE = 500

# What a module of ours may import of ours: by the folder it is in, the longest prefix wins.
ARROWS = {
    "schemas": {"schemas"},
    "engine": {"engine", "schemas"},
    "engine/runtime": {"engine", "engine.runtime", "schemas"},
    "agents": {"agents", "engine", "engine.runtime", "schemas"},
    "journeys": {"engine"},
}

# The two places in `engine` at the edge: pytest loads the one as a plugin, the other reads a folder of journeys.
# Each with what it may use beyond the pure engine.
EDGES: dict[str, set[str]] = {"engine/pytest_plugin.py": {"pytest"}}

MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imported(path: Path) -> Iterator[str]:
    """Every module a file names in an import, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{named(path)}: relative imports hide the arrows"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def part_of(module: str) -> str:
    """The end of an arrow: a package of ours, or `engine.runtime`."""
    return "engine.runtime" if f"{module}.".startswith("engine.runtime.") else module.partition(".")[0]


def is_pure(path: Path) -> bool:
    name = named(path)
    return name.startswith(("schemas/", "engine/")) and not name.startswith("engine/runtime/")


def test_there_is_something_to_look_at() -> None:
    assert len(MODULES) > 20


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_imports_follow_the_arrows(path: Path) -> None:
    folder = max((prefix for prefix in ARROWS if named(path).startswith(f"{prefix}/")), key=len)
    wrong = {module for module in imported(path) if part_of(module) in OURS | {"engine.runtime"}}
    wrong = {module for module in wrong if part_of(module) not in ARROWS[folder]}
    assert not wrong, f"{folder} may import of ours only {sorted(ARROWS[folder])}"


@pytest.mark.parametrize("path", sorted((ROOT / "journeys").rglob("*.py")), ids=named)
def test_a_journey_is_only_data(path: Path) -> None:
    assert {module.partition(".")[0] for module in imported(path)} <= {"engine", "datetime"}


@pytest.mark.parametrize("path", [path for path in MODULES if is_pure(path)], ids=named)
def test_the_engine_is_arithmetic(path: Path) -> None:
    allowed = EDGES.get(named(path), set())
    roots = {module.partition(".")[0] for module in imported(path)} - allowed
    assert not roots & (WAITING | CHANCE_AND_CLOCKS), "no I/O, asyncio, clock, chance or logging in engine and schemas"
    assert not roots & FRAMEWORKS, "no framework in engine and schemas"
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        assert not isinstance(node, ast.AsyncFunctionDef | ast.Await), (
            f"line {node.lineno}: the engine waits for nothing"
        )
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CLOCKS:
            owner = ast.unparse(node.func.value).rpartition(".")[2]
            assert owner not in {"datetime", "date"}, f"line {node.lineno}: time is the record's, not the clock's"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in {"input", "open", "print"}, f"line {node.lineno}: the engine talks to nobody"


@pytest.mark.parametrize("path", sorted((ROOT / "agents").rglob("*.py")), ids=named)
def test_only_the_runtime_knows_kafka_rocksdb_and_prometheus(path: Path) -> None:
    roots = {module.partition(".")[0] for module in imported(path)}
    allowed = {"faust", "mode"} if named(path) in FAUST_APP else set()
    assert not roots & ONLY_IN_RUNTIME - allowed


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_is_typed(package: str) -> None:
    assert (ROOT / package / "py.typed").exists()


def every_module() -> list[Path]:
    folders = (*PACKAGES, "tests", "benchmarks", "deploy")
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("path", every_module(), ids=named)
def test_a_file_says_what_it_is_for_and_ends_before_it_is_too_long(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LONGEST_FILE, "look for the second noun"
    if text.strip():  # An empty __init__.py only marks a package.
        docstring = ast.get_docstring(ast.parse(text))
        assert docstring, "the first line says which question the file answers"
        assert docstring.splitlines()[0].endswith((".", ":", "?")), "a sentence"


@pytest.mark.parametrize("path", every_module(), ids=named)
def test_nothing_is_put_into_a_drawer(path: Path) -> None:
    parts = {part.removesuffix(".py").strip("_").removesuffix("s") for part in path.relative_to(ROOT).parts}
    assert not parts & DRAWERS, "a noun of the field is missing"


# Written in pieces, so that this file does not name them either.
HOSTS = (
    "pypi" + ".org",
    "python" + "hosted",
    "npmjs" + ".",
    "repo1.maven" + ".",
    "repo.maven" + ".",
    "deb.debian" + ".",
)
WORKPLACE = re.compile(r"(?<![\w.<$}~*-])/(?:work|home|root|Users|mnt)/[\w.]+")
SKIPPED = {".git", ".venv", "build", "data", "dist", "node_modules"}


def texts() -> Iterator[tuple[Path, str]]:
    for folder, folders, files in os.walk(ROOT):
        folders[:] = sorted(
            name
            for name in folders
            if name not in SKIPPED and not name.endswith(("cache", "cache__", ".egg-info", ".hypothesis"))
        )
        for path in (Path(folder, name) for name in sorted(files)):
            content = path.read_bytes()
            if b"\0" not in content:
                yield path, content.decode("utf-8", "replace")


def test_nothing_names_a_registry_or_somebodys_folder() -> None:
    """Any mirror must do for an installation, and no path of one machine works on another."""
    found = []
    for path, text in texts():
        found += [f"{named(path)}: {host}" for host in HOSTS if host in text]
        found += [f"{named(path)}: {match.group()}" for match in WORKPLACE.finditer(text)]
    assert not found
