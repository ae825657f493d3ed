"""3x3 convolutions by Winograd's minimal filtering, which take a quarter of the multiplications.

Lavin and Gray, Fast Algorithms for Convolutional Neural Networks (2016), F(4x4, 3x3): images are cut into tiles of 6x6
that overlap by 2, each gives 4x4 results. With small matrices B, G and A, both axes at once,

    results = A [(G kernel) * (B tile)],

where * multiplies elementwise and adds up over the channels: one product of matrices for each of the 36 elements of a
tile. The gradients are the adjoints of the same products. GPUs' libraries do so by themselves, PyTorch's CPU backend
does not.
"""

from collections.abc import Iterator
from functools import lru_cache
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

OUT, KERNEL = 4, 3
TILE = OUT + KERNEL - 1
# Where the polynomials behind the method are evaluated, besides infinity: these keep the rounding errors of float32 at
# 3e-6 of the largest result, a third of what the usual 0, 1, -1, 2, -2 have.
POINTS = (0.0, 1.0, -1.0, 0.5, -2.0)
# From where on it pays: below, transforming takes longer than the multiplications that it saves.
MIN_CHANNELS = 128
MIN_TILES = 64
# Tiles that are worked on at a time, so that their transforms stay small beside the feature maps.
CHUNK_TILES = 256


class Conv3x3(nn.Conv2d):
    """A 3x3 convolution with a `margin` of zeros around the features, (N, C, H, W) -> (N, C', H - 2 + 2 * margin,
    W - 2 + 2 * margin); while it learns on the CPU, a large one is faster than others."""

    def __init__(self, inputs: int, outputs: int, bias: bool, margin: int = 0) -> None:
        super().__init__(inputs, outputs, KERNEL, padding=margin, bias=bias)
        self.margin = margin

    def forward(self, features: Tensor) -> Tensor:
        if self._is_suited(features):
            return _WinogradConvolution.apply(features, self.weight, self.bias, self.margin)
        return super().forward(features)

    def _is_suited(self, features: Tensor) -> bool:
        cpu_training = features.device.type == "cpu" and features.requires_grad and torch.is_grad_enabled()
        precise = features.dtype in (torch.float32, torch.float64) and not torch.is_autocast_enabled("cpu")
        if not (cpu_training and precise) or torch.compiler.is_compiling():
            return False
        height, width = (side + 2 * self.margin - KERNEL + 1 for side in features.shape[2:])
        whole_tiles = height % OUT == width % OUT == 0
        tiles = len(features) * height * width / OUT**2
        return whole_tiles and tiles >= MIN_TILES and min(self.in_channels, self.out_channels) >= MIN_CHANNELS


class Transforms(NamedTuple):
    """Both axes of B, G and A, for matrices of flattened tiles, kernels and results: (36, 36), (36, 9) and (16, 36)."""

    tile: Tensor
    kernel: Tensor
    result: Tensor


@lru_cache
def transforms(dtype: torch.dtype) -> Transforms:
    """By Cook and Toom: a product of polynomials follows from its values at as many points as it has coefficients."""
    others = [[other for other in POINTS if other != point] for point in POINTS]
    tile = np.zeros((TILE, TILE))
    for row, roots in enumerate(others):
        tile[row, :-1] = np.poly(roots)[::-1]
    tile[-1] = np.poly(POINTS)[::-1]
    scale = [np.prod([point - other for other in roots]) for point, roots in zip(POINTS, others, strict=True)]
    kernel = np.vstack((np.vander(POINTS, KERNEL, increasing=True) / np.array(scale)[:, None], np.eye(KERNEL)[-1]))
    result = np.vstack((np.vander(POINTS, OUT, increasing=True), np.eye(OUT)[-1])).T
    return Transforms(*(torch.from_numpy(np.kron(matrix, matrix)).to(dtype) for matrix in (tile, kernel, result)))


