"""The figures of a run, for programs and plots: `metrics.jsonl`, one JSON object per report."""

import json
import math
import re
import time
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


POSITION_RE = re.compile(r"\(epoch: (?P<epoch>\d+), iters: (?P<iters>\d+), ")


def format_losses(
    epoch: int, iters: int, seconds_per_image: float, data_seconds_per_image: float, losses: Mapping[str, float]
) -> str:
    """One line of the log, in the shape that scripts written for the published code read.

    Args:
        epoch: counted from 1.
        iters: images seen so far in this epoch.
        seconds_per_image: time spent on a step, per image.
        data_seconds_per_image: time spent waiting for data, per image.
        losses: published names and values.
    Returns:
        `(epoch: 1, iters: 100, time: 0.123, data: 0.004) G_GAN: 0.562 D_real: 0.131 `, without a line end.
    """
    head = f"(epoch: {epoch}, iters: {iters}, time: {seconds_per_image:.3f}, data: {data_seconds_per_image:.3f}) "
    return head + "".join(f"{name}: {value:.3f} " for name, value in losses.items())


class LossLog:
    """A text file that only grows: a header with the date for every start of the run, then one line per report."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.write(f"================ Training Loss ({time.ctime()}) ================")

    def write(self, line: str) -> None:
        """Appends a line. The file is opened anew each time, so that a killed run has lost nothing."""
        with self.path.open("a", encoding="utf-8") as log:
            log.write(line + "\n")


def truncate_loss_log(epoch: int, iters: int, path: Path) -> None:
    """Takes out of a log, where there is one, what a run reported after that place: it was killed after its last checkpoint,
    goes back to there, and will tell it once more."""
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    with atomic_write(path) as unfinished:
        unfinished.write_text("".join(line for line in lines if _place(line) <= (epoch, iters)), encoding="utf-8")


def _place(line: str) -> tuple[int, int]:
    """The epoch and the images of it that a line speaks of; before all others for a header."""
    place = POSITION_RE.match(line)
    return (int(place["epoch"]), int(place["iters"])) if place else (0, 0)
