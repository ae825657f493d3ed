"""Log files of a run: metrics.jsonl for programs, loss_log.txt in the published format."""

import json
import math
import re
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from util.files import atomic_write
from util.loggers.base import TrainingPosition
from util.version import ProgramVersion

Row = Mapping[str, Any]  # a line of metrics.jsonl


class MetricsLog:
    """Log file metrics.jsonl. Each line is a JSON object with the training position and the values logged there.

        {"epoch": 1, "epochs_done": 0.5, "images": 100, "losses": {"G_GAN": 0.562, "D_real": 0.131}}

    NaN and infinity become null, because JSON has neither. The first row, and the first one after a change of the program,
    also has the key "program".

    Args:
        path: the file.
        program: version of the program that trains; None: leave it out.

    Attributes:
        rows: all rows so far, including those of the run before it was resumed.
    """

    def __init__(self, path: Path, program: ProgramVersion | None = None) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.program = program
        self.rows = list(read_metrics(path))

    def truncate_after(self, position: TrainingPosition) -> None:
        """Remove the rows after this position. A resumed run starts at its last checkpoint and logs these steps again."""
        self.rows = [row for row in self.rows if row["epochs_done"] <= position.epochs_done]
        with atomic_write(self.path) as tmp_path:
            tmp_path.write_text("".join(map(_line, self.rows)), encoding="utf-8")

    def add(self, position: TrainingPosition, values: Mapping[str, Any]) -> None:
        """Append a row. The file is closed after each row, so that a killed run loses none."""
        last_program = next((row["program"] for row in reversed(self.rows) if "program" in row), None)
        label = {"program": self.program} if self.program not in (None, last_program) else {}
        row = _finite({**asdict(position), **values, **label})
        self.rows.append(row)
        with self.path.open("a", encoding="utf-8") as log:
            log.write(_line(row))


def read_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of the file in order; none if there is no file. Skip lines that a crash has truncated."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("epochs_done"), int | float):
            yield row


def metric_results(row: Row) -> dict[str, dict[str, Any]]:
    """Return the metric results stored in a row, by the names of their curves.

    A name is "FID" for the newest generator, which comes first, and "FID of G_ema" for another network. A result has the
    keys `name`, `judged` (network), `value` (None: not finite), `lower_is_better`, and the settings of the metric.
    """
    results = row.get("taken_with", [])
    return {
        result["name"] if result["judged"] == results[0]["judged"] else f"{result['name']} of {result['judged']}": result
        for result in results
    }


def _line(row: Row) -> str:
    return json.dumps(row, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(inner) for name, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


POSITION_RE = re.compile(r"\(epoch: (?P<epoch>\d+), iters: (?P<iters>\d+), ")


def format_losses(
    epoch: int, iters: int, seconds_per_image: float, data_seconds_per_image: float, losses: Mapping[str, float]
) -> str:
    """Return one line of the log in the published format, which users' scripts parse.

    Args:
        epoch: counted from 1.
        iters: images so far in this epoch.
        seconds_per_image: time of a step, per image.
        data_seconds_per_image: time that the step waited for data, per image.
        losses: values by their published names.
    Returns:
        `(epoch: 1, iters: 100, time: 0.123, data: 0.004) G_GAN: 0.562 D_real: 0.131 `, without a newline.
    """
    head = f"(epoch: {epoch}, iters: {iters}, time: {seconds_per_image:.3f}, data: {data_seconds_per_image:.3f}) "
    return head + "".join(f"{name}: {value:.3f} " for name, value in losses.items())


# Losses whose names differ only in one of these endings share a name: "D .10/.12" are D_real and D_fake.
ENDING = re.compile(r"_(real|fake|A|B|Y)$")
SHORT_NAMES = {"G_GAN": "GAN", "D_R1": "R1", "cycle": "cyc"}


def format_losses_short(losses: Mapping[str, float]) -> str:
    """Return all losses in a text for a terminal of 80 columns, such as "GAN .67 D .10/.12 G 5.6 NCE 4.9/4.8"."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name, value in losses.items():
        shared = ENDING.sub("", name)
        groups[SHORT_NAMES.get(shared, shared)].append(format_short(value))
    return " ".join(f"{name} {'/'.join(values)}" for name, values in groups.items())


def format_short(value: float) -> str:
    """Return the value with two significant digits or its integer part: ".67", "4.9", "123"."""
    if abs(value) < 0.995:
        return f"{value:.2f}".replace("0.", ".", 1)
    return f"{value:.1f}" if abs(value) < 9.95 else f"{value:.0f}"


class LossLog:
    """Append-only file loss_log.txt: a header with the date for every start of the run, and lines of losses."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.write(f"================ Training Loss ({time.ctime()}) ================")

    def write(self, line: str) -> None:
        """Append a line. The file is closed after each line, so that a killed run loses none."""
        with self.path.open("a", encoding="utf-8") as log:
            log.write(line + "\n")


def truncate_loss_log(epoch: int, iters: int, path: Path) -> None:
    """Remove the lines after this position from the log, if there is one.

    A run that was killed resumes at its last checkpoint and logs the later steps again.
    """
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    with atomic_write(path) as tmp_path:
        tmp_path.write_text("".join(line for line in lines if _position(line) <= (epoch, iters)), encoding="utf-8")


def _position(line: str) -> tuple[int, int]:
    """Return the epoch and the images in it that a line reports; (0, 0) for a header."""
    position = POSITION_RE.match(line)
    return (int(position["epoch"]), int(position["iters"])) if position else (0, 0)
