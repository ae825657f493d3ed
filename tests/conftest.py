"""Shared by all tests: the command-line flags of the test suite, and what slow tests are."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from training_processes import Ended, TrainingProcesses

ROOT = Path(__file__).resolve().parent.parent
OWN_GOLDEN = ROOT / "tests" / "golden"
SHARED_GOLDEN = ROOT.parent / "shared" / "golden"
SECONDS_FOR_SLOW_TESTS = 7200  # on a machine that has other work to do as well


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="run the slow tests as well")
    parser.addoption(
        "--golden",
        action="append",
        metavar="DIR",
        help=f"check the golden cases below DIR (may be repeated; default: {OWN_GOLDEN} and, if there, {SHARED_GOLDEN})",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    skipped = pytest.mark.skip(reason="slow; run with --all")
    patient = pytest.mark.timeout(SECONDS_FOR_SLOW_TESTS)
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(patient if config.getoption("--all") else skipped)


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's root folder."""
    return ROOT


@pytest.fixture(scope="session")
def train() -> Iterator[Callable[..., Ended]]:
    """Runs train.py in a process of its own: see `TrainingProcesses.run`."""
    processes = TrainingProcesses()
    yield processes.run
    processes.close()
