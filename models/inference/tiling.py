"""Run a generator on images larger than memory, tile by tile, with the same values as on the whole image.

A convolution sees a small neighborhood only. Computed from a tile with a margin around it, its output equals that of the
whole image, so that tiles need no blending. An instance norm needs the mean and the variance of the whole image. The
layers are therefore run from norm to norm: a first pass over all tiles computes the statistics of a norm. From then on
the norm is a fixed scale and shift, and the statistics of the next norm can be computed.

Before and after the residual blocks, feature maps are large and layers are few. No feature map is stored there: each pass
starts again at the image, or at the output of the last block. In the residual blocks, feature maps are small and layers
are many. Three maps are stored there, in memory or in a temporary file, and each layer runs once.

For resnet_9blocks, tiling takes 1.5 times the arithmetic and stores 3 * ngf bytes per pixel: 9.2 GB for 8000x6000 pixels
and ngf 64.
"""

import math
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from models.inference.noise import CropView, SeededNoise
from models.networks.base import Generator
from models.networks.layers import InstanceNorm
from models.networks.resnet import ResnetBlock
from util.errors import UserError
from util.runtime.device import format_gib, free_memory

DEFAULT_TILE = 512  # pixels
PROBE_RADII = (4, 16, 32, 64)  # receptive field radii to try, in multiples of size_multiple
MAX_PROBE_SIZE = 1200  # pixels; a larger receptive field counts as the whole image
# Shown on a terminal only, and removed when the image is done.
PROGRESS_BAR: dict[str, Any] = {"unit": " tiles", "leave": False, "dynamic_ncols": True, "disable": None}
BUFFERED_MAPS = 3  # of a residual block: its input and the outputs of its two convolutions


@dataclass(frozen=True)
class Box:
    """A rectangle of positions in a feature map."""

    top: int
    left: int
    height: int
    width: int

    def scale(self, factor: Fraction) -> "Box":
        """Return the same area in a map that is `factor` times as large."""
        return Box(*(int(side * factor) for side in (self.top, self.left, self.height, self.width)))

    def expand(self, margin: int, height: int, width: int) -> "Box":
        """Return the box with a margin on all sides, clipped to a map of this height and width."""
        top, left = max(0, self.top - margin), max(0, self.left - margin)
        bottom = min(height, self.top + self.height + margin)
        right = min(width, self.left + self.width + margin)
        return Box(top, left, bottom - top, right - left)

    def relative_to(self, outer: "Box") -> "Box":
        """Return the same rectangle in coordinates relative to the top left corner of `outer`."""
        return Box(self.top - outer.top, self.left - outer.left, self.height, self.width)

    def slice(self, maps: Tensor) -> Tensor:
        """Return the view of this rectangle in maps (..., H, W)."""
        return maps[..., self.top : self.top + self.height, self.left : self.left + self.width]


class FrozenInstanceNorm(nn.Module):
    """An instance norm with the fixed mean and variance, (C,) each, of the whole image.

    The statistics of the tiles are combined in float64 by the method of Chan et al. (1979). Sums of squares would lose
    precision if the mean is large.
    """

    mean: Tensor
    m2: Tensor

    def __init__(self, channels: int, eps: float, device: torch.device) -> None:
        super().__init__()
        self.eps = eps
        self.count = 0
        dtype = torch.float32 if device.type == "mps" else torch.float64  # MPS has no float64
        self.register_buffer("mean", torch.zeros(channels, dtype=dtype, device=device))
        self.register_buffer("m2", torch.zeros(channels, dtype=dtype, device=device))  # sum of squared deviations

    def update_stats(self, tile: Tensor) -> None:
        """Add a tile (1, C, H, W) to the statistics."""
        variance, mean = torch.var_mean(tile[0].flatten(1).float(), dim=1, correction=0)
        positions = tile[0, 0].numel()
        total = self.count + positions
        delta = mean - self.mean
        self.m2 += variance * positions + delta.square() * (self.count * positions / total)
        self.mean += delta * (positions / total)
        self.count = total

    def forward(self, features: Tensor) -> Tensor:
        """Normalize features (N, C, H, W) with the statistics of the whole image."""
        scale = torch.rsqrt(self.m2 / self.count + self.eps)
        shift = -self.mean * scale
        return features.float() * scale.float()[:, None, None] + shift.float()[:, None, None]


