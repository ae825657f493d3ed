"""How far apart two sets of features are. Every set is (N, D) in float64, a row for each image."""

from dataclasses import dataclass

import torch
from torch import Tensor

from util.errors import UserError

MIN_IMAGES = 4  # images in a set: two for each half of KID's, three neighbors besides itself for precision and recall
KID_SUBSETS = 100
LARGEST_KID_SUBSET = 1000  # what published figures use
K_NEAREST = 3


@dataclass(frozen=True)
class KIDResult:
    """KID: mean and standard deviation over random subsets of `subset_size` images."""

    mean: float
    spread: float
    subset_size: int


def frechet_distance(fake: Tensor, real: Tensor) -> float:
    """The Fréchet distance of the Gaussians with the means and covariances of the two sets, FID for Inception's features:

        |mean_1 - mean_2|² + Tr(C_1 + C_2 - 2 (C_1 C_2)^½)

    Libraries take the last trace from the eigenvalues of C_1 C_2. Where there are fewer images than features, most of
    these are zeros known to 1e-16, whose roots are wrong by 1e-8 each. With C_i = X_i' X_i it is the sum of the singular
    values of X_1 X_2', which is exact, and a matter of milliseconds.
    """
    difference = fake.mean(0) - real.mean(0)
    roots = [_covariance_root(features) for features in (fake, real)]
    shared = torch.linalg.svdvals(roots[0] @ roots[1].T).sum()
    return float(difference.square().sum() + sum(root.square().sum() for root in roots) - 2 * shared)


def _covariance_root(features: Tensor) -> Tensor:
    """X, of at most D rows, with X'X the unbiased covariance."""
    centerd = (features - features.mean(0)) / (len(features) - 1) ** 0.5
    return torch.linalg.qr(centerd, mode="r").R if len(centerd) > centerd.shape[1] else centerd


def kid(fake: Tensor, real: Tensor, seed: int) -> KIDResult:
    """KID (Bińkowski et al. 2018): the unbiased squared maximum mean discrepancy for the kernel (x·y / D + 1)³.

    Subsets hold at most half of the smaller set: subsets that are all of it would not differ, and show no spread.
    """
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric

    subset_size = min(LARGEST_KID_SUBSET, len(fake) // 2, len(real) // 2)
    found = kid_features_to_metric(
        fake, real, kid_subsets=KID_SUBSETS, kid_subset_size=subset_size, rng_seed=seed, verbose=False
    )
    return KIDResult(found[KEY_METRIC_KID_MEAN], found[KEY_METRIC_KID_STD], subset_size)


def precision_and_recall(fake: Tensor, real: Tensor) -> tuple[float, float]:
    """Improved precision and recall (Kynkäänniemi et al. 2019): the share of translations that lie as near to a real
    image as its third-nearest real neighbor does, and the share of real images likewise among translations."""
    from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric

    found = prc_features_to_metric(fake, real, prc_neighborhood=K_NEAREST, verbose=False)
    return found[KEY_METRIC_PRECISION], found[KEY_METRIC_RECALL]


def check_min_images(images: int, what: str) -> None:
    """Raises UserError where there are too few images for their distribution to be compared."""
    if images < MIN_IMAGES:
        raise UserError(f"{images} images in {what}: comparing distributions takes at least {MIN_IMAGES}")
