"""Judging a run while it goes on: the same images are translated again and again, and the best weights kept."""

import copy
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from util.errors import UserError
from util.images import tensor2im, to_rgb
from util.metrics.evaluator import Images, MetricEvaluator, MetricResult, ReferenceSet, format_metric
from util.runtime.rng import fork_rng_seeded

Size = tuple[int, int]


class EvalDataset(Protocol):
    """What a run is judged on; see data/eval_data.py."""

    split: str

    def inputs(self) -> Iterator[tuple[Tensor, str]]:
        """Each image to translate, (1, C, H, W) in [-1, 1], and its name."""

    def real_images(self, size: Size | None) -> Images:
        """The images of the target domain, resized where a size is given."""

    def targets(self, names: Sequence[str], size: Size | None) -> Images:
        """Those of these names."""


class Report(Protocol):
    """Who is told; see training_report.py."""

    def aside(self) -> AbstractContextManager[None]:
        """Measures no time while it is entered."""

    def evaluation(self, figures: Mapping[str, float], taken_with: Sequence[Mapping[str, Any]] = ()) -> None:
        """Is told figures, and how they were taken."""

    def say(self, line: str) -> None:
        """Prints a line."""


class NoValidation:
    """Stands in for an evaluation that is not asked for."""

    def at(self, epoch: int, images: int, report: Report) -> None:
        """Does nothing."""

    def summary(self) -> Iterator[str]:
        """Nothing."""
        yield from ()

    def state_dict(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Does nothing."""


class Validator:
    """Judges the generators of a run, tells the report, and has the best weights kept by the first of the figures.

    Training does not notice: it is copies that translate, in the mode that their networks are in, as test.py has it, and
    no random state is touched. What is best so far belongs to the state of a run (`state_dict`).

    Args:
        judge: computes the figures.
        images: what is translated, and what the translations are compared with.
        candidates: the networks to judge, by name; the first is the newest generator.
        keep: is told the name of the candidate that has just been better than ever.
        device: where the networks are.
    """

    def __init__(
        self,
        judge: MetricEvaluator,
        images: EvalDataset,
        candidates: Mapping[str, nn.Module],
        keep: Callable[[str], None],
        device: torch.device,
    ) -> None:
        self.judge = judge
        self.images = images
        self.candidates = candidates
        self.keep = keep
        self.device = device
        self.last: dict[str, dict[str, Any]] = {}  # by candidate: figure, value, epoch, images
        self.best: dict[str, dict[str, Any]] = {}
        self.real_sets: dict[Size | None, ReferenceSet] = {}
        self.is_off = False

    def at(self, epoch: int, images: int, report: Report) -> None:
        """Judges the run as it is now, after so many images, unless that is done; what prevents it is told, once."""
        if self.is_off or any(last["images"] == images for last in self.last.values()):
            return
        with report.aside():
            self._judge(epoch, images, report)

    def _judge(self, epoch: int, images: int, report: Report) -> None:
        try:
            judged = {name: self._figures(network) for name, network in self.candidates.items()}
        except UserError as error:
            report.say(f"note: the run cannot be judged, training goes on without: {error}")
            self.is_off = True
            return
        values: dict[str, float] = {}
        records: list[dict[str, Any]] = []
        for name, figures in judged.items():
            of = "" if name == next(iter(self.candidates)) else f" of {name}"
            values |= {f"{figure.name}{of}": figure.value for figure in figures}
            records += [{"judged": name} | figure.record() for figure in figures]
            is_best = self._note(name, figures[0], epoch, images)
            shown = ", ".join(f"{figure.name} {format_metric(figure)}" for figure in figures)
            report.say(f"evaluation of {name} after {images} images, {self.images.split}: {shown}{' (best)' * is_best}")
            if is_best:
                self.keep(name)
        report.evaluation(values, records)

    def summary(self) -> Iterator[str]:
        """A line for each candidate that was judged."""
        for name, last in self.last.items():
            best = self.best[name]
            weights = "best_net_*.pth" if name == next(iter(self.candidates)) else f"best_net_{name}.pth"
            yield (
                f"{last['figure']} of {name} on {self.images.split}: last {last['value']:.4g} (epoch {last['epoch']}), "
                f"best {best['value']:.4g} (epoch {best['epoch']}, after {best['images']} images: {weights})"
            )

    def state_dict(self) -> dict[str, Any]:
        """The last and the best figures, as text: a run that was resumed then leaves the same bytes as one that was not."""
        return {"figures": json.dumps([self.last, self.best])}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes back what `state_dict` gave; a run that was not judged before gave nothing."""
        if state:
            self.last, self.best = json.loads(state["figures"])

    def _note(self, name: str, figure: MetricResult, epoch: int, images: int) -> bool:
        """Remembers the figure, and tells whether it is the best of its kind so far."""
        self.last[name] = {"figure": figure.name, "value": figure.value, "epoch": epoch, "images": images}
        best = self.best.get(name)
        sign = -1 if figure.lower_is_better else 1
        is_best = best is None or best["figure"] != figure.name or sign * figure.value > sign * best["value"]
        if is_best:
            self.best[name] = self.last[name]
        return is_best

    def _figures(self, network: nn.Module) -> list[MetricResult]:
        results, names = self._translated(copy.deepcopy(network))
        sizes = {(image.shape[1], image.shape[0]) for image in results}
        size = next(iter(sizes)) if len(sizes) == 1 else None
        if self.judge.networks and size not in self.real_sets:
            self.real_sets[size] = ReferenceSet(self.images.real_images(size))
        truth = self.images.targets(names, size) if self.judge.needs_pairs else None
        return self.judge.figures(results, self.real_sets.get(size), truth, self.images.split)

    def _translated(self, network: nn.Module) -> tuple[list[np.ndarray], list[str]]:
        """The translations as they would be saved, and the names of their inputs."""
        results, names = [], []
        with fork_rng_seeded(self.judge.seed), torch.inference_mode():
            for image, name in tqdm(self.images.inputs(), desc="judging", unit=" images", leave=False, disable=None):
                results.append(to_rgb(tensor2im(network(image.to(self.device)))))
                names.append(name)
        return results, names
