"""Faithfulness metrics: how much of its source a translation keeps.

A distance between two sets, such as FID, rewards translations that ignore their input. These metrics compare each
translation with the image that it was computed from.
"""

from collections.abc import Iterator

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from util.errors import UserError
from util.images import to_rgb
from util.metrics.base import EvalImages, Measurement, MetricSpec
from util.metrics.feature_extractors import FeatureExtractor
from util.metrics.paired import mean_psnr_ssim

MAX_SIDE = 32  # positions; larger feature maps are pooled, because S has the square of their number


def self_similarity(feature_map: Tensor) -> Tensor:
    """Return the cosine similarity of every two positions: (C, H, W) -> (H*W, H*W), in [-1, 1]. A zero vector gives 0."""
    vectors = F.normalize(feature_map.flatten(1), dim=0)
    return vectors.T @ vectors


def structure_distance(source: Tensor, result: Tensor) -> float:
    """Return the mean of |S(source) - S(result)| for two feature maps (C, H, W), with S the self-similarity.

    S describes the layout of an image and not its appearance (Shechtman and Irani 2007; Tumanyan et al. 2022, section 3.1,
    who take features of DINO). Maps of more than 32x32 positions are pooled to that.
    """
    sides = [(min(MAX_SIDE, each.shape[1]), min(MAX_SIDE, each.shape[2])) for each in (source, result)]
    maps = [F.adaptive_avg_pool2d(each, side) for each, side in zip((source, result), sides, strict=True)]
    return float((self_similarity(maps[0]) - self_similarity(maps[1])).abs().mean())


def mean_structure_distance(extractor: FeatureExtractor, images: EvalImages, resize: str) -> float:
    """Return the mean structure distance of all translations from their sources.

    Raise UserError if a program takes images of their own size, and a translation and its source differ in size.
    """
    assert images.source is not None
    distances = []
    for maps in zip(*(extractor.feature_maps(each, resize) for each in (images.source, images.results)), strict=True):
        if maps[0].shape != maps[1].shape:
            raise UserError("--faithfulness: a translation and its source differ in size. Translate without resizing.")
        distances.append(structure_distance(*maps))
    return float(np.mean(distances))


class FaithfulnessMetrics:
    """PSNR and SSIM of the translations against their sources, each the mean over all images."""

    def measure(self, images: EvalImages) -> Iterator[Measurement]:
        """Compute the means. Raise UserError if a translation and its source differ in size."""
        assert images.source is not None
        pairs = (_comparable(*pair) for pair in zip(images.results, images.source, strict=True))
        for name, mean in zip(("PSNR_source", "SSIM_source"), mean_psnr_ssim(pairs, "--faithfulness"), strict=True):
            yield Measurement(name, mean, {"resize": None})


def _comparable(result: np.ndarray, source: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both images with all their channels if they agree, else three channels of each."""
    if result.dtype == np.float32 and result.dtype == source.dtype and result.shape[2:] == source.shape[2:]:
        return result, source
    return to_rgb(result), to_rgb(source)


FAITHFULNESS_SPEC = MetricSpec(
    kind="faithfulness",
    lower_is_better={"PSNR_source": False, "SSIM_source": False},
    argument={
        "action": "store_true",
        "help": "PSNR and SSIM against the source image, and the structure distance from it on the network of --inception "
        "or --features",
    },
    load=lambda value, device, seed: FaithfulnessMetrics(),
    uses_all_channels=True,
    packages=("torchmetrics",),
)
