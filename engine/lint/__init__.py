"""Is a journey what its author means? Everything that can be told from the definition alone.

`Journey` itself refuses what can't be run: ways to steps that don't exist, loops without a wait, operators that can never
hold. Here is what can be run and still is wrong, or can hardly be meant. Each file has the rules about one thing:

    table        steps, ways, loops, times, and the most messages that one user can get
    attributes   properties of events and attributes of the profile, against the schemas that are declared
    messages     templates, channels, receipts
    permission   the tenant's policy: topics, quiet hours
"""

from collections.abc import Iterator

from engine.journey import Journey
from engine.lint import attributes, messages, permission, table
from engine.lint.findings import Finding, Surroundings

__all__ = ["Finding", "Surroundings", "lint"]

NOTHING_KNOWN = Surroundings()


def lint(journey: Journey, surroundings: Surroundings = NOTHING_KNOWN) -> list[Finding]:
    """Return what is wrong with a journey, errors first, otherwise in the order of the table."""
    found = dict.fromkeys(_findings(journey, surroundings))  # the same template may be sent by several steps
    return sorted(found, key=lambda finding: finding.severity)


def _findings(journey: Journey, surroundings: Surroundings) -> Iterator[Finding]:
    yield from table.check(journey, surroundings)
    yield from attributes.check(journey, surroundings)
    yield from messages.check(journey, surroundings)
    if surroundings.policy is not None:
        yield from permission.check(journey, surroundings.policy)
