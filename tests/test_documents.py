"""That what the documents name is there: files, make targets, commands with their options, settings."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from pydantic import BaseModel

from agents.cli.program import program
from engine.runtime.settings import Settings

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")])
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in PAGES}
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
SHELL = re.compile(r"```(?:sh|bash|console)\n(.*?)```", re.DOTALL)


def commands() -> Iterator[tuple[str, list[str]]]:
    """Every `equeengage ...` in the shell blocks of the pages, without its comment, variables and redirections."""
    for page, text in TEXTS.items():
        for block in SHELL.findall(text):
            for line in block.replace("\\\n", " ").splitlines():
                for part in re.split(r"&&|\||;", line):
                    if "equeengage" not in part:  # quotes may go over lines, or be torn apart
                        continue
                    words = shlex.split(part, comments=True)
                    while words and re.fullmatch(r"[A-Z_0-9]+=.*", words[0]):
                        words.pop(0)
                    if words[:1] == ["equeengage"]:
                        yield page, [word for word in words[1:] if word != "&"]


def parse(words: list[str]) -> None:
    """Parse a command line as `equeengage` does, without running it. Raises click's usage errors."""
    command: Any = typer.main.get_command(program)
    context: Any = None
    while True:
        context = command.make_context(command.name, list(words), parent=context)
        if not hasattr(command, "resolve_command"):
            return
        _, command, words = command.resolve_command(context, [*context._protected_args, *context.args])


@pytest.mark.parametrize("page", TEXTS)
def test_links_lead_to_files_that_are_there(page: str) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", TEXTS[page])
    missing = [target for target in targets if "://" not in target and not ((ROOT / page).parent / target).exists()]
    assert not missing


@pytest.mark.parametrize("page", [page for page in TEXTS if page != "CHANGELOG.md"])
def test_paths_in_code_style_are_there(page: str) -> None:
    named = re.findall(r"`((?:agents|benchmarks|deploy|docs|engine|journeys|schemas|tests)/[\w./-]+)`", TEXTS[page])
    assert not [path for path in named if not (ROOT / path).exists()]


def test_make_targets_are_there() -> None:
    targets = set(re.findall(r"^([a-z]+):", MAKEFILE, re.MULTILINE))
    for page, text in TEXTS.items():
        named = set(re.findall(r"(?:^|`)make ([a-z]+)\b", text, re.MULTILINE))
        assert named <= targets, page


@pytest.mark.parametrize(
    ("page", "words"), [*commands()], ids=lambda value: value if isinstance(value, str) else value[0]
)
def test_commands_are_written_as_the_program_takes_them(page: str, words: list[str]) -> None:
    try:
        parse(words)
    except Exception as error:
        if not hasattr(error, "format_message"):  # click's usage errors, of whichever copy of click typer brings
            raise
        pytest.fail(f"{page}: equeengage {' '.join(words)}: {error.format_message()}")


def names(model: type[BaseModel], prefix: str) -> Iterator[str]:
    """Patterns of the environment variables of a model's settings."""
    for name, field in model.model_fields.items():
        variable = prefix + name.upper()
        yield variable
        for inner in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                yield from names(inner, variable + ("__" if inner is field.annotation else "__.+__"))


def unknown_settings(text: str) -> set[str]:
    """The `EQUEENGAGE_*` names in a text that are no settings."""
    patterns = [re.compile(pattern) for pattern in names(Settings, "EQUEENGAGE_")]
    named = set(re.findall(r"\bEQUEENGAGE_[A-Z0-9_a-z<>]*[A-Z0-9>]", text)) - {"EQUEENGAGE_REQUIRE_KAFKA"}
    return {name for name in named if not any(pattern.fullmatch(name) for pattern in patterns)}


@pytest.mark.parametrize("page", TEXTS)
def test_settings_are_there(page: str) -> None:
    unknown = {name for name in unknown_settings(TEXTS[page]) if not re.search(r"__<|__$", name)}
    assert not unknown
