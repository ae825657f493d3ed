"""LPIPS (Zhang et al. 2018): how unlike two pictures look to a network whose layers were weighed by people's judgement."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from util.errors import UserError
from util.images import in_colour
from util.metrics.feature_extractors import cached, sha256

BACKBONES = {"alex": "AlexNet_Weights", "vgg": "VGG16_Weights", "squeeze": "SqueezeNet1_1_Weights"}


class PerceptualDistance:
    """LPIPS over the ImageNet weights that torchvision distributes for `backbone`, a key of `BACKBONES`; "alex" is usual.

    Raises WeightsAbsentError where they are not in torch's cache and cannot be fetched.
    """

    def __init__(self, backbone: str, device: torch.device) -> None:
        import torchvision
        from torchmetrics.image import LearnedPerceptualImagePatchSimilarity

        path = cached(getattr(torchvision.models, BACKBONES[backbone]).DEFAULT.url)
        self.backbone = backbone
        self.weights_sha256 = sha256(path)
        self.device = device
        self.metric: Any = LearnedPerceptualImagePatchSimilarity(backbone, normalize=True).to(device)  # type: ignore[arg-type]

    def __call__(self, result: np.ndarray, truth: np.ndarray) -> float:
        """The distance of two uint8 pictures (H, W, C) or (H, W) of one shape; 0 for equal ones. Raises UserError where
        they are too small for the network."""
        try:
            with torch.inference_mode():
                return float(self.metric(self._input(result), self._input(truth)))
        except RuntimeError:
            raise UserError(
                f"LPIPS ({self.backbone}) cannot look at pictures of {result.shape[1]}x{result.shape[0]} pixels: too small"
            ) from None

    def _input(self, picture: np.ndarray) -> Tensor:
        values = torch.from_numpy(in_colour(picture).astype(np.float32)) / 255
        return values.permute(2, 0, 1)[None].to(self.device)
