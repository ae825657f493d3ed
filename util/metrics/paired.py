"""Paired metrics: PSNR, SSIM and LPIPS of translations and their target images, on 8-bit images as they are saved.

torchmetrics and torchvision are imported when a metric needs them: this takes a second, and most runs need neither.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from util.errors import UserError
from util.files import sha256
from util.images import to_rgb
from util.metrics.base import EvalImages, Measurement, MetricSpec
from util.metrics.feature_extractors import cached_download

DATA_RANGE = 255.0
WINDOW = 11  # side of SSIM's Gaussian window in pixels, for its sigma of 1.5


def psnr(result: np.ndarray, target: np.ndarray) -> float:
    """Return the peak signal-to-noise ratio in dB: 10 log10(255² / mean squared difference); infinite for equal images.

    Args:
        result, target: uint8 images (H, W, C) or (H, W) of the same shape, or float32 images in [0, 255].
    Raises:
        ValueError: shapes or types differ.
    """
    from torchmetrics.functional.image import peak_signal_noise_ratio

    return float(peak_signal_noise_ratio(*_to_tensors(result, target), data_range=DATA_RANGE))


def ssim(result: np.ndarray, target: np.ndarray) -> float:
    """Return the structural similarity in [-1, 1] (Wang et al. 2004), the mean over positions and channels.

    The Gaussian window has 11x11 pixels and a sigma of 1.5; the constants are 0.01 and 0.03 of the range 255. Only windows
    that lie entirely inside the image count.

    Args:
        result, target: uint8 images (H, W, C) or (H, W) of the same shape, or float32 images in [0, 255]; at least 11
            pixels a side.
    Raises:
        ValueError: shapes or types differ, or the images are too small.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    if min(target.shape[:2]) < WINDOW:
        raise ValueError(f"SSIM needs images of at least 11x11 pixels, got shape {target.shape}")
    _, similarity = structural_similarity_index_measure(
        *_to_tensors(result, target), data_range=DATA_RANGE, return_full_image=True
    )
    border = WINDOW // 2  # torchmetrics releases differ in whether their mean includes the mirrored border
    return float(similarity[..., border:-border, border:-border].mean())


def _to_tensors(result: np.ndarray, target: np.ndarray) -> tuple[Tensor, Tensor]:
    if result.shape != target.shape or result.dtype != target.dtype or target.dtype not in (np.uint8, np.float32):
        raise ValueError(
            f"expected uint8 or float32 images of the same shape and type, "
            f"got {result.dtype} {result.shape} and {target.dtype} {target.shape}"
        )
    return _nchw(result), _nchw(target)


def _nchw(image: np.ndarray) -> Tensor:
    channels_last = image if image.ndim == 3 else image[:, :, None]
    return torch.from_numpy(channels_last.astype(np.float64)).permute(2, 0, 1)[None]


def mean_psnr_ssim(pairs: Iterable[tuple[np.ndarray, np.ndarray]], flag: str) -> tuple[float, float]:
    """Return the means of PSNR and SSIM over pairs of images.

    Raise UserError, which names the option `flag`, if there are no pairs, or if a pair has different sizes.
    """
    try:
        scores = [(psnr(*pair), ssim(*pair)) for pair in pairs]
    except ValueError as error:
        raise UserError(f"{flag}: {error}. Give two images of the same size.") from None
    if not scores:
        raise UserError(f"{flag}: no image pairs. Check --results and --dataroot.")
    mean_psnr, mean_ssim = np.mean(scores, axis=0)
    return float(mean_psnr), float(mean_ssim)


class PairedMetrics:
    """PSNR and SSIM, each the mean over all pairs."""

    def measure(self, images: EvalImages) -> Iterator[Measurement]:
        """Compute the means. Raise UserError if a pair has different sizes."""
        pairs = list(images.pairs())
        for name, mean in zip(("PSNR", "SSIM"), mean_psnr_ssim(pairs, "--paired"), strict=True):
            yield Measurement(name, mean, {"resize": None, "pairs": len(pairs)})


BACKBONES = {"alex": "AlexNet_Weights", "vgg": "VGG16_Weights", "squeeze": "SqueezeNet1_1_Weights"}


class LPIPS:
    """LPIPS (Zhang et al. 2018) with torchvision's ImageNet weights for the backbone.

    Args:
        backbone: key of `BACKBONES`; papers report "alex".
        device: where the network is computed.
    Raises:
        WeightsAbsentError: the weights are not in torch's cache and cannot be downloaded.
    """

    def __init__(self, backbone: str, device: torch.device) -> None:
        import torchvision
        from torchmetrics.image import LearnedPerceptualImagePatchSimilarity

        path = cached_download(getattr(torchvision.models, BACKBONES[backbone]).DEFAULT.url)
        self.backbone = backbone
        self.weights_sha256 = sha256(path)
        self.device = device
        self.metric: Any = LearnedPerceptualImagePatchSimilarity(backbone, normalize=True).to(device)  # type: ignore[arg-type]

    def measure(self, images: EvalImages) -> Iterator[Measurement]:
        """Compute the mean distance over all pairs."""
        distances = [self.distance(*pair) for pair in images.pairs()]
        if not distances:
            raise UserError("--lpips: no image pairs. Check --results and --dataroot.")
        settings = {"resize": None, "pairs": len(distances), "network": self.backbone, "weights_sha256": self.weights_sha256}
        yield Measurement("LPIPS", float(np.mean(distances)), settings, variant=f"({self.backbone})")

    def distance(self, result: np.ndarray, target: np.ndarray) -> float:
        """Return the distance of two uint8 images (H, W, C) or (H, W) of the same shape; 0 for equal images.

        Raise UserError if they are too small for the network.
        """
        try:
            with torch.inference_mode():
                return float(self.metric(self._to_input(result), self._to_input(target)))
        except RuntimeError:
            size = f"{result.shape[1]}x{result.shape[0]}"
            raise UserError(f"--lpips {self.backbone}: images of {size} pixels are too small. Use larger images.") from None

    def _to_input(self, image: np.ndarray) -> Tensor:
        values = torch.from_numpy(to_rgb(image).astype(np.float32)) / 255
        return values.permute(2, 0, 1)[None].to(self.device)


PAIRED_SPEC = MetricSpec(
    kind="paired",
    lower_is_better={"PSNR": False, "SSIM": False},
    argument={"action": "store_true", "help": "PSNR and SSIM against the image of the same name in the target domain"},
    load=lambda value, device, seed: PairedMetrics(),
    uses_all_channels=True,
    packages=("torchmetrics",),
)
LPIPS_SPEC = MetricSpec(
    kind="paired",
    lower_is_better={"LPIPS": True},
    argument={
        "nargs": "?",
        "const": "alex",
        "choices": list(BACKBONES),
        "help": "LPIPS against the image of the same name, with this backbone; torchvision's weights from torch's cache, "
        "downloaded if missing",
    },
    load=lambda backbone, device, seed: LPIPS(backbone, device),
    packages=("torchmetrics",),
)
