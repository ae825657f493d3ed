"""The visualizer as a whole: console, log files, page and loggers."""

import errno
import json
import re
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import SimpleNamespace
from typing import Self

import pytest
import torch
from page_reader import facts_of, read_page

from util import timing, visualizer
from util.errors import DivergedError
from util.html.fixed_samples import FixedSamples
from util.loggers.base import Logger, LoggerGroup, TrainingPosition
from util.signals import Terminated
from util.visualizer import Visualizer

PAGE = "cats/web/index.html"
VISUALS = {"real_A": torch.zeros(1, 3, 4, 4), "fake_B": torch.zeros(1, 3, 4, 4)}


class RecordingLogger(Logger):
    """A logger that stores its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple] = []

    @staticmethod
    def add_arguments(group) -> None: ...

    @classmethod
    def from_options(cls, opt, run_dir) -> Self:
        return cls()

    def start(self, print_fn: Callable[[str], None]) -> None:
        print_fn("line of the logger")

    def log_scalars(self, chart: str, position: TrainingPosition, values: Mapping[str, float]) -> None:
        self.calls.append((chart, position, dict(values)))

    def log_images(self, position: TrainingPosition, visuals: Mapping[str, torch.Tensor]) -> None:
        self.calls.append(("images", position, list(visuals)))

    def close(self) -> None:
        self.calls.append(("close",))


class Clock:
    """A wall clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    for module in (visualizer, timing):
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=clock.perf_counter))
    return clock


def visualizer_in(folder, logger=None, first_epoch=1, web_page=True, resumed_after=None, samples=None) -> Visualizer:
    return Visualizer(
        folder / "cats",
        "cats",
        first_epoch,
        2,
        images_per_epoch=5,
        web_page=web_page,
        loggers=LoggerGroup([logger] if logger else []),
        resumed_after=resumed_after,
        samples=samples,
    )


def batches(clock: Clock, seconds: float = 0.4):
    """Yield five images in batches of two; loading each batch takes `seconds`."""
    for images in (2, 2, 1):
        clock.now += seconds
        yield {"A": torch.zeros(images, 3, 4, 4)}


def test_a_run_writes_lines_a_log_and_a_page(tmp_path, capsys, clock) -> None:
    with visualizer_in(tmp_path) as vis:
        for epoch in (1, 2):
            for _ in vis.iterate(epoch, batches(clock)):
                clock.now += 1.0
                vis.log_losses({"G_GAN": 0.5619, "D_real": 0.1306}, 0.0002)
                vis.log_images(VISUALS, to_page=True)
            clock.now += 100.0  # time between epochs belongs to no step
            vis.end_epoch(0.0002, 0.0001)
    step = "time: {}, data: {}) G_GAN: 0.562 D_real: 0.131 "
    printed = [
        line
        for epoch in (1, 2)
        for line in (
            f"(epoch: {epoch}, iters: 2, " + step.format("0.500", "0.200"),
            f"(epoch: {epoch}, iters: 4, " + step.format("0.500", "0.200"),
            f"(epoch: {epoch}, iters: 5, " + step.format("1.000", "0.400"),
            f"End of epoch {epoch} / 2 \t Time Taken: 104 sec \t lr 0.0002000 -> 0.0001000",
        )
    ]
    out, err = capsys.readouterr()
    printed.insert(1, "remaining time: about 6 s, 0.700 s per image")
    assert out.splitlines() == printed
    assert err == ""
    log = (tmp_path / "cats/loss_log.txt").read_text().splitlines()
    assert re.match(r"=+ Training Loss \(", log[0])
    assert log[1:] == [line for line in printed if line.startswith("(")]
    assert read_page(tmp_path / PAGE).text_of("h2") == ["epoch 2", "epoch 1"]


def test_losses_and_metrics_are_logged_and_plotted(tmp_path, clock) -> None:
    logger = RecordingLogger()
    with visualizer_in(tmp_path, logger) as vis:
        for _ in vis.iterate(1, batches(clock)):
            vis.log_losses({"G": 1.5}, 0.0002)
        vis.log_metrics({"FID": 61.7})
        vis.log_images(VISUALS, to_page=True)
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
    assert ("evaluation", TrainingPosition(1, 1.0, 5), {"FID": 61.7}) in logger.calls
    assert read_page(tmp_path / PAGE).text_of("b")[:2] == ["G", "FID"]


