"""What all tests share: where the broker of the Kafka tests comes from, and how property tests choose their examples."""

from hypothesis import settings

pytest_plugins = ["tests.kafka.broker"]

# The same examples on every machine and every run; a failure prints how to repeat it. More of them, and new ones:
# `pytest --hypothesis-profile=search --hypothesis-seed=<number>`.
settings.register_profile("steady", derandomize=True, deadline=None, print_blob=True)
settings.register_profile("search", max_examples=2000, deadline=None, print_blob=True)
settings.load_profile("steady")
