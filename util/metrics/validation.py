"""Evaluation during training: translate the same images again and again, compute metrics, and save the best weights."""

import copy
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from util.errors import UserError, is_out_of_memory
from util.images import describe_skipped
from util.metrics.base import EvalImages, MetricResult
from util.metrics.evaluator import MetricEvaluator, format_metric
from util.metrics.feature_extractors import Images, ReferenceSet
from util.runtime.rng import fork_rng_seeded

Size = tuple[int, int]  # width and height in pixels


class EvalDataset(Protocol):
    """Images of an evaluation; implemented in data/eval_data.py.

    Files that cannot be used are added to `skipped`, path -> reason.
    """

    split: str
    skipped: dict[str, str]

    def check(self, needs_pairs: bool) -> Iterator[str]:
        """Yield lines about the images. Raise UserError if `needs_pairs` and there are none."""

    @property
    def channels(self) -> Mapping[str, str]:
        """Return `EvalImages.channels`."""

    def to_pixels(self, image: Tensor) -> np.ndarray:
        """Return the pixels that metrics compare of an image (1, C, H, W) in [-1, 1]."""

    def inputs(self) -> Iterator[tuple[Tensor, str]]:
        """Yield each image to translate, (1, C, H, W) in [-1, 1], and its name."""

    def real_images(self, size: Size | None) -> Images:
        """Return the images of the target domain, resized if `size` is given."""

    def targets(self, names: Sequence[str], size: Size | None) -> Iterable[np.ndarray | None]:
        """Return the target image of each name, or None if there is none."""


class Visualizer(Protocol):
    """Part of util/visualizer.py that an evaluation uses."""

    def pause_timer(self) -> AbstractContextManager[None]:
        """Exclude the body from the measured times."""

    def log_metrics(self, values: Mapping[str, float], results: Sequence[Mapping[str, Any]] = ()) -> None:
        """Log metric values, and the full results."""

    def print(self, line: str) -> None:
        """Print a line."""


