"""The fixture `simulate`, for whoever installs equeengage and tests with pytest."""

import pytest

from engine.simulator import Simulate
from engine.simulator import simulate as _simulate


@pytest.fixture
def simulate() -> Simulate:
    """Make users to try journeys on: `user = simulate(journey, tier="gold")`."""
    return _simulate
