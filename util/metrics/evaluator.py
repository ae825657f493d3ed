"""Every figure that was asked for, of a set of translations, with how it was taken."""

import importlib.util
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from util.errors import UserError
from util.metrics.distances import (
    K_NEAREST,
    KID_SUBSETS,
    check_min_images,
    frechet_distance,
    kid,
    precision_and_recall,
)
from util.metrics.feature_extractors import INCEPTION, FeatureExtractor, WeightsAbsentError, load_features, load_inception
from util.metrics.paired import LPIPS, mean_score
from util.runtime.rng import fork_rng_seeded

CACHE = "cache"  # what --inception means without a path


@dataclass(frozen=True)
class MetricConfig:
    """FID and its kin by `inception` (a path, or CACHE), the same by another `features` network's file, PSNR and SSIM of
    `paired` images, LPIPS of them by the network that `lpips` names."""

    inception: str | None = None
    features: str | None = None
    paired: bool = False
    lpips: str | None = None

    @property
    def distances(self) -> bool:
        """Whether distributions are to be compared."""
        return self.inception is not None or self.features is not None

    @property
    def pairs(self) -> bool:
        """Whether translations are to be compared with their own truth."""
        return self.paired or self.lpips is not None

    @property
    def anything(self) -> bool:
        """Whether a figure is asked for at all."""
        return self.pairs or self.distances


T = TypeVar("T")


