"""The rules about messages: their templates, their channels, and the receipts that are waited for."""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches

from engine.conditions import ReceiptOf, leaves
from engine.errors import JourneyError
from engine.event_schemas import Shape
from engine.journey import Journey
from engine.lint.attributes import OURS
from engine.lint.findings import Finding, Surroundings, nearest
from engine.steps import Send
from engine.template_variables import PARTS, Variable, links, read_source

MESSAGE = ("id", "journey", "step")
KNOWN = ("profile", "event", "message", "unsubscribe_url")
NEVER_SEEN = {"webhook": frozenset({"delivered", "opened", "clicked", "complained", "unsubscribed"})}


def check(journey: Journey, surroundings: Surroundings) -> Iterator[Finding]:
    """Yield what is wrong with what a journey sends, and with what it hopes to hear of it."""
    for name, step in journey.steps.items():
        if isinstance(step, Send):
            yield from _channels(name, step, surroundings)
            if surroundings.templates is not None:
                yield from _template(journey, name, step, surroundings.templates, surroundings)
    for place, condition in journey.conditions():
        for leaf in leaves(condition):
            if isinstance(leaf, ReceiptOf):
                yield from _receipt(journey, place.strip("'"), leaf, surroundings)


def _channels(name: str, step: Send, surroundings: Surroundings) -> Iterator[Finding]:
    for channel in step.channels:
        if surroundings.channels is not None and channel not in surroundings.channels:
            yield Finding(
                "warning",
                "channel",
                name,
                f"no worker sends {channel!r}: its messages wait in their topic for one of yours",
                nearest(channel, sorted(surroundings.channels), "the channels with a worker are"),
            )


def _template(
    journey: Journey, name: str, step: Send, templates: Mapping[str, Mapping[str, str]], surroundings: Surroundings
) -> Iterator[Finding]:
    if step.template not in templates:
        otherwise = f"put {step.template}.html and {step.template}.subject.txt beside"
        remedy = nearest(step.template, templates, otherwise)
        yield Finding("error", "no_template", name, f"there is no template {step.template!r}", remedy)
        return
    parts = {part: source for part, source in templates[step.template].items() if source}
    for part, source in parts.items():
        yield from _source(journey, step, f"{step.template}{PARTS[part]}", source, surroundings)
    if "email" not in step.channels:
        return
    if not parts.keys() & {"html", "text"}:
        remedy = f"write templates/{step.template}.html"
        yield Finding("error", "no_body", name, f"the mail {step.template!r} has neither html nor text", remedy)
    if "subject" not in parts:
        remedy = f"write templates/{step.template}.subject.txt"
        yield Finding("warning", "no_subject", name, f"the mail {step.template!r} has no subject", remedy)
    shown = [part for part in ("html", "text") if part in parts]
    for part in () if step.transactional else shown:
        if "unsubscribe_url" not in parts[part]:
            yield Finding(
                "warning",
                "no_unsubscribe",
                f"{step.template}{PARTS[part]}",
                f"a mail about {step.topic!r} without a way out of it that its reader can see",
                "put a link to {{ unsubscribe_url }} into it, or say transactional=True if it is no marketing",
            )


def _source(journey: Journey, step: Send, place: str, source: str, surroundings: Surroundings) -> Iterator[Finding]:
    try:
        reading = read_source(source)
    except JourneyError as error:
        yield Finding("error", "liquid", place, str(error), "a message with this template could not be written")
        return
    for name, line in reading.unknown_filters:
        yield Finding("error", "liquid", place, f"there is no filter {name!r}", "see the filters of Liquid", line)
    for variable in reading.variables:
        yield from _variable(journey, step, place, variable, surroundings)


def _variable(
    journey: Journey, step: Send, place: str, variable: Variable, surroundings: Surroundings
) -> Iterator[Finding]:
    source, rest = str(variable.path[0]), variable.path[1:]
    if source not in KNOWN:
        yield Finding(
            "error",
            "variable",
            place,
            f"`{variable}` is nothing a template is given",
            _instead(source, surroundings),
            variable.line,
        )
    elif source == "message" and rest and rest[0] not in MESSAGE:
        remedy = nearest(str(rest[0]), MESSAGE, "a message has")
        yield Finding("error", "variable", place, f"`{variable}`: a message has no {rest[0]!r}", remedy, variable.line)
    elif source == "unsubscribe_url" and step.transactional:
        problem = "`unsubscribe_url` is empty in a transactional message"
        yield Finding("warning", "variable", place, problem, "leave it out, or write it under {% if %}", variable.line)
    elif source in ("profile", "event"):
        yield from _declared(journey, place, variable, source, rest, surroundings)


