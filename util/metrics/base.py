"""Interface between a metric and the evaluator: the images a metric reads, the values it returns, its registry entry."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import torch

from util.metrics.feature_extractors import Images, ReferenceSet


@dataclass(frozen=True)
class EvalImages:
    """Images of one evaluation. An evaluator needs only those that its kinds of metrics read.

    Attributes:
        results: translations.
        real: images of the target domain, in any order and number (distribution metrics).
        target: the ground truth of each translation, in the order of `results`; None for a translation without one
            (paired metrics, which read it through `pairs`).
        source: the input of each translation, in the order of `results` (faithfulness metrics).
        channels: which channels metrics of all and of three channels use, in words, and the value range; empty for 8-bit
            images of 1 or 3 channels.
    """

    results: Images
    real: ReferenceSet | None = None
    target: Iterable[np.ndarray | None] | None = None
    source: Images | None = None
    channels: Mapping[str, str] = field(default_factory=dict)

    def pairs(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield each translation that has a ground truth, with the ground truth."""
        assert self.target is not None
        return ((result, target) for result, target in zip(self.results, self.target, strict=True) if target is not None)


@dataclass(frozen=True)
class Measurement:
    """A value that a metric computed.

    Attributes:
        metric: key of the spec's `lower_is_better`, such as "FID".
        value: mean over the images.
        settings: what the value depends on, for JSON: resize, network, SHA-256 of its weights.
        std: standard deviation, for a metric that has one.
        variant: inserted after the metric's name, such as "legacy" or "(squeezenet1_1)".
    """

    metric: str
    value: float
    settings: Mapping[str, Any]
    std: float | None = None
    variant: str = ""


class Metric(Protocol):
    """One metric, or several that share their computation."""

    def measure(self, images: EvalImages) -> Iterable[Measurement]:
        """Compute the values. Raise UserError if there are too few images or an image has the wrong size."""


Kind = Literal["distribution", "paired", "faithfulness"]


@dataclass(frozen=True)
class MetricSpec:
    """An entry of the METRICS registry: what option `--<key>` computes.

    Attributes:
        kind: the images that the metric compares the translations with: "distribution" reads `EvalImages.real`,
            "paired" `target`, "faithfulness" `source`.
        lower_is_better: direction of each metric, by the name that `Measurement.metric` uses.
        argument: keyword arguments of `ArgumentParser.add_argument` for `--<key>`. None and False mean: not requested.
        load: create the metric from the option's value, the device and the seed. Load or download pretrained weights.
            Raise WeightsAbsentError if they are unavailable.
        packages: optional packages that must be installed, by their import names.
        uses_all_channels: it compares all channels of an image; False: the three that are shown.
    """

    kind: Kind
    lower_is_better: Mapping[str, bool]
    argument: Mapping[str, Any]
    load: Callable[[Any, torch.device, int], Metric]
    packages: tuple[str, ...] = ()
    uses_all_channels: bool = False


@dataclass(frozen=True)
class MetricResult:
    """Value of a metric on a set of translations.

    Attributes:
        name: name with its variant, such as "FID legacy".
        value: mean over the images.
        lower_is_better: direction of the metric.
        settings: what the value depends on: split, number of images, seed, resize, weights.
        std: standard deviation, for a metric that has one.
        metric: name without its variant, such as "FID".
    """

    name: str
    value: float
    lower_is_better: bool
    settings: Mapping[str, Any] = field(default_factory=dict)
    std: float | None = None
    metric: str = ""

    def to_row(self) -> dict[str, Any]:
        """Return the result as one flat JSON object. An infinite value (PSNR of equal images) becomes None."""
        value = self.value if math.isfinite(self.value) else None
        row = {"name": self.name, "value": value, "lower_is_better": self.lower_is_better, "spread": self.std}
        return row | dict(self.settings)
