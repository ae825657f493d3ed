"""Images larger than memory, a tile at a time, with the values of the whole image.

ConvStack see little: computed from a tile and a margin around it, they are what they are in the whole image, so tiles
need no blending. Instance norms see everything: their mean and variance are those of the whole image. Hence the layers
are run from norm to norm. A first pass over all tiles gathers a norm's statistics; from then on it is a scale and a shift
like any other layer, and the next norm's statistics can be gathered.

Before the residual blocks and after them, maps are large and layers few: nothing is kept there, each pass begins anew at
the image, or at the last block. In the blocks, where most layers and the smallest maps are, three maps are kept, in
memory or in a temporary file, and each layer is computed once. For resnet_9blocks that is half as much arithmetic again,
and 3 * ngf bytes per pixel: 9.2 GB for 8000x6000 pixels and ngf 64.
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
from models.networks.layers import InstanceNorm
from models.networks.resnet import ResnetBlock, ResnetGenerator
from util.errors import UserError
from util.runtime.device import format_gib, free_memory

DEFAULT_TILE = 512  # pixels
PROBE_BLOCKS = (4, 16, 32, 64)  # how far layers are supposed to see, in multiples of what sides are multiples of
LARGEST_PROBE = 1200  # pixels; layers that see farther see the whole image
# Drawn on a terminal alone, and gone when the image is done.
BAR: dict[str, Any] = {"unit": " tiles", "leave": False, "dynamic_ncols": True, "disable": None}
BUFFERED_MAPS = 3  # of a residual block: its input, and what its two convolutions give


@dataclass(frozen=True)
class Box:
    """A rectangle of positions."""

    top: int
    left: int
    height: int
    width: int

    def scaled(self, scale: Fraction) -> "Box":
        """The same place in a map that is `scale` as large."""
        return Box(*(int(side * scale) for side in (self.top, self.left, self.height, self.width)))

    def grown(self, margin: int, height: int, width: int) -> "Box":
        """With a margin all around, as far as a map of this height and width goes."""
        top, left = max(0, self.top - margin), max(0, self.left - margin)
        bottom = min(height, self.top + self.height + margin)
        right = min(width, self.left + self.width + margin)
        return Box(top, left, bottom - top, right - left)

    def within(self, outer: "Box") -> "Box":
        """The same rectangle, counted from the corner of `outer`."""
        return Box(self.top - outer.top, self.left - outer.left, self.height, self.width)

    def of(self, maps: Tensor) -> Tensor:
        """This part of maps (..., H, W)."""
        return maps[..., self.top : self.top + self.height, self.left : self.left + self.width]


class FrozenInstanceNorm(nn.Module):
    """An instance norm whose mean and variance are known: those of the whole image, (C,) each, as they are gathered.

    The tiles' own are joined as Chan et al. (1979) do, in float64: sums of squares would lose what the mean hides.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, channels: int, eps: float, device: torch.device) -> None:
        super().__init__()
        self.eps = eps
        self.count = 0
        # MPS has no float64.
        wide = torch.float32 if device.type == "mps" else torch.float64
        self.register_buffer("mean", torch.zeros(channels, dtype=wide, device=device))
        self.register_buffer("deviation", torch.zeros(channels, dtype=wide, device=device))  # sum of squared distances

    def update_stats(self, tile: Tensor) -> None:
        """Takes (1, C, H, W) into account."""
        variance, mean = torch.var_mean(tile[0].flatten(1).float(), dim=1, correction=0)
        positions = tile[0, 0].numel()
        total = self.count + positions
        distance = mean - self.mean
        self.deviation += variance * positions + distance.square() * (self.count * positions / total)
        self.mean += distance * (positions / total)
        self.count = total

    def forward(self, features: Tensor) -> Tensor:
        scale = torch.rsqrt(self.deviation / self.count + self.eps)
        shift = -self.mean * scale
        return features.float() * scale.float()[:, None, None] + shift.float()[:, None, None]


@dataclass(frozen=True)
class ReceptiveField:
    """What a run of layers does to places: how far each sees, in positions of its input, and how much larger maps get."""

    margin: int
    scale: Fraction


