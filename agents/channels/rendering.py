"""How a template becomes what a person receives: Liquid, with limits, so that no template can hang a worker.

Templates are written by others and rendered in the worker's event loop. So everything that could grow is bounded: the
source, the output, the steps of all loops together, what variables hold, and what filters are given and make. Nothing
can be read but the variables that are passed in: there is no loader, so `include` and `render` are not there.
"""

import functools
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sized
from typing import Any, Final

import msgspec
from liquid import BoundTemplate, Environment, RenderContext
from liquid.builtin.tags.for_tag import ForNode, ForTag
from liquid.exceptions import LoopIterationLimitError, OutputStreamLimitError
from liquid.extra import JSON

from schemas.definitions import Definition
from schemas.outputs import Message

SOURCE_CHARACTERS: Final = 256 * 1024  # mail programs cut mails off at about 100 kB
OUTPUT_BYTES: Final = 512 * 1024
LOOP_STEPS: Final = 10_000  # of all loops of one part together: about 10 ms
VARIABLE_BYTES: Final = 256 * 1024
SEQUENCE_ITEMS: Final = 10_000
COMPILED_TEMPLATES: Final = 256

_PARTS: Final = ("subject", "html", "text", "json")


class TemplateError(ValueError):
    """The template can't be used: the message says which part of it, and why."""


class Templates:
    """Compiled templates, as many as are in use. `render` is what they are for."""

    def __init__(self) -> None:
        self._compiled: OrderedDict[str, dict[str, BoundTemplate]] = OrderedDict()
        self._plain = _environment(autoescape=False)
        self._html = _environment(autoescape=True)

    def render(self, template: Definition, variables: Mapping[str, Any]) -> dict[str, str]:
        """Render the parts the template has. Raises TemplateError."""
        rendered = {}
        for part, compiled in self._find(template).items():
            try:
                rendered[part] = compiled.render(variables)
            except Exception as error:  # Filters meet values nobody thought of; any error is the template's.
                raise TemplateError(f"{template.name}, {part}: {_first_line(error)}") from error
        return rendered

    def _find(self, template: Definition) -> dict[str, BoundTemplate]:
        compiled = self._compiled.get(template.key)
        if compiled is None:
            compiled = self._compiled[template.key] = self._compile(template)
            if len(self._compiled) > COMPILED_TEMPLATES:
                self._compiled.popitem(last=False)
        self._compiled.move_to_end(template.key)
        return compiled

    def _compile(self, template: Definition) -> dict[str, BoundTemplate]:
        try:
            sources = msgspec.json.decode(template.body, type=dict[str, str])
        except msgspec.MsgspecError as error:
            raise TemplateError(f"{template.name}: not an object of Liquid sources: {error}") from error
        compiled = {}
        for part in _PARTS:
            source = sources.get(part)
            if source is None:
                continue
            if len(source) > SOURCE_CHARACTERS:
                raise TemplateError(f"{template.name}, {part}: longer than {SOURCE_CHARACTERS} characters")
            environment = self._html if part == "html" else self._plain
            try:
                compiled[part] = environment.from_string(source)
            except Exception as error:  # The parser's own errors, and RecursionError and the like from deep nesting.
                raise TemplateError(f"{template.name}, {part}: {_first_line(error)}") from error
        return compiled


def variables(message: Message, unsubscribe_url: str = "") -> dict[str, Any]:
    """What a template can say about a message."""
    return {
        "profile": message.profile,
        "event": message.event,
        "message": {"id": message.id, "journey": message.journey, "step": message.step},
        "unsubscribe_url": unsubscribe_url,
    }


def _environment(autoescape: bool) -> Environment:
    environment = _Environment(autoescape=autoescape)
    for tag in ("include", "render", "tablerow"):
        del environment.tags[tag]
    environment.add_tag(_ForTag)
    environment.add_filter("json", JSON())
    for name, operation in list(environment.filters.items()):
        environment.filters[name] = _limited(name, operation)
    return environment


class _Context(RenderContext):
    """Adds up the steps of all loops; Liquid's own limit is for each loop, and a template may have thousands."""

    steps = 0

    def raise_for_loop_limit(self, length: int = 1) -> None:
        self.steps += length
        if self.steps > LOOP_STEPS:
            raise LoopIterationLimitError(f"more than {LOOP_STEPS} steps in loops", token=None)


class _Template(BoundTemplate):
    context_class = _Context


class _Environment(Environment):
    output_stream_limit = OUTPUT_BYTES
    local_namespace_limit = VARIABLE_BYTES
    template_class = _Template


class _ForNode(ForNode):
    def render_to_output(self, context: RenderContext, buffer: Any) -> int:
        # Before the loop expression looks at it: `reversed` makes a list, also of (1..1000000000).
        _check(self.expression.iterable.evaluate(context))
        return super().render_to_output(context, buffer)


class _ForTag(ForTag):
    node_class = _ForNode


def _limited(name: str, operation: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that refuses to take or make too much."""

    @functools.wraps(operation)  # carries over what the filter asks for: the context, the environment
    def limited(value: Any, *arguments: Any, **options: Any) -> Any:
        _check(value)
        for argument in arguments:
            _check(argument)
        if name in ("replace", "join") and arguments and _product(name, value, *arguments) > VARIABLE_BYTES:
            raise OutputStreamLimitError(f"{name} would make more than {VARIABLE_BYTES} characters", token=None)
        made = operation(value, *arguments, **options)
        _check(made)
        return made

    return limited


def _check(value: Any) -> None:
    if isinstance(value, str):
        if len(value) > VARIABLE_BYTES:
            raise OutputStreamLimitError(f"a text of more than {VARIABLE_BYTES} characters", token=None)
    elif isinstance(value, range):
        if value.stop - value.start > SEQUENCE_ITEMS:  # len() of a long one overflows
            raise LoopIterationLimitError(f"a range of more than {SEQUENCE_ITEMS} numbers", token=None)
    elif isinstance(value, Sized) and len(value) > SEQUENCE_ITEMS:
        raise LoopIterationLimitError(f"more than {SEQUENCE_ITEMS} items", token=None)


def _product(name: str, value: Any, *arguments: Any) -> int:
    """How long a text gets that is put in many times, before it is made: two of 200 kB can make 40 GB."""
    if name == "join":
        items = len(value) if isinstance(value, list | tuple | range) else 1
        return items * len(str(arguments[0]))
    text, sought = str(value), str(arguments[0])
    return len(text) + text.count(sought) * len(str(arguments[1] if len(arguments) > 1 else ""))


def _first_line(error: Exception) -> str:
    """What is wrong, and in which line: Liquid's errors quote the whole template under it."""
    lines = str(error).splitlines() or [type(error).__name__]
    place = next((line.rpartition(" ")[2] for line in lines if line.lstrip().startswith("-> ")), "")
    return f"{lines[0][:200]} (line {place.partition(':')[0]})" if place[:1].isdigit() else lines[0][:200]