def test_a_run_resumed_within_an_epoch_logs_nothing_twice(tmp_path, clock) -> None:
    with visualizer_in(tmp_path) as vis:
        for _ in vis.iterate(1, batches(clock)):
            vis.log_losses({"G": 1.0}, 0.0002)
    with visualizer_in(tmp_path) as vis:
        for _ in vis.iterate(1, list(batches(clock))[1:], images_done=2):
            vis.log_losses({"G": 2.0}, 0.0002)
    rows = [json.loads(line) for line in (tmp_path / "cats/metrics.jsonl").read_text().splitlines()]
    assert [(row["images"], row["losses"]["G"]) for row in rows] == [(2, 1.0), (4, 2.0), (5, 2.0)]


def test_times_are_means_over_the_images_since_the_last_line(tmp_path, capsys, clock) -> None:
    with visualizer_in(tmp_path) as vis:
        for number, _ in enumerate(vis.iterate(1, batches(clock))):
            clock.now += 2.0 if number == 0 else 0.0
            if number == 1:
                vis.log_losses({}, 0.0002)
    assert capsys.readouterr().out.startswith("(epoch: 1, iters: 4, time: 0.500, data: 0.200) \n")


def test_a_resumed_run_extends_log_and_page(tmp_path, clock) -> None:
    for first_epoch in (1, 2):
        with visualizer_in(tmp_path, first_epoch=first_epoch) as vis:
            for _ in vis.iterate(first_epoch, batches(clock)):
                vis.log_losses({"G": 1.0}, 0.0002)
                vis.log_images(VISUALS, to_page=True)
    log = (tmp_path / "cats/loss_log.txt").read_text()
    assert log.count("Training Loss") == 2
    assert len(re.findall(r"^\(epoch: 1, ", log, flags=re.MULTILINE)) == 3
    assert read_page(tmp_path / PAGE).text_of("h2") == ["epoch 2", "epoch 1"]


def test_a_resumed_run_removes_the_lines_that_it_will_log_again(tmp_path, clock) -> None:
    for resumed_after in (None, 2):
        with visualizer_in(tmp_path, resumed_after=resumed_after) as vis:
            for _ in vis.iterate(1, batches(clock), images_done=resumed_after or 0):
                vis.log_losses({"G": 1.0}, 0.0002)
    lines = (tmp_path / "cats/loss_log.txt").read_text().splitlines()
    assert [line.partition(", time")[0] for line in lines if line.startswith("(")] == [
        "(epoch: 1, iters: 2",
        *(f"(epoch: 1, iters: {images}" for images in (4, 6, 7)),
    ]


def test_loggers_receive_losses_and_images(tmp_path, capsys, clock) -> None:
    logger = RecordingLogger()
    with visualizer_in(tmp_path, logger, web_page=False) as vis:
        for _ in vis.iterate(2, batches(clock)):
            vis.log_losses({"G": 1.0}, 0.0002)
        vis.log_images(VISUALS, to_page=False)
    assert logger.calls == [
        ("losses", TrainingPosition(2, 1.4, 7), {"G": 1.0}),
        ("losses", TrainingPosition(2, 1.8, 9), {"G": 1.0}),
        ("losses", TrainingPosition(2, 2.0, 10), {"G": 1.0}),
        ("images", TrainingPosition(2, 2.0, 10), ["real_A", "fake_B"]),
        ("close",),
    ]
    assert capsys.readouterr().out.startswith("line of the logger\n")


@pytest.mark.parametrize("web_page", [False, True])
def test_the_page_is_written_if_requested_and_its_images_when_due(tmp_path, clock, web_page: bool) -> None:
    with visualizer_in(tmp_path, web_page=web_page) as vis:
        assert (tmp_path / PAGE).exists() == web_page
        assert vis.lacks_images == web_page
        for _ in vis.iterate(1, batches(clock)):
            vis.log_images(VISUALS, to_page=False)
        assert not (tmp_path / "cats/web/images").exists()
        vis.log_images(VISUALS, to_page=True)
        assert not vis.lacks_images
    assert (tmp_path / "cats/web/images").exists() == web_page


