"""That every Python example in the pages runs, and that what is in the language is on a page.

A page is one module: its blocks run in order in one namespace, and each function `test_...` runs right after its block. A
block that is followed by a `text` block which begins with the name of an error raises that error with that text.
"""

import re
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import pytest

from engine.conditions import Condition
from engine.operators import Operator
from engine.simulator import simulate
from engine.steps import AnyStep
from tests.docs.pages import DOCS, Block, blocks, headings, pages

PAGES = [page for page in pages() if any(block.language == "python" for block in blocks(page))]
RAISED = re.compile(r"^(JourneyError|ValidationError): ")
OTHER_NAMES = {"Where": "where", "Profile": "profile", "Answer": "answer", "On": "on", "Did": "did", "ReceiptOf": "receipt",
               "AllOf": "all_of", "AnyOf": "any_of", "Not": "not_"}  # fmt: skip


@pytest.mark.parametrize("page", PAGES)
def test_the_examples_of_a_page_do_what_it_says(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": page}
    ran = 0
    found = [*blocks(page), Block("", "", 0, ())]
    for block, following in pairwise(found):
        if block.language != "python":
            continue
        raises = following.language == "text" and RAISED.match(following.text)
        if raises:
            with pytest.raises(Exception) as raised:
                run(page, block, namespace)
            assert type(raised.value).__name__ == raises[1]
            assert told(raised.value) == " ".join(following.text.split())
        else:
            run(page, block, namespace)
        for name in re.findall(r"^def (test_\w+)\(", block.text, re.MULTILINE):
            arguments = namespace[name].__code__.co_varnames[: namespace[name].__code__.co_argcount]
            namespace[name](simulate=simulate) if arguments else namespace[name]()
            ran += 1
    assert ran or page == "errors.md", "a page of examples shows what they do"


def run(page: str, block: Block, namespace: dict[str, Any]) -> None:
    """Run a block so that errors in it name the page and the line."""
    exec(compile("\n" * block.line + block.text, str(DOCS / page), "exec"), namespace)


def told(error: Exception) -> str:
    """Return an error as the page writes it."""
    from pydantic import ValidationError

    from engine.mistakes import explain

    text = explain(error) if isinstance(error, ValidationError) else str(error)
    return " ".join(f"{type(error).__name__}: {text}".split())


def example_of(heading: str) -> bool:
    """Is there a section of this name with a test in it?"""
    return any(
        block.language == "python" and "def test_" in block.text and heading in block.headings
        for page in PAGES
        for block in blocks(page)
    )


@pytest.mark.parametrize("kind", [each.__name__ for each in get_args(get_args(AnyStep)[0])])
def test_every_kind_of_step_has_a_section_with_an_example(kind: str) -> None:
    assert example_of(kind)


@pytest.mark.parametrize("kind", [each.__name__ for each in get_args(get_args(Condition)[0])])
def test_every_kind_of_condition_has_a_section_with_an_example(kind: str) -> None:
    assert example_of(f"`{OTHER_NAMES[kind]}`")


@pytest.mark.parametrize("operator", get_args(Operator))
def test_every_operator_is_explained(operator: str) -> None:
    assert f"| `{operator}` |" in (DOCS / "conditions.md").read_text()


@pytest.mark.parametrize("number", range(1, 18))
def test_every_decision_has_an_example(number: int) -> None:
    heading = next(heading for heading in headings("semantics.md") if heading.startswith(f"{number}. "))
    assert example_of(heading)
