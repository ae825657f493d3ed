"""Windows of an image that are just large enough to compute an encoder's features at single positions."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ReceptiveField:
    """How far a position of a feature map sees: `margin` positions in every direction, `stride` pixels apart."""

    stride: int
    margin: int

    @property
    def positions(self) -> int:
        """Side of the smallest window, in positions."""
        return 2 * self.margin + 1

    @property
    def pixels(self) -> int:
        """Side of the smallest window, in pixels."""
        return self.positions * self.stride

    def fits(self, height: int, width: int) -> bool:
        """Whether a window can be cut from an image of this size such that it is encoded as the whole image is."""
        strides = height % self.stride == width % self.stride == 0
        return strides and min(height, width) >= self.pixels


def crop_receptive_fields(image: Tensor, positions: Tensor, reach: ReceptiveField) -> tuple[Tensor, Tensor]:
    """The windows around `positions` (P,), row-major indices into the feature map of `image` (N, C, H, W).

    Returns the windows (N * P, C, S, S), image by image, and where in each window's own feature map its position
    lies, (P,). A window never leaves the image: at a border it is moved inwards, so that the border's padding is the
    image's own. The other sides' padding is wrong, but lies too far away to be seen.
    """
    stride, side = reach.stride, reach.positions
    map_height, map_width = image.shape[2] // stride, image.shape[3] // stride
    row, column = positions // map_width, positions % map_width
    top = (row - reach.margin).clamp(0, map_height - side)
    left = (column - reach.margin).clamp(0, map_width - side)

    pixel = torch.arange(reach.pixels, device=positions.device)
    rows = (top * stride)[:, None] + pixel
    columns = (left * stride)[:, None] + pixel
    windows = image[:, :, rows[:, :, None], columns[:, None, :]]
    return windows.transpose(1, 2).flatten(0, 1), (row - top) * side + column - left
