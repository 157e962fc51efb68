"""What all tests share: where the broker of the Kafka tests comes from, how property tests choose, what runs first."""

import pytest
from hypothesis import settings

pytest_plugins = ["tests.kafka.broker"]

# The same examples on every machine and every run; a failure prints how to repeat it. More of them, and new ones:
# `pytest --hypothesis-profile=search --hypothesis-seed=<number>`.
settings.register_profile("steady", derandomize=True, deadline=None, print_blob=True)
settings.register_profile("search", max_examples=2000, deadline=None, print_blob=True)
settings.load_profile("steady")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where several processes share the tests, begin with the long ones: else one process ends minutes after the others."""
    if config.getoption("dist", "no") != "no":
        items.sort(key=lambda item: not any(item.get_closest_marker(name) for name in ("kafka", "chaos")))
