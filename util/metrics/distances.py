"""Distribution metrics: FID, KID, precision and recall. They compare two sets of features, each (N, D) in float64."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from util.errors import UserError
from util.metrics.base import EvalImages, Measurement, MetricSpec
from util.metrics.faithfulness import mean_structure_distance
from util.metrics.feature_extractors import INCEPTION, FeatureExtractor, load_features, load_inception

MIN_IMAGES = 4  # in each set: KID needs two for each half, precision and recall three neighbors of an image
KID_SUBSETS = 100
LARGEST_KID_SUBSET = 1000  # as in published results
K_NEAREST = 3
STRUCTURE = "structure"


@dataclass(frozen=True)
class KIDResult:
    """KID: mean and standard deviation over random subsets of `subset_size` images."""

    mean: float
    std: float
    subset_size: int


def frechet_distance(fake: Tensor, real: Tensor) -> float:
    """Return the Fréchet distance of two feature sets, called FID for Inception features (Heusel et al. 2017).

        |mean_1 - mean_2|² + Tr(C_1 + C_2 - 2 (C_1 C_2)^½)

    Libraries compute the last trace from the eigenvalues of C_1 C_2. If there are fewer images than features, most of these
    are zeros known to 1e-16, whose square roots are wrong by 1e-8 each. With C_i = X_i' X_i, the trace is the sum of the
    singular values of X_1 X_2', which is exact and takes milliseconds.
    """
    difference = fake.mean(0) - real.mean(0)
    roots = [_covariance_root(features) for features in (fake, real)]
    shared = torch.linalg.svdvals(roots[0] @ roots[1].T).sum()
    return float(difference.square().sum() + sum(root.square().sum() for root in roots) - 2 * shared)


def _covariance_root(features: Tensor) -> Tensor:
    """Return X of at most D rows, with X'X the unbiased covariance."""
    centered = (features - features.mean(0)) / (len(features) - 1) ** 0.5
    return torch.linalg.qr(centered, mode="r").R if len(centered) > centered.shape[1] else centered


def kid(fake: Tensor, real: Tensor, seed: int) -> KIDResult:
    """Return KID (Bińkowski et al. 2018): the unbiased squared maximum mean discrepancy for the kernel (x·y / D + 1)³.

    A subset holds at most half of the smaller set. Subsets that contain the whole set would be equal and have no variance.
    """
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric

    subset_size = min(LARGEST_KID_SUBSET, len(fake) // 2, len(real) // 2)
    found = kid_features_to_metric(
        fake, real, kid_subsets=KID_SUBSETS, kid_subset_size=subset_size, rng_seed=seed, verbose=False
    )
    return KIDResult(found[KEY_METRIC_KID_MEAN], found[KEY_METRIC_KID_STD], subset_size)


def precision_and_recall(fake: Tensor, real: Tensor) -> tuple[float, float]:
    """Return improved precision and recall (Kynkäänniemi et al. 2019).

    Precision is the fraction of translations that lie within the radius of a real image: the distance to its third-nearest
    real neighbor. Recall is the same with the roles of the two sets exchanged.
    """
    from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric

    found = prc_features_to_metric(fake, real, prc_neighborhood=K_NEAREST, verbose=False)
    return found[KEY_METRIC_PRECISION], found[KEY_METRIC_RECALL]


def check_min_images(count: int, name: str) -> None:
    """Raise UserError if the image set `name` is too small for distribution metrics."""
    if count < MIN_IMAGES:
        raise UserError(f"{name}: {count} images, but FID and KID need at least {MIN_IMAGES}. Add images.")


class DistributionMetrics:
    """FID, KID, precision and recall of the translations and the real images, on the features of one network.

    FID is computed for every resize mode of the network; the others for the first. If the sources are given (a faithfulness
    metric is requested), the structure distance from them is computed on a feature map of the same network.

    Args:
        extractor: the feature network.
        seed: seed of KID's subsets.
    """

    def __init__(self, extractor: FeatureExtractor, seed: int) -> None:
        self.extractor = extractor
        self.seed = seed

    def measure(self, images: EvalImages) -> Iterator[Measurement]:
        """Compute the metrics. Raise UserError if there are too few images."""
        assert images.real is not None
        check_min_images(len(images.real), "real images")
        check_min_images(len(images.results), "translations")
        extractor = self.extractor
        preferred, *others = extractor.resize_modes
        real = images.real.features(extractor, preferred)
        check_min_images(len(real), "readable real images")
        fake = extractor.features(images.results, preferred)
        common = {
            "real_pictures": len(real),
            "network": extractor.name,
            "weights_sha256": extractor.weights_sha256,
        }
        network = "" if extractor.name == INCEPTION else f"({extractor.name})"
        settings = {**common, "resize": preferred}
        yield Measurement("FID", frechet_distance(fake, real), settings, variant=network)
        for resize in others:
            sets = extractor.features(images.results, resize), images.real.features(extractor, resize)
            variant = f"{resize} {network}".strip()
            yield Measurement("FID", frechet_distance(*sets), {**common, "resize": resize}, variant=variant)

        result = kid(fake, real, self.seed)
        subsets = {"subsets": KID_SUBSETS, "subset_size": result.subset_size}
        yield Measurement("KID", result.mean, settings | subsets, result.std, network)
        precision, recall = precision_and_recall(fake, real)
        neighbors = settings | {"neighbors": K_NEAREST}
        yield Measurement("precision", precision, neighbors, variant=network)
        yield Measurement("recall", recall, neighbors, variant=network)
        if images.source is not None and extractor.map_network is not None:
            distance = mean_structure_distance(extractor, images, preferred)
            yield Measurement(STRUCTURE, distance, settings | {"layer": extractor.map_layer}, variant=network)


CACHE = "cache"  # value of --inception without a path
LOWER_IS_BETTER = {"FID": True, "KID": True, "precision": False, "recall": False, STRUCTURE: True}
INCEPTION_SPEC = MetricSpec(
    kind="distribution",
    lower_is_better=LOWER_IS_BETTER,
    argument={
        "nargs": "?",
        "const": CACHE,
        "metavar": "PATH",
        "help": "FID (clean and legacy resize), KID, precision and recall with FID's Inception network, weights file "
        "weights-inception-2015-12-05-6726825d.pth; without PATH: from torch's cache, downloaded if missing",
    },
    load=lambda path, device, seed: DistributionMetrics(load_inception(None if path == CACHE else Path(path), device), seed),
    packages=("torch_fidelity",),
)
FEATURES_SPEC = MetricSpec(
    kind="distribution",
    lower_is_better=LOWER_IS_BETTER,
    argument={
        "metavar": "PATH",
        "help": "the same metrics with another network: the features of SqueezeNet 1.1 as a state dict, or a TorchScript or "
        "torch.export program that maps uint8 images (N, 3, H, W) to (N, D). A program runs its author's code",
    },
    load=lambda path, device, seed: DistributionMetrics(load_features(Path(path), device), seed),
    packages=("torch_fidelity",),
)
