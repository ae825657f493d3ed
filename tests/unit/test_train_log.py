import json

import pytest

from util.loggers.base import TrainingPosition
from util.train_log import MetricsLog, read_metrics


def position(epochs_done: float) -> TrainingPosition:
    return TrainingPosition(int(epochs_done) + 1, epochs_done, round(epochs_done * 10))


def losses(path) -> list[float]:
    return [record["losses"]["G"] for record in read_metrics(path)]


def run(path, start: float, *reports: float) -> None:
    """A start of a run at `start`, which reports at these moments a loss equal to them."""
    log = MetricsLog(path)
    log.truncate_after(position(start))
    for epochs_done in reports:
        log.add(position(epochs_done), {"losses": {"G": epochs_done}})


def test_a_line_is_an_object_with_its_moment_and_what_was_reported(tmp_path) -> None:
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
    assert log.records == [json.loads(line)]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_is_null(tmp_path, value: float) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.add(position(1), {"losses": {"G": value, "D": 1.0}})
    record = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=pytest.fail)
    assert record["losses"] == {"G": None, "D": 1.0}


def test_a_resumed_run_tells_nothing_twice(tmp_path) -> None:
    path = tmp_path / "metrics.jsonl"
    run(path, 0, 0.5, 1.0, 1.5, 2.0)
    run(path, 1.0, 1.5, 2.0)
    assert losses(path) == [0.5, 1.0, 1.5, 2.0]
    run(path, 1.7, 1.9)
    assert losses(path) == [0.5, 1.0, 1.5, 1.9]


def test_a_run_that_begins_anew_forgets_the_one_before(tmp_path) -> None:
    path = tmp_path / "metrics.jsonl"
    run(path, 0, 0.5, 1.0)
    run(path, 0, 0.25)
    assert losses(path) == [0.25]


def test_lines_cut_short_by_a_crash_are_left_out(tmp_path) -> None:
    path = tmp_path / "metrics.jsonl"
    run(path, 0, 0.5, 1.0)
    with path.open("ab") as log:
        log.write(b'[1]\n{"epoch": 1}\n\xff\x00\n{"epoch": 2, "epochs_do')
    run(path, 1.5, 2.0)
    assert losses(path) == [0.5, 1.0, 2.0]
    assert len(path.read_text().splitlines()) == 3
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_run_without_a_file_has_no_reports(tmp_path) -> None:
    assert list(read_metrics(tmp_path / "metrics.jsonl")) == []