class Validator:
    """Evaluates the generators of a run, logs the metrics, and reports when one of them reaches a new best value.

    Training is unaffected: copies of the networks translate, in their current mode as in test.py, and the random state is
    restored. The last and best values belong to the state of the run (`state_dict`).

    Args:
        evaluator: computes the metrics; at least one.
        dataset: the images to translate, and those to compare the translations with.
        generators: the networks to evaluate, by name. The first is the newest generator, others are its EMA.
        on_best: called with the name of a generator that has a new best value.
        device: device of the networks.
        best_by: name of the metric that decides, such as "FID"; None: the first one.
    """

    def __init__(
        self,
        evaluator: MetricEvaluator,
        dataset: EvalDataset,
        generators: Mapping[str, nn.Module],
        on_best: Callable[[str], None],
        device: torch.device,
        best_by: str | None = None,
    ) -> None:
        self.evaluator = evaluator
        self.best_by = best_by
        self.dataset = dataset
        self.generators = generators
        self.on_best = on_best
        self.device = device
        self.last: dict[str, dict[str, Any]] = {}  # by generator: figure (name of the metric), value, epoch, images
        self.best: dict[str, dict[str, Any]] = {}
        self.real_sets: dict[Size | None, ReferenceSet] = {}

    def check(self) -> Iterator[str]:
        """Yield lines about the images before training starts. Raise UserError if none can ever be evaluated."""
        return self.dataset.check(needs_pairs=self.evaluator.needs("paired"))

    def run(self, epoch: int, images: int, visualizer: Visualizer) -> None:
        """Evaluate the run after so many training images, unless that was done already.

        If it fails, print a warning. Training continues, and the next evaluation tries again.
        """
        if any(last["images"] == images for last in self.last.values()):
            return
        with visualizer.pause_timer():
            self.dataset.skipped.clear()
            try:
                results = {name: self._evaluate(network) for name, network in self.generators.items()}
                deciding = {name: self._deciding(metrics) for name, metrics in results.items()}
            except (UserError, RuntimeError, MemoryError) as error:
                if not isinstance(error, UserError) and not is_out_of_memory(error):
                    raise
                reason = error if isinstance(error, UserError) else "out of memory"
                visualizer.print(f"warning: no evaluation after {images} images, the next one tries again: {reason}")
                return
            finally:
                if self.dataset.skipped:
                    visualizer.print(f"evaluation: {describe_skipped(self.dataset.skipped)}")
                    self.real_sets.clear()  # the next evaluation reads the skipped files again
            self._log(results, deciding, epoch, images, visualizer)

    def _log(
        self,
        results: Mapping[str, Sequence[MetricResult]],
        deciding: Mapping[str, MetricResult],
        epoch: int,
        images: int,
        visualizer: Visualizer,
    ) -> None:
        newest = next(iter(self.generators))
        values: dict[str, float] = {}
        rows: list[dict[str, Any]] = []
        for name, metrics in results.items():
            suffix = "" if name == newest else f" of {name}"
            values |= {f"{result.name}{suffix}": result.value for result in metrics}
            rows += [{"judged": name} | result.to_row() for result in metrics]
            is_best = self._update_best(name, deciding[name], epoch, images)
            shown = ", ".join(f"{result.name} {format_metric(result)}" for result in metrics)
            best = " (best)" if is_best else ""
            visualizer.print(f"evaluation of {name} after {images} images, {self.dataset.split}: {shown}{best}")
            if is_best:
                self.on_best(name)
        visualizer.log_metrics(values, rows)

    def summary(self) -> Iterator[str]:
        """Yield a line with the last and the best value of each generator."""
        for name, last in self.last.items():
            best = self.best[name]
            weights = "best_net_*.pth" if name == next(iter(self.generators)) else f"best_net_{name}.pth"
            yield (
                f"{last['figure']} of {name} on {self.dataset.split}: last {last['value']:.4g} (epoch {last['epoch']}), "
                f"best {best['value']:.4g} (epoch {best['epoch']}, after {best['images']} images: {weights})"
            )

    def state_dict(self) -> dict[str, Any]:
        """Return the last and best values as text, so that a resumed run saves the same bytes as an uninterrupted one."""
        return {"figures": json.dumps([self.last, self.best])}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load what `state_dict` returned; {} comes from a run that was not evaluated."""
        if state:
            self.last, self.best = json.loads(state["figures"])

    def _deciding(self, metrics: Sequence[MetricResult]) -> MetricResult:
        """Return the result that decides which weights are the best. Raise UserError if it was not computed."""
        for result in metrics:
            if self.best_by in (None, result.metric):
                return result
        raise UserError(f"--best_by {self.best_by}: not computed. Choose from {', '.join(each.metric for each in metrics)}.")

    def _update_best(self, name: str, result: MetricResult, epoch: int, images: int) -> bool:
        """Store the value. Return True if it is the best of this metric so far."""
        self.last[name] = {"figure": result.name, "value": result.value, "epoch": epoch, "images": images}
        best = self.best.get(name)
        sign = -1 if result.lower_is_better else 1
        is_best = (
            best is None
            or best["figure"] != result.name
            or math.isnan(best["value"])  # no value compares as better than NaN
            or sign * result.value > sign * best["value"]
        )
        if is_best:
            self.best[name] = self.last[name]
        return is_best

    def _evaluate(self, network: nn.Module) -> list[MetricResult]:
        results, sources, names = self._translate(copy.deepcopy(network))
        sizes = {(image.shape[1], image.shape[0]) for image in results}
        size = next(iter(sizes)) if len(sizes) == 1 else None
        needs = self.evaluator.needs
        if needs("distribution") and size not in self.real_sets:
            self.real_sets[size] = ReferenceSet(self.dataset.real_images(size))
        images = EvalImages(
            results,
            real=self.real_sets.get(size),
            target=self.dataset.targets(names, size) if needs("paired") else None,
            source=sources or None,
            channels=self.dataset.channels,
        )
        return self.evaluator.evaluate(images, self.dataset.split)

    def _translate(self, network: nn.Module) -> tuple[list[np.ndarray], list[np.ndarray], list[str]]:
        """Return translations and sources as test.py saves them, and their names. No sources if no metric reads them."""
        results, sources, names = [], [], []
        needs_sources = self.evaluator.needs("faithfulness")
        with fork_rng_seeded(self.evaluator.seed), torch.inference_mode():
            for image, name in tqdm(self.dataset.inputs(), desc="evaluating", unit=" images", leave=False, disable=None):
                results.append(self.dataset.to_pixels(network(image.to(self.device))))
                if needs_sources:
                    sources.append(self.dataset.to_pixels(image))
                names.append(name)
        return results, sources, names
