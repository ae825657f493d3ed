"""The report of a training loop as a whole: console, log, page and live view."""

import json
import re
from collections.abc import Callable, Mapping
from types import SimpleNamespace

import pytest
import torch
from page_reader import read_page

from util import visualizer
from util.loggers.base import LoggerGroup, TrainingPosition
from util.visualizer import Visualizer

VISUALS = {"real_A": torch.zeros(1, 3, 4, 4), "fake_B": torch.zeros(1, 3, 4, 4)}


class RecordingView:
    """A live view that remembers what it was given."""

    def __init__(self) -> None:
        self.calls: list[tuple] = []

    def start(self, say: Callable[[str], None]) -> None:
        say("the view speaks")

    def plot(self, chart: str, position: TrainingPosition, values: Mapping[str, float]) -> None:
        self.calls.append((chart, position, dict(values)))

    def images(self, position: TrainingPosition, visuals: Mapping[str, torch.Tensor]) -> None:
        self.calls.append(("pictures", position, list(visuals)))

    def close(self) -> None:
        self.calls.append(("close",))


class Clock:
    """A wall clock that stands still unless it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(visualizer, "time", SimpleNamespace(perf_counter=clock.perf_counter))
    return clock


def report_in(folder, live_view=None, first_epoch=1, web_page=True) -> Visualizer:
    return Visualizer(
        folder / "cats",
        "cats",
        first_epoch,
        2,
        images_per_epoch=5,
        web_page=web_page,
        live_view=live_view or LoggerGroup([]),
    )


def batches(clock: Clock, seconds: float = 0.4):
    """Five images in batches of two, each batch a while in coming."""
    for images in (2, 2, 1):
        clock.now += seconds
        yield {"A": torch.zeros(images, 3, 4, 4)}


def test_a_run_leaves_lines_a_log_and_a_page(tmp_path, capsys, clock) -> None:
    with report_in(tmp_path) as report:
        for epoch in (1, 2):
            for _ in report.epoch(epoch, batches(clock)):
                clock.now += 1.0
                report.losses({"G_GAN": 0.5619, "D_real": 0.1306}, 0.0002)
                report.visuals(VISUALS, to_page=True)
            clock.now += 100.0  # what happens between the epochs belongs to no step
            report.say(f"End of epoch {epoch} / 2")
    step = "time: {}, data: {}) G_GAN: 0.562 D_real: 0.131 "
    printed = [
        line
        for epoch in (1, 2)
        for line in (
            f"(epoch: {epoch}, iters: 2, " + step.format("0.500", "0.200"),
            f"(epoch: {epoch}, iters: 4, " + step.format("0.500", "0.200"),
            f"(epoch: {epoch}, iters: 5, " + step.format("1.000", "0.400"),
            f"End of epoch {epoch} / 2",
        )
    ]
    out, err = capsys.readouterr()
    assert out.splitlines() == printed
    assert err == ""
    log = (tmp_path / "cats/loss_log.txt").read_text().splitlines()
    assert re.match(r"=+ Training Loss \(", log[0])
    assert log[1:] == [line for line in printed if line.startswith("(")]
    assert read_page(tmp_path / "cats/web/index.html").text_of("h2") == ["epoch 2", "epoch 1"]


def test_losses_and_evaluations_are_figures_for_programs_and_curves_on_the_page(tmp_path, clock) -> None:
    view = RecordingView()
    with report_in(tmp_path, view) as report:
        for _ in report.epoch(1, batches(clock)):
            report.losses({"G": 1.5}, 0.0002)
        report.evaluation({"FID": 61.7})
        report.visuals(VISUALS, to_page=True)
    lines = (tmp_path / "cats/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines[:1] + lines[-1:]] == [
        {
            "epoch": 1,
            "epochs_done": 0.4,
            "images": 2,
            "learning_rate": 0.0002,
            "seconds_per_image": 0.0,
            "data_seconds_per_image": 0.2,
            "losses": {"G": 1.5},
        },
        {"epoch": 1, "epochs_done": 1.0, "images": 5, "evaluation": {"FID": 61.7}},
    ]
    assert ("evaluation", TrainingPosition(1, 1.0, 5), {"FID": 61.7}) in view.calls
    assert read_page(tmp_path / "cats/web/index.html").text_of("b")[:2] == ["FID", "G"]


def test_a_run_resumed_within_an_epoch_tells_nothing_twice(tmp_path, clock) -> None:
    with report_in(tmp_path) as report:
        for _ in report.epoch(1, batches(clock)):
            report.losses({"G": 1.0}, 0.0002)
    with report_in(tmp_path) as report:
        for _ in report.epoch(1, list(batches(clock))[1:], images_done=2):
            report.losses({"G": 2.0}, 0.0002)
    records = [json.loads(line) for line in (tmp_path / "cats/metrics.jsonl").read_text().splitlines()]
    assert [(record["images"], record["losses"]["G"]) for record in records] == [(2, 1.0), (4, 2.0), (5, 2.0)]


def test_times_are_means_over_the_images_since_the_last_line(tmp_path, capsys, clock) -> None:
    with report_in(tmp_path) as report:
        for number, _ in enumerate(report.epoch(1, batches(clock))):
            clock.now += 2.0 if number == 0 else 0.0
            if number == 1:
                report.losses({}, 0.0002)
    assert capsys.readouterr().out == "(epoch: 1, iters: 4, time: 0.500, data: 0.200) \n"


def test_a_continued_run_adds_to_log_and_page(tmp_path, clock) -> None:
    for first_epoch in (1, 2):
        with report_in(tmp_path, first_epoch=first_epoch) as report:
            for _ in report.epoch(first_epoch, batches(clock)):
                report.losses({"G": 1.0}, 0.0002)
                report.visuals(VISUALS, to_page=True)
    log = (tmp_path / "cats/loss_log.txt").read_text()
    assert log.count("Training Loss") == 2
    assert len(re.findall(r"^\(epoch: 1, ", log, flags=re.MULTILINE)) == 3
    assert read_page(tmp_path / "cats/web/index.html").text_of("h2") == ["epoch 2", "epoch 1"]


def test_the_live_view_gets_losses_over_epochs_and_every_image(tmp_path, capsys, clock) -> None:
    view = RecordingView()
    with report_in(tmp_path, view, web_page=False) as report:
        for _ in report.epoch(2, batches(clock)):
            report.losses({"G": 1.0}, 0.0002)
        report.visuals(VISUALS, to_page=False)
    assert view.calls == [
        ("losses", TrainingPosition(2, 1.4, 7), {"G": 1.0}),
        ("losses", TrainingPosition(2, 1.8, 9), {"G": 1.0}),
        ("losses", TrainingPosition(2, 2.0, 10), {"G": 1.0}),
        ("pictures", TrainingPosition(2, 2.0, 10), ["real_A", "fake_B"]),
        ("close",),
    ]
    assert capsys.readouterr().out.startswith("the view speaks\n")


@pytest.mark.parametrize(("web_page", "to_page"), [(False, True), (True, False)])
def test_no_page_without_being_asked(tmp_path, clock, web_page: bool, to_page: bool) -> None:
    with report_in(tmp_path, web_page=web_page) as report:
        for _ in report.epoch(1, batches(clock)):
            report.visuals(VISUALS, to_page=to_page)
    assert not (tmp_path / "cats/web").exists()


def test_a_run_that_breaks_off_closes_its_view(tmp_path) -> None:
    view = RecordingView()
    with pytest.raises(KeyboardInterrupt), report_in(tmp_path, view):
        raise KeyboardInterrupt
    assert view.calls == [("close",)]
