"""Command-line options, the "slow" marker and fixtures of all tests."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from training_processes import Ended, TrainingProcesses

ROOT = Path(__file__).resolve().parent.parent
OWN_GOLDEN = ROOT / "tests" / "golden"
SHARED_GOLDEN = ROOT.parent / "shared" / "golden"
SLOW_TEST_TIMEOUT = 7200  # seconds, on a busy machine


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="run the slow tests as well")
    parser.addoption(
        "--golden",
        action="append",
        metavar="DIR",
        help=f"folder of golden cases; may be repeated; default: {OWN_GOLDEN} and, if it exists, {SHARED_GOLDEN}",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    skipped = pytest.mark.skip(reason="slow; run with --all")
    long_timeout = pytest.mark.timeout(SLOW_TEST_TIMEOUT)
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(long_timeout if config.getoption("--all") else skipped)


@pytest.fixture(scope="session")
def root() -> Path:
    """Return the project's root folder."""
    return ROOT


@pytest.fixture(scope="session")
def train() -> Iterator[Callable[..., Ended]]:
    """Yield a function that runs train.py in its own process: `TrainingProcesses.run`."""
    processes = TrainingProcesses()
    yield processes.run
    processes.close()