class Images(Protocol):
    """Images, uint8 (H, W, 3) or (H, W), as they are saved; they may be read anew on each iteration."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[np.ndarray]: ...


@dataclass(frozen=True)
class MetricResult:
    """A number about a set of translations. `spread` is a standard deviation, where there is one; `how` says what the
    number was taken with: images, resize, weights, seed."""

    name: str
    value: float
    lower_is_better: bool
    how: dict[str, Any] = field(default_factory=dict)
    spread: float | None = None

    def record(self) -> dict[str, Any]:
        """The figure as one flat table, for JSON."""
        fields = asdict(self)
        taken_with = fields.pop("how")
        value = self.value if math.isfinite(self.value) else None  # PSNR of equal images, which JSON cannot say
        return {**fields, "value": value, **taken_with}


class ReferenceSet:
    """Real images of the target domain, whose features are computed once for each network and resize."""

    def __init__(self, images: Images) -> None:
        check_min_images(len(images), "the real set")
        self.images = images
        self._features: dict[tuple[FeatureExtractor, str], Tensor] = {}

    def __len__(self) -> int:
        return len(self.images)

    def features(self, network: FeatureExtractor, resize: str) -> Tensor:
        """(N, D) in float64."""
        if (network, resize) not in self._features:
            self._features[network, resize] = network.features(self.images, resize)
        return self._features[network, resize]


class MetricEvaluator:
    """Computes the figures that were asked for."""

    def __init__(
        self,
        networks: Sequence[FeatureExtractor],
        paired: bool,
        perceptual: LPIPS | None,
        seed: int,
    ) -> None:
        self.networks = networks
        self.paired = paired
        self.perceptual = perceptual
        self.seed = seed

    @property
    def has_figures(self) -> bool:
        """Whether there is anything to compute."""
        return bool(self.networks) or self.needs_pairs

    @property
    def needs_pairs(self) -> bool:
        """Whether translations are compared with their own truth."""
        return self.paired or self.perceptual is not None

    def figures(self, results: Images, real: ReferenceSet | None, truth: Images | None, split: str) -> list[MetricResult]:
        """The figures of these translations, against the real set, and against the truth of each, in the same order.

        `split` names the part of the dataset that they were taken on. Raises UserError where there are too few images,
        or an image does not fit.
        """
        taken_with = {"split": split, "pictures": len(results), "seed": self.seed}
        figures: list[MetricResult] = []
        if self.networks and real is not None:
            check_min_images(len(results), "the translations")
            for network in self.networks:
                figures += self._distances(network, results, real, taken_with)
        if truth is not None:
            figures += self._paired_figures(results, truth, taken_with)
        return figures

    def _distances(
        self, network: FeatureExtractor, results: Images, real: ReferenceSet, taken_with: Mapping[str, Any]
    ) -> list[MetricResult]:
        """FID for every resize; KID, precision and recall for the preferred one."""
        of = "" if network.name == INCEPTION else f" ({network.name})"
        taken_with = {
            **taken_with,
            "real_pictures": len(real),
            "network": network.name,
            "weights_sha256": network.weights_sha256,
        }
        features = {
            resize: (network.features(results, resize), real.features(network, resize)) for resize in network.resizes
        }
        figures = []
        for resize, sets in features.items():
            name = f"FID{of}" if resize == network.resizes[0] else f"FID {resize}{of}"
            figures.append(MetricResult(name, frechet_distance(*sets), True, {**taken_with, "resize": resize}))

        sets = features[network.resizes[0]]
        taken_with["resize"] = network.resizes[0]
        kernel = kid(*sets, self.seed)
        precision, recall = precision_and_recall(*sets)
        subsets = {"subsets": KID_SUBSETS, "subset_size": kernel.subset_size}
        return [
            *figures,
            MetricResult(f"KID{of}", kernel.mean, True, {**taken_with, **subsets}, kernel.spread),
            MetricResult(f"precision{of}", precision, False, {**taken_with, "neighbors": K_NEAREST}),
            MetricResult(f"recall{of}", recall, False, {**taken_with, "neighbors": K_NEAREST}),
        ]

    def _paired_figures(self, results: Images, truth: Images, taken_with: Mapping[str, Any]) -> list[MetricResult]:
        """Means over the pairs."""
        taken_with = {**taken_with, "resize": None}
        figures = []
        try:
            if self.paired:
                score = mean_score(zip(results, truth, strict=True))
                figures += [
                    MetricResult("PSNR", score.psnr, False, taken_with),
                    MetricResult("SSIM", score.ssim, False, taken_with),
                ]
        except ValueError as error:
            raise UserError(f"translations and their truth cannot be compared: {error}") from None
        if self.perceptual is not None:
            distances = [self.perceptual(*pair) for pair in zip(results, truth, strict=True)]
            network = {"network": self.perceptual.backbone, "weights_sha256": self.perceptual.weights_sha256}
            name = f"LPIPS ({self.perceptual.backbone})"
            figures.append(MetricResult(name, float(np.mean(distances)), True, {**taken_with, **network}))
        return figures


def create_evaluator(
    wanted: MetricConfig, seed: int, device: torch.device, absent: Callable[[WeightsAbsentError], None] | None = None
) -> MetricEvaluator:
    """A judge of what is wanted. Networks are loaded, or fetched, now; no random state is touched.

    Args:
        wanted: the figures.
        seed: decides KID's subsets.
        device: where networks compute.
        absent: told of weights that cannot be had, whose figures are then left out; None: that is an error.
    Raises:
        UserError: a file holds something else than asked for, weights are absent, or what computes a figure is not
            installed.
    """

    def attempt(load: Callable[[], T]) -> T | None:
        try:
            return load()
        except WeightsAbsentError as error:
            if absent is None:
                raise
            absent(error)
            return None

    for asked_for, figures, package in (
        (wanted.distances, "FID and its kin", "torch_fidelity"),
        (wanted.pairs, "PSNR, SSIM and LPIPS", "torchmetrics"),
    ):
        if asked_for and importlib.util.find_spec(package) is None:
            name = package.replace("_", "-")
            raise UserError(f"{figures} need {name}, which is not installed: `pip install {name}`")
    networks: list[FeatureExtractor | None] = []
    perceptual = None
    with fork_rng_seeded(seed):  # networks draw weights before they are given theirs
        if wanted.inception is not None:
            path = None if wanted.inception == CACHE else Path(wanted.inception)
            networks.append(attempt(lambda: load_inception(path, device)))
        if wanted.features is not None:
            features = Path(wanted.features)
            networks.append(attempt(lambda: load_features(features, device)))
        if wanted.lpips is not None:
            backbone = wanted.lpips
            perceptual = attempt(lambda: LPIPS(backbone, device))
    there = [network for network in networks if network is not None]
    return MetricEvaluator(there, wanted.paired, perceptual, seed)


def format_metric(figure: MetricResult) -> str:
    """The value to four significant digits, with its spread: "45.51", "0.0125 ±0.003"."""
    spread = "" if figure.spread is None else f" ±{float(f'{figure.spread:.2g}'):g}"
    return f"{figure.value:.4g}{spread}"


def metric_table(judged: Mapping[str, Sequence[MetricResult]]) -> str:
    """The table; for each title, `judged` has the same figures. An arrow shows which way is better."""
    names = [f"{figure.name} {'↓' if figure.lower_is_better else '↑'}" for figure in next(iter(judged.values()))]
    columns = [["", *names], *([title, *map(format_metric, figures)] for title, figures in judged.items())]
    widths = [max(map(len, column)) for column in columns]
    lines = zip(*columns, strict=True)
    return "\n".join("   ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) for line in lines)