class _WinogradConvolution(Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, bias: Tensor | None, margin: int) -> Tensor:
        ctx.save_for_backward(features, weight)
        ctx.has_bias, ctx.margin = bias is not None, margin
        matrices = transforms(features.dtype)
        kernels = _transform_kernels(weight, matrices)

        height, width = (side + 2 * margin - KERNEL + 1 for side in features.shape[2:])
        output = features.new_empty(len(features), len(weight), height, width)
        for band in _bands(features.shape, output.shape, margin):
            results = torch.bmm(kernels, _transform_tiles(band.of(features), matrices))
            results = (matrices.result @ results.flatten(1)).unflatten(0, (OUT, OUT))
            grid = _tile_view(output[:, :, band.results])
            grid.copy_(results.view(grid.shape))
        return output if bias is None else output.add_(bias[:, None, None])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor | None, None]:
        features, weight = ctx.saved_tensors
        matrices = transforms(features.dtype)
        kernels = _transform_kernels(weight, matrices)

        kernels_gradient: Tensor | None = None
        features_gradient = torch.zeros_like(features)
        for band in _bands(features.shape, gradient.shape, ctx.margin):
            source = band.of(features)
            results = matrices.result.T @ _tile_view(gradient[:, :, band.results]).reshape(OUT * OUT, -1)
            results = results.unflatten(1, (len(weight), -1))
            share = torch.bmm(results, _transform_tiles(source, matrices).transpose(1, 2))
            kernels_gradient = share if kernels_gradient is None else kernels_gradient.add_(share)
            tiles = matrices.tile.T @ torch.bmm(kernels.transpose(1, 2), results).flatten(1)
            band.add_to(features_gradient, _scatter_add_tiles(tiles, source.shape))
        assert kernels_gradient is not None  # there is at least one band
        weight_gradient = (matrices.kernel.T @ kernels_gradient.flatten(1)).T.reshape(weight.shape)
        bias_gradient = gradient.sum((0, 2, 3)) if ctx.has_bias else None
        return features_gradient, weight_gradient, bias_gradient, None


def _transform_kernels(weight: Tensor, matrices: Transforms) -> Tensor:
    """(C', C, 3, 3) -> (36, C', C)."""
    return (matrices.kernel @ weight.flatten(2).flatten(0, 1).T).unflatten(1, weight.shape[:2])


def _transform_tiles(features: Tensor, matrices: Transforms) -> Tensor:
    """(N, C, H, W) -> (36, C, tiles)."""
    rows = features.unfold(2, TILE, OUT).permute(4, 1, 0, 2, 3).contiguous()  # in two steps, which takes half the time
    tiles = rows.unfold(4, TILE, OUT).permute(0, 5, 1, 2, 3, 4)
    return (matrices.tile @ tiles.reshape(TILE**2, -1)).unflatten(1, (features.shape[1], -1))


def _scatter_add_tiles(tiles: Tensor, shape: torch.Size) -> Tensor:
    """(36, C * tiles) -> (N, C, H, W) = `shape`: the tiles in their places, added where they overlap."""
    batch, channels, height, width = shape
    rows, columns = (height - KERNEL + 1) // OUT, (width - KERNEL + 1) // OUT
    tiles = tiles.view(TILE, TILE, channels, batch, rows, columns)
    # Sorted by the position modulo 4 that they add to, tiles need not be interleaved: F.fold takes twice as long.
    sums = tiles.new_zeros(OUT, OUT, channels, batch, rows + 1, columns + 1)
    for row, column in product(range(TILE), repeat=2):
        (down, row_of_4), (right, column_of_4) = divmod(row, OUT), divmod(column, OUT)
        sums[row_of_4, column_of_4, :, :, down : down + rows, right : right + columns] += tiles[row, column]
    return sums.permute(3, 2, 4, 0, 5, 1).flatten(4, 5).flatten(2, 3)[..., :height, :width]


def _tile_view(results: Tensor) -> Tensor:
    """(N, C, H, W) -> a view of the same as (4, 4, C, N, H / 4, W / 4): position in the tile, channel, image, tile."""
    return results.unflatten(3, (-1, OUT)).unflatten(2, (-1, OUT)).permute(3, 5, 1, 0, 2, 4)


class RowChunk(NamedTuple):
    """Some rows of the results, and the rows of the features (N, C, H, W) that they are computed from; with the zeros around
    these, left, right, above and below."""

    results: slice
    features: slice
    zeros: tuple[int, int, int, int]

    def of(self, features: Tensor) -> Tensor:
        """The band between its zeros."""
        rows = features[:, :, self.features]
        return F.pad(rows, self.zeros) if any(self.zeros) else rows

    def add_to(self, gradient: Tensor, share: Tensor) -> None:
        """Adds the share of the band, of which its zeros have no use, to the gradient of the features."""
        left, _, above, _ = self.zeros
        rows = gradient[:, :, self.features]
        rows += share[:, :, above : above + rows.shape[2], left : left + rows.shape[3]]


def _bands(features: torch.Size, results: torch.Size, margin: int) -> Iterator[RowChunk]:
    """Horizontal bands of some tiles each, for features and results of these shapes, (N, C, H, W)."""
    batch, _, height, width = results
    rows = OUT * max(1, CHUNK_TILES * OUT // (width * batch))
    for top in range(0, height, rows):
        bottom = min(height, top + rows)
        first, last = top - margin, bottom + KERNEL - 1 - margin
        inside = slice(max(first, 0), min(last, features[2]))
        yield RowChunk(slice(top, bottom), inside, (margin, margin, inside.start - first, last - inside.stop))