def test_the_page_says_speed_and_time_left(tmp_path, clock) -> None:
    with visualizer_in(tmp_path) as vis:
        for _ in vis.iterate(1, batches(clock, seconds=100)):
            pass
        vis.log_images(VISUALS, to_page=True)
        # Three images in 200 seconds after the first step, and five images are left.
        expected = {"status": "running", "epoch": "1 of 2", "speed": "0.015 images/s", "time left": "6 min"}
        assert facts_of(tmp_path / PAGE).items() >= expected.items()
        next(vis.iterate(2, batches(clock)))
        vis.page._written_at -= 3600
        vis.log_losses({"G": 1.0}, 0.0002)  # without new images
        assert facts_of(tmp_path / PAGE)["epoch"] == "2 of 2"
    assert "time left" not in facts_of(tmp_path / PAGE)


class OutOfMemory(torch.nn.Identity):
    """A generator whose output does not fit into memory."""

    def set_rng(self, rng: torch.Generator) -> None: ...

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("CUDA out of memory. Tried to allocate 9 GiB")


def test_all_images_of_the_page_have_the_same_width(tmp_path) -> None:
    samples = FixedSamples({"cat": torch.zeros(1, 3, 4, 4)}, {"G": OutOfMemory()}, torch.device("cpu"), 0, 16)
    with Visualizer(
        tmp_path / "cats", "cats", 1, 2, 5, web_page=True, loggers=LoggerGroup(), samples=samples, image_width=100
    ):
        cards = [found for _, found in read_page(tmp_path / PAGE).elements if found.get("class") == "cards"]
    assert [found["style"].rpartition("--image-width: ")[2] for found in cards] == ["100px", "100px"]


def test_a_run_continues_without_fixed_samples_if_they_do_not_fit_into_memory(tmp_path, clock, capsys) -> None:
    samples = FixedSamples({"cat": torch.zeros(1, 3, 4, 4)}, {"G": OutOfMemory()}, torch.device("cpu"), 0, 16)
    with visualizer_in(tmp_path, samples=samples) as vis:
        for _ in vis.iterate(1, batches(clock)):
            vis.log_images(VISUALS, to_page=True)
    warning = "warning: the training page has no fixed samples from now on: out of memory\n"
    assert capsys.readouterr().out.count(warning) == 1
    assert read_page(tmp_path / PAGE).text_of("h2") == ["epoch 1"]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (None, {"status": "finished"}),
        (KeyboardInterrupt(), {"status": "stopped"}),
        (Terminated(signal.SIGTERM), {"status": "stopped", "reason": "SIGTERM"}),
        (DivergedError("loss G is nan"), {"status": "diverged", "reason": "loss G is nan"}),
        (MemoryError(), {"status": "stopped", "reason": "MemoryError"}),
    ],
)
def test_the_page_says_how_the_run_has_ended(tmp_path, error: BaseException | None, expected: dict[str, str]) -> None:
    with suppress(type(error) if error else ()), visualizer_in(tmp_path):
        if error:
            raise error
    facts = facts_of(tmp_path / PAGE)
    assert {name: facts.get(name) for name in ("status", "reason")} == {"reason": None} | expected


def test_a_full_disk_at_the_end_does_not_hide_the_error(tmp_path, monkeypatch) -> None:
    def full(*_, **__) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(DivergedError), visualizer_in(tmp_path) as vis:
        monkeypatch.setattr(vis.page, "write", full)
        raise DivergedError("loss G is nan")


@pytest.mark.parametrize(
    ("seconds", "text"), [(40, "40 s"), (130, "2 min"), (3700, "1 h 2 min"), (100_000, "1 d 3 h"), (0, "0 s")]
)
def test_durations_are_readable(seconds: float, text: str) -> None:
    assert timing.format_duration(seconds) == text


def test_an_interrupted_run_closes_its_loggers(tmp_path) -> None:
    logger = RecordingLogger()
    with pytest.raises(KeyboardInterrupt), visualizer_in(tmp_path, logger):
        raise KeyboardInterrupt
    assert logger.calls == [("close",)]


def test_other_ranks_log_nothing(tmp_path, clock, capsys, monkeypatch) -> None:
    monkeypatch.setattr(visualizer, "is_main_process", lambda: False)
    logger = RecordingLogger()
    with visualizer_in(tmp_path, logger) as vis:
        assert [len(batch["A"]) for batch in vis.iterate(1, batches(clock))] == [2, 2, 1]
        with vis.pause_timer():
            vis.log_losses({"G": 1.0}, 0.0002)
        vis.log_metrics({"FID": 61.7})
        vis.log_images(VISUALS, to_page=True)
        vis.print("line")
    assert logger.calls == []
    assert capsys.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []
