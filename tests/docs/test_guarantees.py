"""That every test the page on guarantees rests on exists."""

import re

from tests.docs.pages import ROOT
from tests.verify.test_comparison import CORRUPTIONS


def test_every_promise_names_tests_that_exist() -> None:
    page = (ROOT / "docs" / "guarantees.md").read_text("utf-8")
    named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", page)
    assert len(named) > 20
    missing = [name for name in named if f"def {name[1]}(" not in (ROOT / "tests" / name[0]).read_text("utf-8")]
    assert not missing


def test_the_number_of_corruptions_is_right() -> None:
    page = (ROOT / "docs" / "guarantees.md").read_text("utf-8")
    assert f"in {len(CORRUPTIONS)} ways" in page
