"""`equeengage policy ...`: what operators do to the policy that is in force."""

from typing import Annotated

import typer

from agents.cli.setup import Data, OnKafka, Tenant


def rollback(
    version: Annotated[int, typer.Argument(help="A version that was published.", show_default=False)],
    tenant: Tenant = "default",
    data: Data = None,
    kafka: OnKafka = False,
) -> None:
    """Make a version of the policy that was published before the current one again, for every message from now on.

    Which versions there are: equeengage journey list.

    Examples:

      equeengage policy rollback 2
    """
    from agents.cli.journey import act
    from engine.runtime.controls import rollback

    act(lambda published, now: rollback(published, tenant, "policy", "policy", version, now), data, kafka)