@dataclass(frozen=True)
class ReceptiveField:
    """The receptive field of a sequence of layers: its radius in input positions, and the output size over the input's."""

    radius: int
    scale: Fraction


def not_tileable(generator: nn.Module) -> UserError:
    """Return the error for a generator that needs the whole image at once."""
    return UserError(
        f"--tile: {type(generator).__name__} needs the whole image at once and cannot run in tiles. "
        "Use --short_side for a smaller image, or a machine with more memory."
    )


class Tiler:
    """Run a generator over an image in tiles of `tile` x `tile` pixels.

    Stored feature maps use up to `memory_limit` bytes of memory, by default most of what is free. If they need more, they
    go to a temporary file in `tmp_dir`.
    """

    def __init__(
        self,
        generator: Generator,
        noise: SeededNoise,
        tile: int = DEFAULT_TILE,
        memory_limit: int | None = None,
        tmp_dir: Path | None = None,
    ) -> None:
        self.generator = generator
        self.multiple = generator.size_multiple
        self.noise = noise
        self.tile = max(1, tile // self.multiple) * self.multiple
        self.memory_limit = free_memory(torch.device("cpu")) if memory_limit is None else memory_limit
        self.tmp_dir = tmp_dir or Path(gettempdir())
        self.device = next(generator.parameters()).device

    def __call__(self, image: Tensor) -> Tensor:
        """Return the output (1, C', H, W) for an image (1, C, H, W), both on the CPU.

        H and W must be multiples of the generator's `size_multiple`.

        Raises:
            UserError: the generator needs the whole image at once, or memory and disk are too small.
        """
        norms = sum(isinstance(layer, InstanceNorm) for layer in self.generator.modules())
        layers = self.generator.tileable_layers() if norms else nn.Sequential(self.generator)
        if layers is None:
            raise not_tileable(self.generator)
        blocks = [layer for layer in layers if isinstance(layer, ResnetBlock)]
        # One pass for each norm, for the sum in each block, for the input of the blocks, and for the output.
        passes = norms + (len(blocks) + 1 if blocks else 0) + 1
        rows, columns = (-(-side // self.tile) for side in image.shape[2:])
        with tqdm(total=passes * rows * columns, **PROGRESS_BAR) as self.bar:
            if blocks:
                return self._run_resnet(image[0], list(layers), blocks)
            frozen = self._freeze_norms(image[0], list(layers), self.multiple)
            return self._assemble(image[0], frozen, self.multiple, *image.shape[2:])

    def _run_resnet(self, image: Tensor, layers: list[nn.Module], blocks: list[ResnetBlock]) -> Tensor:
        """Return the output (1, C', H, W) of layers with residual blocks for an image (C, H, W)."""
        start = layers.index(blocks[0])
        head, tail = layers[:start], layers[start + len(blocks) :]
        channels = self.generator.feature_channels([start])[0]
        height, width = (side // self.multiple for side in image.shape[1:])

        with self._feature_storage(channels, height, width) as allocate:
            features, first, second = (allocate() for _ in range(BUFFERED_MAPS))
            for box, tile in self._tiles(image, self._freeze_norms(image, head, self.multiple), self.multiple):
                box.slice(features).copy_(tile[0])
            for block in blocks:
                self._run_block(block, features, first, second)
            return self._assemble(features, self._freeze_norms(features, tail, 1), 1, *image.shape[1:])

    def _run_block(self, block: ResnetBlock, features: Tensor, first: Tensor, second: Tensor) -> None:
        """Replace x = `features` by x + norm(conv(relu(norm(conv(x))))).

        `first` and `second` are buffers for the outputs of the two convolutions.
        """
        layers = list(block.conv_block)
        inner_norm, outer_norm = (layer for layer in layers if isinstance(layer, InstanceNorm))
        split = layers.index(inner_norm)
        inner_frozen = self._convolve(features, layers[:split], inner_norm, first)
        outer_frozen = self._convolve(first, [inner_frozen, *layers[split + 1 : -1]], outer_norm, second)
        for box, tile in self._tiles(second, [outer_frozen], 1):
            box.slice(features).add_(tile[0].cpu())

    def _convolve(self, source: Tensor, layers: list[nn.Module], norm: InstanceNorm, target: Tensor) -> FrozenInstanceNorm:
        """Write the output of the layers for `source` to `target`. Return the norm that follows, frozen."""
        frozen = FrozenInstanceNorm(norm.channels, norm.eps, self.device)
        for box, tile in self._tiles(source, layers, 1):
            box.slice(target).copy_(tile[0])
            frozen.update_stats(tile)
        return frozen

    def _freeze_norms(self, source: Tensor, layers: list[nn.Module], multiple: int) -> list[nn.Module]:
        """Return the layers with frozen instance norms; each norm takes one pass over the tiles."""
        frozen: list[nn.Module] = []
        for layer in layers:
            if isinstance(layer, InstanceNorm):
                norm = FrozenInstanceNorm(layer.channels, layer.eps, self.device)
                for _, tile in self._tiles(source, frozen, multiple):
                    norm.update_stats(tile)
                frozen.append(norm)
            else:
                frozen.append(layer)
        return frozen

    def _assemble(self, source: Tensor, layers: list[nn.Module], multiple: int, height: int, width: int) -> Tensor:
        """Return the output (1, C', height, width) of the layers for `source` (C, H, W)."""
        tiles = self._tiles(source, layers, multiple)
        box, tile = next(tiles)
        image = torch.empty(1, tile.shape[1], height, width)
        box.slice(image).copy_(tile)
        for box, tile in tiles:
            box.slice(image).copy_(tile)
        return image

    def _tiles(self, source: Tensor, layers: list[nn.Module], multiple: int) -> Iterator[tuple[Box, Tensor]]:
        """Yield the output of the layers for `source` (C, H, W) as tiles (1, C', h, w), each with its box in the output.

        Tile borders are at multiples of `multiple` positions of `source`.
        """
        run = nn.Sequential(*layers)
        field = self._receptive_field(run, len(source), multiple)
        height, width = source.shape[1:]
        side = self.tile * multiple // self.multiple
        for top in range(0, height, side):
            for left in range(0, width, side):
                box = Box(top, left, min(side, height - top), min(side, width - left))
                visible = box.expand(field.radius, height, width)
                self.noise.set_view(CropView((height, width), visible.top, visible.left, visible.height, visible.width))
                # Copy: the first layer may work in place.
                output = run(visible.slice(source)[None].to(self.device, copy=True))
                output_box = box.scale(field.scale)
                yield output_box, output_box.relative_to(visible.scale(field.scale)).slice(output)
                self.bar.update()

    def _receptive_field(self, layers: nn.Module, channels: int, multiple: int) -> ReceptiveField:
        """Measure the receptive field: a NaN in the input spreads to every output that sees it."""
        for radius in PROBE_RADII:
            side = (2 * radius + 1) * multiple
            if side > MAX_PROBE_SIZE:
                break
            probe = torch.zeros(1, channels, side, side, device=self.device)
            start, end = radius * multiple, (radius + 1) * multiple
            probe[:, :, start:end, start:end] = torch.nan
            self.noise.set_full_view(side, side)
            output = layers(probe)[0]
            rows = output.isnan().any(0).any(1).nonzero()
            first, last = int(rows[0]), int(rows[-1]) + 1
            if first > 0 and last < output.shape[1]:
                scale = Fraction(output.shape[1], side)
                distance = max(start - first / scale, last / scale - end)
                return ReceptiveField(max(0, math.ceil(distance / multiple)) * multiple, scale)
        raise not_tileable(self.generator)

    @contextmanager
    def _feature_storage(self, channels: int, height: int, width: int) -> Iterator[Callable[[], Tensor]]:
        """Yield a function that allocates maps (channels, height, width), in memory or in temporary files."""
        size = BUFFERED_MAPS * 4 * channels * height * width
        if size <= self.memory_limit:
            yield lambda: torch.empty(channels, height, width)
            return
        free = shutil.disk_usage(self.tmp_dir).free
        if size > free:
            raise UserError(
                f"--scratch {self.tmp_dir}: the feature maps need {format_gib(size)}, but only "
                f"{format_gib(self.memory_limit)} of memory and {format_gib(free)} of disk are free. "
                "Use a folder on a larger disk."
            )
        with TemporaryDirectory(dir=self.tmp_dir, prefix="tiles-") as folder:
            number = count()

            def allocate() -> Tensor:
                file = str(Path(folder, str(next(number))))
                flat = torch.from_file(file, shared=True, size=channels * height * width, dtype=torch.float32)
                return flat.view(channels, height, width)

            yield allocate
