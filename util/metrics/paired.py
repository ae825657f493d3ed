"""How near results come to the truth, where it is known: PSNR and SSIM on the images as they are saved.

torchmetrics is imported where it is needed: it takes a second, and most runs need none of it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from util.errors import UserError
from util.images import to_rgb
from util.metrics.feature_extractors import cached_download, sha256

DATA_RANGE = 255.0
WINDOW = 11  # side of SSIM's Gaussian window in pixels, for its sigma of 1.5


@dataclass(frozen=True)
class PairedMetrics:
    """Means over pairs of images: `psnr` in dB, `ssim` in [-1, 1], and how many `pairs` they are taken over."""

    psnr: float
    ssim: float
    pairs: int


def psnr(result: np.ndarray, truth: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB: 10 log10(255² / mean squared difference); infinite for equal images.

    Args:
        result, truth: uint8 images (H, W, C) or (H, W) of one shape; else `ValueError`.
    """
    from torchmetrics.functional.image import peak_signal_noise_ratio

    return float(peak_signal_noise_ratio(*_comparable(result, truth), data_range=DATA_RANGE))


def ssim(result: np.ndarray, truth: np.ndarray) -> float:
    """Structural similarity (Wang et al. 2004), the mean over positions and channels; 1 for equal images.

    Gaussian window of 11x11 pixels with a sigma of 1.5, constants 0.01 and 0.03 of the range 255; only windows that lie
    wholly inside the image count.

    Args:
        result, truth: uint8 images (H, W, C) or (H, W) of one shape and at least 11 pixels a side; else `ValueError`.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    if min(truth.shape[:2]) < WINDOW:
        raise ValueError(f"SSIM looks through a window of 11x11 pixels; an image of shape {truth.shape} is smaller")
    _, similarity = structural_similarity_index_measure(
        *_comparable(result, truth), data_range=DATA_RANGE, return_full_image=True
    )
    border = WINDOW // 2  # releases of torchmetrics differ in whether their mean includes the mirrored border
    return float(similarity[..., border:-border, border:-border].mean())


def mean_score(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> PairedMetrics:
    """The means of `psnr` and `ssim` over (result, truth) pairs; `ValueError` when there is none."""
    scores = [(psnr(result, truth), ssim(result, truth)) for result, truth in pairs]
    if not scores:
        raise ValueError("there are no pairs to take a mean over")
    mean_psnr, mean_ssim = np.mean(scores, axis=0)
    return PairedMetrics(float(mean_psnr), float(mean_ssim), len(scores))


def _comparable(result: np.ndarray, truth: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    if result.shape != truth.shape or result.dtype != np.uint8 or truth.dtype != np.uint8:
        raise ValueError(
            f"images to compare must be uint8 and of one shape, not {result.dtype} {result.shape} "
            f"and {truth.dtype} {truth.shape}"
        )
    return _nchw(result), _nchw(truth)


def _nchw(image: np.ndarray) -> torch.Tensor:
    channels_last = image if image.ndim == 3 else image[:, :, None]
    return torch.from_numpy(channels_last.astype(np.float64)).permute(2, 0, 1)[None]


BACKBONES = {"alex": "AlexNet_Weights", "vgg": "VGG16_Weights", "squeeze": "SqueezeNet1_1_Weights"}


class LPIPS:
    """LPIPS over the ImageNet weights that torchvision distributes for `backbone`, a key of `BACKBONES`; "alex" is usual.

    Raises WeightsAbsentError where they are not in torch's cache and cannot be fetched.
    """

    def __init__(self, backbone: str, device: torch.device) -> None:
        import torchvision
        from torchmetrics.image import LearnedPerceptualImagePatchSimilarity

        path = cached_download(getattr(torchvision.models, BACKBONES[backbone]).DEFAULT.url)
        self.backbone = backbone
        self.weights_sha256 = sha256(path)
        self.device = device
        self.metric: Any = LearnedPerceptualImagePatchSimilarity(backbone, normalize=True).to(device)  # type: ignore[arg-type]

    def __call__(self, result: np.ndarray, truth: np.ndarray) -> float:
        """The distance of two uint8 images (H, W, C) or (H, W) of one shape; 0 for equal ones. Raises UserError where
        they are too small for the network."""
        try:
            with torch.inference_mode():
                return float(self.metric(self._input(result), self._input(truth)))
        except RuntimeError:
            raise UserError(
                f"LPIPS ({self.backbone}) cannot look at images of {result.shape[1]}x{result.shape[0]} pixels: too small"
            ) from None

    def _input(self, image: np.ndarray) -> Tensor:
        values = torch.from_numpy(to_rgb(image).astype(np.float32)) / 255
        return values.permute(2, 0, 1)[None].to(self.device)
