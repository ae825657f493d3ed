"""The figures of a run, for programs and plots: `metrics.jsonl`, one JSON object per report."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from util.files import atomic_write
from util.loggers.base import TrainingPosition


class MetricsLog:
    """A file of reports, each a line such as

        {"epoch": 1, "epochs_done": 0.5, "images": 100, "losses": {"G_GAN": 0.562, "D_real": 0.131}}

    with the moment that it speaks of, and whatever was reported then. What is no number is null: JSON knows no NaN.

    Attributes:
        records: the reports so far, those of earlier starts of the run included.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.records = list(read_metrics(path))

    def truncate_after(self, position: TrainingPosition) -> None:
        """Takes the reports of later moments out of the file: a run that is resumed goes back to where its weights were
        saved, and what it lives through once more shall not be told twice. A run that begins anew forgets all."""
        self.records = [record for record in self.records if record["epochs_done"] <= position.epochs_done]
        with atomic_write(self.path) as unfinished:
            unfinished.write_text("".join(map(_line, self.records)), encoding="utf-8")

    def add(self, position: TrainingPosition, report: Mapping[str, Any]) -> None:
        """Appends a report. The file is opened anew each time, so that a killed run has lost nothing."""
        record = _finite({**asdict(position), **report})
        self.records.append(record)
        with self.path.open("a", encoding="utf-8") as log:
            log.write(_line(record))


def read_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """The reports in a file, in order; none where there is no file. Lines cut short by a crash are left out."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and isinstance(record.get("epochs_done"), int | float):
            yield record


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(record, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(inner) for name, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
