"""Options that request metrics, for train.py and scripts/evaluate.py."""

from argparse import ArgumentParser, Namespace, _ArgumentGroup
from typing import Any

from util.metrics.evaluator import METRICS


def add_metric_arguments(group: ArgumentParser | _ArgumentGroup) -> None:
    """Declare an option for every entry of METRICS. By default no metric is requested."""
    for key, spec in METRICS.items():
        group.add_argument(f"--{key}", **spec.argument)


def metric_config(opt: Namespace) -> dict[str, Any]:
    """Return the values of the requested metrics' options by their keys in METRICS."""
    values = {key: getattr(opt, key) for key in METRICS}
    return {key: value for key, value in values.items() if value is not None and value is not False}


def metric_names() -> list[str]:
    """Return the names of all metrics without their variants: the choices of --best_by."""
    return list(dict.fromkeys(name for spec in METRICS.values() for name in spec.lower_is_better))
