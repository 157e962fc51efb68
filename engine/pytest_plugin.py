"""The fixture `simulate`, for whoever installs equeengage and tests with pytest; and what tests left untouched.

    pytest --journey-coverage                              which steps and ways of which journeys no test passed
    pytest --journey-coverage-fail-under=90                ... and fail if less than 90 % were passed
    pytest --journey-coverage-of='welcome*'                only of these journeys

Where a test fails, the stories of the users it made last are shown with it.
"""

from collections.abc import Generator
from fnmatch import fnmatchcase

import pytest

from engine.simulator import Simulate
from engine.simulator.coverage import Coverage, JourneyCoverage

COVERAGE = pytest.StashKey[Coverage]()
MAX_SHOWN = 20  # of what is missing in one journey


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("equeengage")
    group.addoption(
        "--journey-coverage", action="store_true",
        help="report which steps and ways of the simulated journeys no test passed",
    )  # fmt: skip
    group.addoption(
        "--journey-coverage-fail-under", type=float, metavar="PERCENT",
        help="fail if less of the simulated journeys was passed",
    )  # fmt: skip
    group.addoption(
        "--journey-coverage-of", action="append", default=[], metavar="NAME",
        help="report only journeys of this name (* stands for anything); may be given several times",
    )  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    if config.option.journey_coverage or config.option.journey_coverage_fail_under is not None:
        config.stash[COVERAGE] = Coverage()


@pytest.fixture
def simulate(pytestconfig: pytest.Config) -> Simulate:
    """Make users to try journeys on: `user = simulate(journey, tier="gold")`, `simulate.crowd(1000, journey)`."""
    return Simulate(pytestconfig.stash.get(COVERAGE, None))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    made = getattr(item, "funcargs", {}).get("simulate")
    if report.when == "call" and report.failed and isinstance(made, Simulate):
        report.sections += [(f"simulated user {user.user_id}", user.story()) for user in made.made]
    return report


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    wanted = session.config.option.journey_coverage_fail_under
    if wanted is not None and exitstatus == pytest.ExitCode.OK and _percent(_reported(session.config)) < wanted:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if COVERAGE not in config.stash:
        return
    terminalreporter.section("journey coverage")
    reported = _reported(config)
    width = max((len(each.journey.label) for each in reported), default=0)
    for each in reported:
        steps = f"{len(each.steps_passed)} of {len(each.journey.steps)} steps"
        ways = f"{len(each.ways_passed)} of {len(each.ways)} ways"
        terminalreporter.write_line(f"{each.journey.label:<{width}}  {_percent([each]):>4.0f} %  {steps}, {ways}")
        missing = each.missing
        for what in missing[:MAX_SHOWN]:
            terminalreporter.write_line(f"    no test passed {what}")
        if len(missing) > MAX_SHOWN:
            terminalreporter.write_line(f"    ... nor {len(missing) - MAX_SHOWN} more")
    if not reported:
        terminalreporter.write_line("no journey was simulated: use the fixture `simulate`")
    percent, wanted = _percent(reported), config.option.journey_coverage_fail_under
    if wanted is not None and percent < wanted:
        terminalreporter.write_line(f"FAILED: {percent:.1f} % were passed, {wanted:g} % are required", red=True)


def _reported(config: pytest.Config) -> list[JourneyCoverage]:
    """The journeys to report, by name and version."""
    wanted = config.option.journey_coverage_of
    return [
        each
        for each in config.stash[COVERAGE].journeys
        if not wanted or any(fnmatchcase(each.journey.name, name) for name in wanted)
    ]


def _percent(reported: list[JourneyCoverage]) -> float:
    total = sum(each.total for each in reported)
    return 100 * sum(each.passed for each in reported) / total if total else 0.0
