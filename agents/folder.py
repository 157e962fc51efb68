"""How a folder of journeys is read: every module with a journey or a policy in it, and the templates beside them.

    journeys/*.py                      modules whose top level holds `Journey` objects, by whatever name
    journeys/*.json                    journeys written as JSON
    journeys/policy.json               the policy, unless a module holds it: one `Policy` in a folder, at most
    journeys/templates/<name>.html     a mail; `<name>.subject.txt` its subject, `<name>.txt` its text (else made from the html)
    journeys/templates/<name>.json     the body of a webhook
    journeys/schemas/                  what events are declared to hold: see `agents/event_schemas.py`

Modules are loaded by their path, under a name of their own: the folder needn't be a package or on any path.
"""

import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from types import ModuleType

from pydantic import ValidationError

from engine.definitions import load, load_policy
from engine.errors import JourneyError
from engine.journey import Journey
from engine.mistakes import explain
from engine.policy import Policy

SUFFIXES = {".subject.txt": "subject", ".html": "html", ".txt": "text", ".json": "json"}  # the longest match first
MAX_TEMPLATE_BYTES = 500_000
POLICY_FILE = "policy.json"


@dataclass(frozen=True, slots=True)
class Folder:
    """What a folder holds: journeys in the order of their names, templates by name and part, and the policy if there is one."""

    path: Path
    journeys: list[Journey]
    templates: dict[str, dict[str, str]]
    files: dict[str, Path] = field(default_factory=dict)  # journey -> the file it is written in
    policy: Policy | None = None


def read_folder(path: Path) -> Folder:
    """Return the journeys and templates of a folder. Raises JourneyError that names the file and says what to do."""
    if not path.is_dir():
        raise JourneyError(f"there is no folder {path}; name the folder of your journeys with --journeys DIR")
    found: dict[str, tuple[Path, Journey]] = {}
    policies: list[tuple[Path, Policy]] = []
    for file, definition in _definitions(path):
        if isinstance(definition, Policy):
            policies.append((file, definition))
            continue
        other, known = found.setdefault(definition.name, (file, definition))
        if known != definition:  # A module may import another's journey: that is one journey, not two.
            raise JourneyError(
                f"{file}: a journey in {other} is called {definition.name!r} already; a name is one journey"
            )
    for file, other_policy in policies:
        if other_policy != policies[0][1]:
            raise JourneyError(f"{file}: there is a policy in {policies[0][0]} already; a folder has one")
    journeys = [found[name][1] for name in sorted(found)]
    files = {name: file for name, (file, _) in found.items()}
    policy = policies[0][1] if policies else None
    return Folder(path, journeys, dict(read_templates(path / "templates")), files, policy)


def _definitions(path: Path) -> Iterator[tuple[Path, Journey | Policy]]:
    for file in sorted(path.iterdir()):
        if file.suffix == ".py" and not file.name.startswith(("_", "test_", "conftest")):
            for value in vars(run_module(file)).values():
                if isinstance(value, Journey | Policy):
                    yield file, value
        elif file.suffix == ".json":
            try:
                body = file.read_bytes()
                yield file, load_policy(body) if file.name == POLICY_FILE else load(body)
            except JourneyError as error:
                raise JourneyError(f"{file}: {error}") from None


def run_module(file: Path) -> ModuleType:
    """Run a module by its path and return it. What it raises becomes a JourneyError: one line that says where."""
    place = file.resolve()
    name = f"_journeys_{sha256(str(place).encode()).hexdigest()[:12]}_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pydantic look their module up while it is being made
    try:
        spec.loader.exec_module(module)
    except JourneyError as error:
        raise JourneyError(f"{file}{_line(error, place)}: {error}") from None
    except ValidationError as error:
        raise JourneyError(f"{file}{_line(error, place)}: {explain(error)}") from None
    except SyntaxError as error:
        raise JourneyError(f"{error.filename or file}:{error.lineno}: {error.msg}") from None
    except (Exception, SystemExit) as error:
        raise JourneyError(f"{file}{_line(error, place)}: {type(error).__name__}: {error}") from error
    finally:
        del sys.modules[name]
    return module


def _line(error: BaseException, place: Path) -> str:
    """Return ":<line>" of the last place in this file that the error passed, or nothing."""
    line, trace = "", error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(place):
            line = f":{trace.tb_lineno}"
        trace = trace.tb_next
    return line


def read_templates(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the templates of a folder by name, each with its parts; nothing if there is no such folder."""
    parts: dict[str, dict[str, str]] = {}
    for file in sorted(path.iterdir()) if path.is_dir() else ():
        suffix = next((suffix for suffix in SUFFIXES if file.name.endswith(suffix)), None)
        if suffix is None or file.name.startswith("."):
            continue
        if file.stat().st_size > MAX_TEMPLATE_BYTES:
            raise JourneyError(f"{file}: a template may take {MAX_TEMPLATE_BYTES} bytes")
        try:
            source = file.read_text("utf-8")
        except UnicodeDecodeError as error:
            raise JourneyError(f"{file}: a template is UTF-8: {error}") from None
        parts.setdefault(file.name.removesuffix(suffix), {})[SUFFIXES[suffix]] = source
    yield from parts.items()
