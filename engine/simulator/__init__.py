"""Play users' lives against journeys, on a virtual clock: no broker, no database, no waiting.

    user = simulate(journey, tier="gold")                 one user
    crowd = simulate.crowd(1000, journey, policy)         many, who share quotas and the clock

The same `handle` as in production folds every input, so what a test sees is what a user would get.
"""

from collections import deque
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from engine.conditions import NOTHING
from engine.journey import Journey
from engine.policy import Policy
from engine.reactions import Reactions
from engine.simulator.coverage import Coverage
from engine.simulator.crowd import Crowd
from engine.simulator.simulation import Simulation
from engine.simulator.user import BEGIN, REACHABLE, SimulatedUser

__all__ = ["BEGIN", "REACHABLE", "Crowd", "Simulate", "SimulatedUser", "simulate"]

TENANT = "test"
REMEMBERED = 3  # users made last, whose story is told where a test fails


class Simulate:
    """What makes users to try journeys on. The fixture `simulate` is one."""

    def __init__(self, coverage: Coverage | None = None) -> None:
        self.coverage = coverage
        self.made: deque[SimulatedUser] = deque(maxlen=REMEMBERED)

    def __call__(
        self,
        *definitions: Journey | Policy,
        now: datetime = BEGIN,
        user_id: str = "u1",
        reactions: Reactions | None = None,
        shadow: Journey | None = None,
        **profile: Any,
    ) -> SimulatedUser:
        """Return a user, reachable on every channel unless the profile says otherwise (`email=None`).

        `shadow` is a version that runs beside the active one of its name: see `user.shadow_sent`.
        """
        simulation = Simulation(definitions, TENANT, now, reactions, self.coverage, shadow)
        user = SimulatedUser(user_id=user_id, profile=profile, simulation=simulation)
        self.made.append(user)
        return user

    def crowd(
        self,
        size: int,
        *definitions: Journey | Policy,
        now: datetime = BEGIN,
        profile: Mapping[str, Any] | Callable[[int], Mapping[str, Any]] = NOTHING,
        reactions: Reactions | None = None,
    ) -> Crowd:
        """Return so many users who live by one clock. `profile` may be a function of the user's number, from 0 on."""
        crowd = Crowd(size, Simulation(definitions, TENANT, now, reactions, self.coverage), profile)
        self.made.extend(crowd.users[:REMEMBERED])
        return crowd


simulate = Simulate()
