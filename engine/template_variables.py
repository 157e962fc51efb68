"""Which variables a template reads, and where: Liquid's own analysis of the source, nothing rendered."""

from collections.abc import Iterator
from dataclasses import dataclass

from liquid import Environment
from liquid.exceptions import LiquidError
from liquid.extra import JSON

from engine.errors import JourneyError

PARTS = {"subject": ".subject.txt", "html": ".html", "text": ".txt", "json": ".json"}  # and the ends of their files
NOT_THERE = ("include", "render", "tablerow")  # tags that channel workers don't have


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable that is read: `profile.first_name` is ("profile", "first_name"). An index is an int; None: not known."""

    path: tuple[str | int | None, ...]
    line: int

    def __str__(self) -> str:
        shown = "".join(
            f".{part}" if isinstance(part, str) else f"[{'...' if part is None else part}]" for part in self.path
        )
        return shown.removeprefix(".")


@dataclass(frozen=True, slots=True)
class Reading:
    """What a source reads from outside, and the filters that no channel worker has, each with its line."""

    variables: tuple[Variable, ...]
    unknown_filters: tuple[tuple[str, int], ...]


def read_source(source: str) -> Reading:
    """Return what a Liquid source reads. Raises JourneyError that says what is wrong with it, and in which line."""
    environment = Environment()
    environment.add_filter("json", JSON())
    for tag in NOT_THERE:
        del environment.tags[tag]
    try:
        analysis = environment.from_string(source).analyze(include_partials=False)
    except LiquidError as error:
        line = f" (line {_line(source, error.token.start_index)})" if error.token is not None else ""
        raise JourneyError(f"{error.args[0]}{line}") from None
    except RecursionError:
        raise JourneyError("nested too deep") from None
    variables = [
        Variable(tuple(_part(part) for part in each.segments), _line(source, each.span.index))
        for found in analysis.globals.values()
        for each in found
    ]
    unknown = [
        (name, _line(source, span.index))
        for name, spans in analysis.filters.items()
        if name not in environment.filters
        for span in spans
    ]
    return Reading(tuple(sorted(variables, key=lambda each: each.line)), tuple(sorted(unknown)))


def _part(part: object) -> str | int | None:
    """Return a part of a path; None for one that is itself a variable, which is read on its own."""
    return part if isinstance(part, str | int) else None


def _line(source: str, index: int) -> int:
    return source.count("\n", 0, index) + 1


def links(source: str) -> Iterator[str]:
    """Yield what the links of an HTML source lead to, as written."""
    for piece in source.split("href=")[1:]:
        quote = piece[:1]
        yield piece[1:].partition(quote)[0] if quote in "\"'" and quote else piece.split(">", 1)[0]
