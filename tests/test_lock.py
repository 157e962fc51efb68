"""That requirements.lock installs exactly what pyproject.toml asks for, from any mirror."""

import re
import tomllib
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
PIN = re.compile(
    r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;\\]+)(?: ; (?P<marker>[^\\\n]+?))?(?P<rest> \\\n(?:    .*\n?)+)",
    re.M,
)

PINS = {canonicalize_name(pin["name"]): Version(pin["version"]) for pin in PIN.finditer(LOCK)}
HERE = [  # Those whose marker holds on this machine.
    canonicalize_name(pin["name"])
    for pin in PIN.finditer(LOCK)
    if pin["marker"] is None or Marker(pin["marker"]).evaluate()
]


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SAID = {each["name"]: each["requires-dist"] for each in PROJECT["tool"]["uv"]["dependency-metadata"]}


def asked() -> list[str]:
    extras = PROJECT["project"]["optional-dependencies"].values()
    return [
        *PROJECT["build-system"]["requires"],
        *PROJECT["project"]["dependencies"],
        *(text for extra in extras for text in extra),
        *PROJECT["dependency-groups"]["dev"],
    ]


@pytest.mark.parametrize("text", asked())
def test_what_the_project_asks_for_is_locked_in_a_version_it_accepts(text: str) -> None:
    requirement = Requirement(text)
    assert PINS[canonicalize_name(requirement.name)] in requirement.specifier, "run: make lock"


def test_every_line_was_understood_and_every_package_has_hashes() -> None:
    assert len(PINS) == len(re.findall(r"^[A-Za-z0-9]", LOCK, re.M)) > 50
    for pin in PIN.finditer(LOCK):
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", pin["rest"]), pin["name"]


def test_it_names_no_place_to_download_from() -> None:
    assert "://" not in LOCK
    assert "index-url" not in LOCK


@pytest.mark.parametrize("name", HERE)
def test_what_a_package_needs_is_locked_too(name: str) -> None:
    """The lock is installed without looking at dependencies, so it must be complete."""
    try:
        needed = [Requirement(text) for text in SAID.get(name, requires(name) or [])]
    except PackageNotFoundError:
        pytest.fail(f"{name} is locked and not installed; run: make install")
    for requirement in needed:
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            assert PINS[canonicalize_name(requirement.name)] in requirement.specifier, requirement