def _instead(name: str, surroundings: Surroundings) -> str:
    """Say under which of the known variables a name is declared, or which there are."""
    declared = surroundings.declared
    if declared.profile is not None and name in [*declared.profile.names(), *OURS]:
        return f"did you mean `profile.{name}`?"
    if any(name in shape.names() for shape in declared.events.values()):
        return f"did you mean `event.{name}`?"
    near = get_close_matches(name, KNOWN, 1)
    return f"did you mean `{near[0]}`?" if near else "there are `profile`, `event`, `message`, `unsubscribe_url`"


def _declared(
    journey: Journey,
    place: str,
    variable: Variable,
    source: str,
    rest: tuple[str | int | None, ...],
    surroundings: Surroundings,
) -> Iterator[Finding]:
    declared = surroundings.declared
    if source == "profile":
        shapes = [declared.profile] if declared.profile is not None and (not rest or rest[0] not in OURS) else []
        whose = "the profile's schema"
    else:
        shapes = [declared.events[name] for name in sorted(journey.entry_names) if name in declared.events]
        if len(shapes) < len(journey.entry_names):
            return
        whose = f"the schema of {' or '.join(map(repr, sorted(journey.entry_names)))}"
    if shapes and not any(_leads_somewhere(shape, rest) for shape in shapes):
        names = list(dict.fromkeys(name for shape in shapes for name in shape.names()))
        remedy = nearest(str(rest[0]), names, "declared are")
        yield Finding("error", "variable", place, f"`{variable}` is not declared in {whose}", remedy, variable.line)


def _leads_somewhere(shape: Shape | None, path: tuple[str | int | None, ...]) -> bool:
    for part in path:
        if shape is None:
            return False
        if part is None:
            return True
        if part in ("size", "first", "last") and (item := shape.item()) is not None:
            shape = Shape() if part == "size" else item
        else:
            shape = shape.item() if isinstance(part, int) else shape.member(part)
    return shape is not None


def _receipt(journey: Journey, place: str, leaf: ReceiptOf, surroundings: Surroundings) -> Iterator[Finding]:
    step = journey.steps[leaf.step]
    assert isinstance(step, Send)  # `Journey` has refused anything else
    if place in journey.steps and place not in _following(journey, leaf.step):
        yield Finding(
            "error",
            "receipt",
            place,
            f"`{leaf}` can never hold here: no way leads from {leaf.step!r} to this step",
            f"ask for it after {leaf.step!r}",
        )
    elif all(leaf.status in NEVER_SEEN.get(channel, ()) for channel in step.channels):
        problem = f"`{leaf}` can never hold: nobody learns that of a {' or '.join(step.channels)}"
        yield Finding("error", "receipt", place, problem, 'its receipts are "accepted", "failed" and "unknown"')
    elif leaf.status == "unsubscribed" and step.transactional:
        problem = f"`{leaf}` can never hold: a transactional message has no link to unsubscribe"
        yield Finding("error", "receipt", place, problem, "leave it out")
    elif step.channels == ("email",) and leaf.status in ("opened", "clicked"):
        parts = (surroundings.templates or {}).get(step.template)
        if parts is not None and not parts.get("html"):
            problem = f"`{leaf}` can never hold: {step.template!r} is text only, and nothing in it can be followed"
            yield Finding("error", "receipt", place, problem, f"write templates/{step.template}.html")
        elif parts is not None and leaf.status == "clicked" and not _has_links(parts["html"]):
            problem = f"`{leaf}` can never hold: {step.template!r} has no link to click"
            yield Finding("error", "receipt", place, problem, f"put a link into templates/{step.template}.html")


def _has_links(html: str) -> bool:
    """Is there a link, other than the one to unsubscribe?"""
    return any("unsubscribe_url" not in link for link in links(html))


def _following(journey: Journey, begin: str) -> set[str]:
    """Return the steps that a run can come to after a step."""
    found: set[str] = set()
    ahead = [target for _, target in journey.steps[begin].edges()]
    while ahead:
        name = ahead.pop()
        if name not in found:
            found.add(name)
            ahead += [target for _, target in journey.steps[name].edges()]
    return found
