"""How an image comes to the size that a feature network takes. FID depends on it (Parmar, Zhang, Zhu: On Aliased Resizing
and Surprising Subtleties in GAN Evaluation, CVPR 2022)."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor


def clean(image: np.ndarray, side: int) -> Tensor:
    """Antialiased: PIL's bicubic on every channel, in floating point, clipped but not rounded, as in clean-fid.

    Args:
        image: uint8 (H, W, 3).
    Returns:
        (3, side, side) float32, 0 to 255.
    """
    planes = [Image.fromarray(image[:, :, channel].astype(np.float32)) for channel in range(3)]
    resized = [np.asarray(plane.resize((side, side), Image.Resampling.BICUBIC)) for plane in planes]
    return torch.from_numpy(np.stack(resized).clip(0, 255))


def legacy(image: np.ndarray, side: int) -> Tensor:
    """Aliased: bilinear between the four nearest pixels, as in pytorch-fid, which the published figures were taken with.

    Takes and gives the same as `clean`.
    """
    planes = torch.from_numpy(image.transpose(2, 0, 1).astype(np.float32))
    return F.interpolate(planes[None], size=(side, side), mode="bilinear", align_corners=False)[0]


Resize = Callable[[np.ndarray, int], Tensor]
RESIZES: dict[str, Resize] = {"clean": clean, "legacy": legacy}
