"""3x3 convolutions by Winograd's minimal filtering, with a quarter of the multiplications.

Lavin and Gray, Fast Algorithms for Convolutional Neural Networks (2016), F(4x4, 3x3): feature maps are cut into 6x6 tiles
that overlap by 2, and each tile gives 4x4 results. With small matrices B, G and A,

    results = A [(G kernel G^T) * (B tile B^T)] A^T,

where * is an elementwise product summed over the channels: one matrix product for each of the 36 elements of a tile. The
gradients are the adjoints of the same products. cuDNN has this algorithm, PyTorch's CPU backend does not.
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
# Evaluation points of the polynomials, besides infinity. In float32 their rounding error is 3e-6 of the largest result,
# a third of the error with the usual points 0, 1, -1, 2, -2.
POINTS = (0.0, 1.0, -1.0, 0.5, -2.0)
# Below these sizes the transforms take longer than the multiplications that they save.
MIN_CHANNELS = 128
MIN_TILES = 64
# Tiles per chunk: the transforms of a chunk are small compared to the feature maps.
CHUNK_TILES = 256


class Conv3x3(nn.Conv2d):
    """A 3x3 convolution with zero padding: (N, C, H, W) -> (N, C', H - 2 + 2 * padding, W - 2 + 2 * padding).

    Large ones use Winograd's algorithm in training on the CPU.
    """

    def __init__(self, inputs: int, outputs: int, bias: bool, padding: int = 0) -> None:
        super().__init__(inputs, outputs, KERNEL, padding=padding, bias=bias)
        self.zero_padding = padding  # `nn.Conv2d.padding` is a tuple

    def forward(self, features: Tensor) -> Tensor:
        if self._can_use_winograd(features):
            return _WinogradConvolution.apply(features, self.weight, self.bias, self.zero_padding)
        return super().forward(features)

    def _can_use_winograd(self, features: Tensor) -> bool:
        cpu_training = features.device.type == "cpu" and features.requires_grad and torch.is_grad_enabled()
        is_float = features.dtype in (torch.float32, torch.float64) and not torch.is_autocast_enabled("cpu")
        if not (cpu_training and is_float) or torch.compiler.is_compiling():
            return False
        height, width = (side + 2 * self.zero_padding - KERNEL + 1 for side in features.shape[2:])
        whole_tiles = height % OUT == width % OUT == 0
        tiles = len(features) * height * width / OUT**2
        return whole_tiles and tiles >= MIN_TILES and min(self.in_channels, self.out_channels) >= MIN_CHANNELS


class Transforms(NamedTuple):
    """B, G and A along one axis: (6, 6), (6, 3) and (4, 6)."""

    tile: Tensor
    kernel: Tensor
    result: Tensor


@lru_cache
def transforms(dtype: torch.dtype) -> Transforms:
    """Return B, G and A by the Cook-Toom construction: a polynomial product is interpolated from its values at `POINTS`."""
    others = [[other for other in POINTS if other != point] for point in POINTS]
    tile = np.zeros((TILE, TILE))
    for row, roots in enumerate(others):
        tile[row, :-1] = np.poly(roots)[::-1]
    tile[-1] = np.poly(POINTS)[::-1]
    scale = [np.prod([point - other for other in roots]) for point, roots in zip(POINTS, others, strict=True)]
    kernel = np.vstack((np.vander(POINTS, KERNEL, increasing=True) / np.array(scale)[:, None], np.eye(KERNEL)[-1]))
    result = np.vstack((np.vander(POINTS, OUT, increasing=True), np.eye(OUT)[-1])).T
    return Transforms(*(torch.from_numpy(matrix).to(dtype) for matrix in (tile, kernel, result)))


class _WinogradConvolution(Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, bias: Tensor | None, padding: int) -> Tensor:
        ctx.save_for_backward(features, weight)
        ctx.has_bias, ctx.padding = bias is not None, padding
        matrices = transforms(features.dtype)
        kernels = _transform_kernels(weight, matrices.kernel)

        height, width = (side + 2 * padding - KERNEL + 1 for side in features.shape[2:])
        output = features.new_empty(len(features), len(weight), height, width)
        for chunk in _chunks(features.shape, output.shape, padding):
            results = torch.bmm(kernels, _transform_tiles(chunk.padded(features), matrices.tile))
            grid = _tile_view(output[chunk.results])
            grid.copy_(_transform_both_axes(matrices.result, results).view(grid.shape))
        return output if bias is None else output.add_(bias[:, None, None])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor | None, None]:
        features, weight = ctx.saved_tensors
        matrices = transforms(features.dtype)
        kernels = _transform_kernels(weight, matrices.kernel)

        kernels_gradient = torch.zeros_like(kernels)
        features_gradient = torch.zeros_like(features)
        for chunk in _chunks(features.shape, gradient.shape, ctx.padding):
            source = chunk.padded(features)
            results = _transform_tiles(gradient[chunk.results], matrices.result.T)
            kernels_gradient.baddbmm_(results, _transform_tiles(source, matrices.tile).transpose(1, 2))
            tiles = _transform_both_axes(matrices.tile.T, torch.bmm(kernels.transpose(1, 2), results))
            chunk.accumulate(features_gradient, _scatter_add_tiles(tiles, source.shape))
        weight_gradient = torch.kron(matrices.kernel, matrices.kernel).T @ kernels_gradient.flatten(1)
        bias_gradient = gradient.sum((0, 2, 3)) if ctx.has_bias else None
        return features_gradient, weight_gradient.T.reshape(weight.shape), bias_gradient, None


def _transform_kernels(weight: Tensor, matrix: Tensor) -> Tensor:
    """Transform kernels (C', C, 3, 3) to (36, C', C)."""
    return (torch.kron(matrix, matrix) @ weight.flatten(2).flatten(0, 1).T).unflatten(1, weight.shape[:2])


def _transform_tiles(maps: Tensor, matrix: Tensor) -> Tensor:
    """Cut maps (N, C, H, W) into tiles, a step of 4 apart, and transform them by `matrix` (6, side) to (36, C, tiles).

    A convolution of each channel with stride 4 does both at once.
    """
    kernels = torch.kron(matrix, matrix).view(-1, 1, matrix.shape[1], matrix.shape[1])
    tiles = F.conv2d(maps.flatten(0, 1)[:, None], kernels, stride=OUT)
    return tiles.unflatten(0, maps.shape[:2]).permute(2, 1, 0, 3, 4).flatten(2)


def _transform_both_axes(matrix: Tensor, tiles: Tensor) -> Tensor:
    """Transform tiles (36, C, tiles) by `matrix` (side, 6) along both axes to (side, side, C * tiles)."""
    rows = (matrix @ tiles.reshape(TILE, -1)).view(len(matrix), TILE, -1)
    return torch.matmul(matrix, rows)


def _scatter_add_tiles(tiles: Tensor, shape: torch.Size) -> Tensor:
    """Put tiles (6, 6, C * tiles) in their places, added up where they overlap: (N, C, H, W) = `shape`."""
    batch, channels, height, width = shape
    rows, columns = (height - KERNEL + 1) // OUT, (width - KERNEL + 1) // OUT
    tiles = tiles.view(TILE, TILE, channels, batch, rows, columns)
    # Grouped by the target position modulo 4, tiles do not interleave. F.fold takes twice as long.
    sums = tiles.new_zeros(OUT, OUT, channels, batch, rows + 1, columns + 1)
    for row, column in product(range(TILE), repeat=2):
        (down, row_of_4), (right, column_of_4) = divmod(row, OUT), divmod(column, OUT)
        sums[row_of_4, column_of_4, :, :, down : down + rows, right : right + columns] += tiles[row, column]
    return sums.permute(3, 2, 4, 0, 5, 1).flatten(4, 5).flatten(2, 3)[..., :height, :width]


def _tile_view(results: Tensor) -> Tensor:
    """Return a view of (N, C, H, W) as (4, 4, C, N, H / 4, W / 4): position in the tile, channel, image, tile."""
    return results.unflatten(3, (-1, OUT)).unflatten(2, (-1, OUT)).permute(3, 5, 1, 0, 2, 4)


class Chunk(NamedTuple):
    """Images and rows of the results, those of the features (N, C, H, W) that they depend on, and zero padding.

    The slices are indices of the first three axes. The padding is in the order of `F.pad`: left, right, above, below.
    """

    results: tuple[slice, slice, slice]
    features: tuple[slice, slice, slice]
    padding: tuple[int, int, int, int]

    def padded(self, features: Tensor) -> Tensor:
        """Return the padded rows of the features."""
        rows = features[self.features]
        return F.pad(rows, self.padding) if any(self.padding) else rows

    def accumulate(self, gradient: Tensor, partial: Tensor) -> None:
        """Add the gradient of the padded rows to the gradient of the features, without the padding."""
        left, _, above, _ = self.padding
        rows = gradient[self.features]
        rows += partial[:, :, above : above + rows.shape[2], left : left + rows.shape[3]]


def _chunks(features: torch.Size, results: torch.Size, padding: int) -> Iterator[Chunk]:
    """Yield chunks of some `CHUNK_TILES` tiles for features and results of these shapes, (N, C, H, W)."""
    batch, _, height, width = results
    images = max(1, CHUNK_TILES * OUT**2 // (height * width))
    rows = OUT * max(1, CHUNK_TILES * OUT // width)
    for first_image, top in product(range(0, batch, images), range(0, height, rows)):
        chosen = slice(first_image, first_image + images), slice(None)
        bottom = min(height, top + rows)
        first, last = top - padding, bottom + KERNEL - 1 - padding
        inside = slice(max(first, 0), min(last, features[2]))
        margins = (padding, padding, inside.start - first, last - inside.stop)
        yield Chunk((*chosen, slice(top, bottom)), (*chosen, inside), margins)
