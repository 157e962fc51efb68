"""The pages of docs/ as tests see them: sections, and the fenced blocks in them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
FENCE = re.compile(r"^(?P<fence>`{3,})(?P<language>[a-z]*)[^\n]*$")
HEADING = re.compile(r"^(#{1,6}) (.+)$")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, the line it begins at, and the headings above it."""

    language: str
    text: str
    line: int
    headings: tuple[str, ...]


def pages() -> list[str]:
    """Return the pages by name."""
    return sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))


def headings(page: str) -> list[str]:
    return [text for _, _, text in _headings((DOCS / page).read_text("utf-8").splitlines())]


def blocks(page: str) -> Iterator[Block]:
    """Yield the fenced blocks of a page in their order."""
    lines = (DOCS / page).read_text("utf-8").splitlines()
    above: list[str] = []
    begin, fence, language = 0, "", ""
    for number, line in enumerate(lines, 1):
        if fence:
            if line.strip() == fence:
                yield Block(language, "\n".join(lines[begin : number - 1]) + "\n", begin, tuple(above))
                fence = ""
        elif opened := FENCE.match(line):
            begin, fence, language = number, opened["fence"], opened["language"]
        elif heading := HEADING.match(line):
            del above[len(heading[1]) - 1 :]
            above.append(heading[2])
    assert not fence, f"{page}: the block that begins in line {begin} has no end"


def _headings(lines: list[str]) -> Iterator[tuple[int, int, str]]:
    fence = ""
    for number, line in enumerate(lines, 1):
        if fence:
            fence = "" if line.strip() == fence else fence
        elif opened := FENCE.match(line):
            fence = opened["fence"]
        elif heading := HEADING.match(line):
            yield number, len(heading[1]), heading[2]
