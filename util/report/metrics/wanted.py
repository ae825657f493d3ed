"""Which figures are asked for."""

from dataclasses import dataclass

CACHE = "cache"  # what --inception means without a path


@dataclass(frozen=True)
class MetricConfig:
    """FID and its kin by `inception` (a path, or CACHE), the same by another `features` network's file, PSNR and SSIM of
    `paired` images, LPIPS of them by the network that `lpips` names."""

    inception: str | None = None
    features: str | None = None
    paired: bool = False
    lpips: str | None = None

    @property
    def distances(self) -> bool:
        """Whether distributions are to be compared."""
        return self.inception is not None or self.features is not None

    @property
    def pairs(self) -> bool:
        """Whether translations are to be compared with their own truth."""
        return self.paired or self.lpips is not None

    @property
    def anything(self) -> bool:
        """Whether a figure is asked for at all."""
        return self.pairs or self.distances