def not_tileable(generator: nn.Module) -> UserError:
    """The mistake of asking tiles of a generator that has none."""
    return UserError(
        f"a {type(generator).__name__} looks at the whole image at once, and cannot work in tiles; make the image "
        "smaller with --short_side, or take a machine with more memory"
    )


class Tiler:
    """Runs a generator over an image in tiles of `tile` pixels a side.

    `budget` bounds in bytes what is kept in memory; what exceeds it goes to a temporary file in `scratch`.
    """

    def __init__(
        self,
        generator: nn.Module,
        multiple: int,
        noise: SeededNoise,
        tile: int = DEFAULT_TILE,
        budget: int | None = None,
        scratch: Path | None = None,
    ) -> None:
        self.generator = generator
        self.multiple = multiple
        self.noise = noise
        self.tile = max(1, tile // multiple) * multiple
        self.budget = free_memory(torch.device("cpu")) if budget is None else budget
        self.scratch = scratch or Path(gettempdir())
        self.device = next(generator.parameters()).device

    def __call__(self, image: Tensor) -> Tensor:
        """The translation (1, C', H, W) of an image (1, C, H, W), on the CPU both, sides multiples of `multiple`.

        Raises:
            UserError: the generator looks at the whole image at once, or there is neither memory nor disk enough.
        """
        norms = sum(isinstance(layer, InstanceNorm) for layer in self.generator.modules())
        if norms and not isinstance(self.generator, ResnetGenerator):
            raise not_tileable(self.generator)
        with tqdm(total=self._passes(norms) * self._tiles_of(image), **BAR) as self.bar:
            if isinstance(self.generator, ResnetGenerator) and norms:
                return self._resnet(image[0], self.generator)
            return self._image(image[0], [self.generator], self.multiple, *image.shape[2:])

    def _passes(self, norms: int) -> int:
        """How often all tiles are gone through: once for each norm, for each block's sum, for what the blocks start from,
        and for the result."""
        blocks = sum(isinstance(layer, ResnetBlock) for layer in self.generator.modules())
        return norms + blocks + 2 if norms else 1

    def _tiles_of(self, image: Tensor) -> int:
        rows, columns = (-(-side // self.tile) for side in image.shape[2:])
        return rows * columns

    def _resnet(self, image: Tensor, generator: ResnetGenerator) -> Tensor:
        entries = list(generator.model)
        blocks = [entry for entry in entries if isinstance(entry, ResnetBlock)]
        start = entries.index(blocks[0])
        head, tail = entries[:start], entries[start + len(blocks) :]
        channels, height, width = generator.layer_channels[start], image.shape[1] // 4, image.shape[2] // 4

        with self._storage(channels, height, width) as allocate:
            features, first, second = (allocate() for _ in range(BUFFERED_MAPS))
            for box, tile in self._tiles(image, self._fixed(image, head, self.multiple), self.multiple):
                box.of(features).copy_(tile[0])
            for block in blocks:
                self._block(block, features, first, second)
            return self._image(features, self._fixed(features, tail, 1), 1, *image.shape[1:])

    def _block(self, block: ResnetBlock, features: Tensor, first: Tensor, second: Tensor) -> None:
        """x + norm(conv(relu(norm(conv(x))))) in place of x = `features`; the other two maps are for the convolutions."""
        layers = list(block.conv_block)
        inner_norm, outer_norm = (layer for layer in layers if isinstance(layer, InstanceNorm))
        cut = layers.index(inner_norm)
        inner_fixed = self._convolve(features, layers[:cut], inner_norm, first)
        outer_fixed = self._convolve(first, [inner_fixed, *layers[cut + 1 : -1]], outer_norm, second)
        for box, tile in self._tiles(second, [outer_fixed], 1):
            box.of(features).add_(tile[0].cpu())

    def _convolve(self, source: Tensor, layers: list[nn.Module], norm: InstanceNorm, target: Tensor) -> FrozenInstanceNorm:
        """Writes what the layers make of `source` to `target`; returns the norm that follows."""
        fixed = FrozenInstanceNorm(norm.channels, norm.eps, self.device)
        for box, tile in self._tiles(source, layers, 1):
            box.of(target).copy_(tile[0])
            fixed.update_stats(tile)
        return fixed

    def _fixed(self, source: Tensor, layers: list[nn.Module], multiple: int) -> list[nn.Module]:
        """The layers, with their instance norms fixed to the statistics of the whole image: a pass for each."""
        fixed: list[nn.Module] = []
        for layer in layers:
            if isinstance(layer, InstanceNorm):
                norm = FrozenInstanceNorm(layer.channels, layer.eps, self.device)
                for _, tile in self._tiles(source, fixed, multiple):
                    norm.update_stats(tile)
                fixed.append(norm)
            else:
                fixed.append(layer)
        return fixed

    def _image(self, source: Tensor, layers: list[nn.Module], multiple: int, height: int, width: int) -> Tensor:
        """What the layers make of `source` (C, H', W'), put together: (1, C', height, width)."""
        tiles = self._tiles(source, layers, multiple)
        box, tile = next(tiles)
        image = torch.empty(1, tile.shape[1], height, width)
        box.of(image).copy_(tile)
        for box, tile in tiles:
            box.of(image).copy_(tile)
        return image

    def _tiles(self, source: Tensor, layers: list[nn.Module], multiple: int) -> Iterator[tuple[Box, Tensor]]:
        """What the layers make of `source` (C, H, W), in tiles (1, C', h, w), each with its place in the result."""
        run = nn.Sequential(*layers)
        reach = self._reach(run, len(source), multiple)
        height, width = source.shape[1:]
        side = self.tile * multiple // self.multiple
        for top in range(0, height, side):
            for left in range(0, width, side):
                box = Box(top, left, min(side, height - top), min(side, width - left))
                seen = box.grown(reach.margin, height, width)
                self.noise.set_view(CropView((height, width), seen.top, seen.left, seen.height, seen.width))
                # A copy: the first layer may work in place.
                result = run(seen.of(source)[None].to(self.device, copy=True))
                place = box.scaled(reach.scale)
                yield place, place.within(seen.scaled(reach.scale)).of(result)
                self.bar.update()

    def _reach(self, layers: nn.Module, channels: int, multiple: int) -> ReceptiveField:
        """How far the layers see: not-a-number at one place of their input spreads to all that sees it."""
        for blocks in PROBE_BLOCKS:
            side = (2 * blocks + 1) * multiple
            if side > LARGEST_PROBE:
                break
            probe = torch.zeros(1, channels, side, side, device=self.device)
            start, end = blocks * multiple, (blocks + 1) * multiple
            probe[:, :, start:end, start:end] = torch.nan
            self.noise.set_full_view(side, side)
            result = layers(probe)[0]
            rows = result.isnan().any(0).any(1).nonzero()
            first, last = int(rows[0]), int(rows[-1]) + 1
            if first > 0 and last < result.shape[1]:
                scale = Fraction(result.shape[1], side)
                sees = max(start - first / scale, last / scale - end)
                return ReceptiveField(max(0, math.ceil(sees / multiple)) * multiple, scale)
        raise not_tileable(self.generator)

    @contextmanager
    def _storage(self, channels: int, height: int, width: int) -> Iterator[Callable[[], Tensor]]:
        """A function that makes maps (channels, height, width), in memory or in a file that is gone afterwards."""
        size = BUFFERED_MAPS * 4 * channels * height * width
        if size <= self.budget:
            yield lambda: torch.empty(channels, height, width)
            return
        free = shutil.disk_usage(self.scratch).free
        if size > free:
            raise UserError(
                f"{format_gib(size)} of feature maps are too many for the memory ({format_gib(self.budget)}) and for "
                f"{self.scratch} ({format_gib(free)} free); name a larger disk with --scratch"
            )
        with TemporaryDirectory(dir=self.scratch, prefix="tiles-") as folder:
            number = count()

            def allocate() -> Tensor:
                file = str(Path(folder, str(next(number))))
                flat = torch.from_file(file, shared=True, size=channels * height * width, dtype=torch.float32)
                return flat.view(channels, height, width)

            yield allocate
