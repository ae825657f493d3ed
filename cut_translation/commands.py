"""Console commands of the installed package. Each runs one program of the project."""

from runpy import run_module


def train() -> None:
    """Run train.py."""
    run_module(f"{__package__}.train", run_name="__main__")


def test() -> None:
    """Run test.py."""
    run_module(f"{__package__}.test", run_name="__main__")


def translate() -> None:
    """Run scripts/translate.py."""
    run_module(f"{__package__}.scripts.translate", run_name="__main__")


def evaluate() -> None:
    """Run scripts/evaluate.py."""
    run_module(f"{__package__}.scripts.evaluate", run_name="__main__")


def compare() -> None:
    """Run scripts/compare.py."""
    run_module(f"{__package__}.scripts.compare", run_name="__main__")


def plot_runs() -> None:
    """Run scripts/plot_runs.py."""
    run_module(f"{__package__}.scripts.plot_runs", run_name="__main__")


def export() -> None:
    """Run scripts/export.py."""
    run_module(f"{__package__}.scripts.export", run_name="__main__")


def app() -> None:
    """Run scripts/app.py."""
    run_module(f"{__package__}.scripts.app", run_name="__main__")
