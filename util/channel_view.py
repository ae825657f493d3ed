"""Display of images of any number of channels and any value range: three channels, stretched if the range is wide."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

PERCENTILES = (1, 99)


def parse_channels(text: str | None) -> tuple[int, ...] | None:
    """Return the channels of a text such as "3,2,1". Raise ValueError unless they are one or three numbers from 1."""
    if text is None:
        return None
    channels = tuple(int(number) for number in text.split(","))
    if len(channels) not in (1, 3) or min(channels) < 1:
        raise ValueError(text)
    return channels


@dataclass(frozen=True)
class ChannelView:
    """Channels to show as red, green and blue.

    Attributes:
        channels: their numbers from 1, one or three of them; None: the first three, or the first one of one or two.
        stretch: map the percentiles 1 and 99 of the shown channels to black and white, for each image.
    """

    channels: tuple[int, ...] | None = None
    stretch: bool = False

    def indices(self, count: int) -> list[int]:
        """Return the indices of the shown channels among `count`. Channels that the image lacks fall back to the default."""
        if self.channels is not None and max(self.channels) <= count:
            return [channel - 1 for channel in self.channels]
        return [0, 1, 2] if count >= 3 else [0]

    def order(self, count: int) -> list[int]:
        """Return the indices of all channels with the shown ones first: metrics of three channels take the first three."""
        shown = self.indices(count)
        return [*shown, *(index for index in range(count) if index not in shown)]

    def tensor(self, images: torch.Tensor) -> torch.Tensor:
        """Return (N, 1 or 3, H, W) in [-1, 1] of images (N, C, H, W) in [-1, 1]."""
        indices = self.indices(images.shape[1])
        shown = images if indices == list(range(images.shape[1])) else images[:, indices]
        return self._stretched(shown) if self.stretch else shown

    def tensors(self, visuals: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the same for several images by name."""
        return {name: self.tensor(images) for name, images in visuals.items()}

    def pixels(self, image: np.ndarray) -> np.ndarray:
        """Return uint8 pixels (H, W, 1 or 3) of an image (H, W, C) of any dtype, stretched unless it has 8 bits."""
        shown = image[:, :, self.indices(image.shape[2])]
        if shown.dtype == np.uint8 and not self.stretch:
            return shown
        low, high = np.percentile(shown, PERCENTILES)
        share = ((shown.astype(np.float64) - low) / max(high - low, 1e-30)).clip(0, 1)
        return (share * 255).round().astype(np.uint8)

    def describe(self, count: int) -> str:
        """Return what is shown of images with `count` channels, such as "channels 3,2,1 of 5, stretched"."""
        shown = ",".join(str(index + 1) for index in self.indices(count))
        stretched = ", percentiles {} to {} as black and white".format(*PERCENTILES) if self.stretch else ""
        return f"channel{'s' if ',' in shown else ''} {shown} of {count}{stretched}"

    def changes(self, count: int) -> bool:
        """Return True if images with `count` channels are not shown as they are."""
        return self.stretch or self.indices(count) != list(range(count))

    @staticmethod
    def _stretched(images: torch.Tensor) -> torch.Tensor:
        values = images.detach().float()
        result = []
        for image in values:
            samples = image.flatten()[:: max(1, image.numel() // 2**20)]  # torch.quantile takes 16 million values
            low, high = torch.quantile(samples, torch.tensor([p / 100 for p in PERCENTILES], device=image.device))
            result.append(((image - low) / (high - low).clamp(min=1e-12) * 2 - 1).clamp(-1, 1))
        return torch.stack(result)
