"""metrics.jsonl: its rows, and resuming."""

import json

import pytest

from util.loggers.base import TrainingPosition
from util.train_log import MetricsLog, metric_results, read_metrics


def position(epochs_done: float) -> TrainingPosition:
    return TrainingPosition(int(epochs_done) + 1, epochs_done, round(epochs_done * 10))


def losses(path) -> list[float]:
    return [row["losses"]["G"] for row in read_metrics(path)]


def run(path, start: float, *positions: float) -> None:
    """Start or resume a run at `start`, and log a loss at each position that equals the position."""
    log = MetricsLog(path)
    log.truncate_after(position(start))
    for epochs_done in positions:
        log.add(position(epochs_done), {"losses": {"G": epochs_done}})


def test_a_row_has_the_position_and_the_values(tmp_path) -> None:
    log = MetricsLog(tmp_path / "run" / "metrics.jsonl")
    log.add(TrainingPosition(3, 2.5, 100), {"learning_rate": 0.0002, "losses": {"G": 1.0}})
    (line,) = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line) == {
        "epoch": 3,
        "epochs_done": 2.5,
        "images": 100,
        "learning_rate": 0.0002,
        "losses": {"G": 1.0},
    }
    assert log.rows == [json.loads(line)]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_nan_and_infinity_are_null(tmp_path, value: float) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.add(position(1), {"losses": {"G": value, "D": 1.0}})
    row = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=pytest.fail)
    assert row["losses"] == {"G": None, "D": 1.0}


def test_a_resumed_run_logs_no_position_twice(tmp_path) -> None:
    path = tmp_path / "metrics.jsonl"
    run(path, 0, 0.5, 1.0, 1.5, 2.0)
    run(path, 1.0, 1.5, 2.0)
    assert losses(path) == [0.5, 1.0, 1.5, 2.0]
    run(path, 1.7, 1.9)
    assert losses(path) == [0.5, 1.0, 1.5, 1.9]


def test_a_restarted_run_removes_the_earlier_rows(tmp_path) -> None:
    path = tmp_path / "metrics.jsonl"
    run(path, 0, 0.5, 1.0)
    run(path, 0, 0.25)
    assert losses(path) == [0.25]


def test_truncated_lines_are_skipped(tmp_path) -> None:
    path = tmp_path / "metrics.jsonl"
    run(path, 0, 0.5, 1.0)
    with path.open("ab") as log:
        log.write(b'[1]\n{"epoch": 1}\n\xff\x00\n{"epoch": 2, "epochs_do')
    run(path, 1.5, 2.0)
    assert losses(path) == [0.5, 1.0, 2.0]
    assert len(path.read_text().splitlines()) == 3
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_run_without_a_file_has_no_rows(tmp_path) -> None:
    assert list(read_metrics(tmp_path / "metrics.jsonl")) == []


def test_metric_results_are_named_after_the_network_unless_it_is_the_first() -> None:
    stored = [{"judged": network, "name": "FID", "value": 1.0} for network in ("G_A", "G_A_ema")]
    assert metric_results({"epochs_done": 1, "taken_with": stored}) == {"FID": stored[0], "FID of G_A_ema": stored[1]}
    assert metric_results({"epochs_done": 1, "losses": {"G": 1.0}}) == {}
