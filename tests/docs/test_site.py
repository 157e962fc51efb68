"""That the pages build without a warning, each of them is in the navigation, and nothing is fetched to show them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, headings, pages


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages as `make docs` builds them."""
    place = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [Path(sys.executable).with_name("mkdocs"), "build", "--strict", "--site-dir", place],
        cwd=ROOT, capture_output=True, text=True, timeout=120, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert built.returncode == 0, built.stdout + built.stderr
    assert "WARNING" not in built.stderr, built.stderr
    return place


def test_every_page_is_built_and_has_its_headings(site: Path) -> None:
    for page in pages():
        text = (site / page).with_suffix(".html").read_text("utf-8")
        assert text.count("headerlink") >= len(headings(page)) > 0


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text("utf-8").partition("nav:")[2]
    assert sorted(re.findall(r"- ([\w/]+\.md)$", navigation, re.MULTILINE)) == pages()


def test_a_page_asks_no_other_host_for_styles_or_fonts(site: Path) -> None:
    text = (site / "index.html").read_text("utf-8")
    fetched = re.findall(r'<(?:link rel="(?:stylesheet|preconnect)"|script)[^>]*(?:href|src)="([^"]+)"', text)
    assert fetched
    assert [address for address in fetched if "://" in address] == []
