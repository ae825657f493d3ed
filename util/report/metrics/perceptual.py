"""LPIPS (Zhang et al. 2018): how unlike two images look to a network whose layers were weighed by people's judgement."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from util.errors import UserError
from util.images import to_rgb
from util.metrics.feature_extractors import cached_download, sha256

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
