"""netF, the heads between the encoder and PatchNCE: sample patches of a feature map, project and normalize them.

CUT, section 3: H_l, a two-layer MLP for each of the chosen layers l, maps encoder features to z_l = H_l(G_enc^l(x)).
A patch is one position of a feature map. Its id is the row-major index into H*W.

On a GPU, all layers and all sources are processed at once (see `on_gpu`).
"""

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from util.runtime.device import on_gpu

#: Unit vectors (N * S, nc), one entry per layer: a list, or one tensor if the layers share their kernels on a GPU.
UnitVectors = list[Tensor] | Tensor

# `torch.topk` launches one kernel for at most 200 rows of this length.
TOPK_CHUNK = 4096


def sample_patch_ids(features: Tensor, num_patches: int, generator: torch.Generator) -> Tensor:
    """Sample `num_patches` different patch ids of a feature map (N, C, H, W), or all of them if there are fewer.

    All images of the batch share them.
    """
    height, width = features.shape[-2:]
    return torch.randperm(height * width, generator=generator, device=generator.device)[:num_patches]


def sample_patch_ids_at_once(
    sizes: Sequence[int], num_patches: int, num_sources: int, generator: torch.Generator
) -> list[Tensor]:
    """Sample ids as `sample_patch_ids`, for feature maps of these numbers of positions and several sources.

    All samples come from one selection of the largest random keys: `torch.randperm` launches 17 kernels on a GPU for each.
    Returns ids (num_sources, S_l) for every layer.
    """
    sampled = [layer for layer, size in enumerate(sizes) if size > num_patches]
    patch_ids = {}
    if sampled:
        shape = (len(sampled), num_sources, math.ceil(max(sizes) / TOPK_CHUNK), min(max(sizes), TOPK_CHUNK))
        largest = torch.iinfo(torch.int32).max
        keys = torch.randint(largest, shape, dtype=torch.int32, generator=generator, device=generator.device)
        lengths = _integers(tuple(sizes[layer] for layer in sampled), generator.device)[:, None, None]
        rows = keys.flatten(2)
        rows.masked_fill_(torch.arange(rows.shape[2], device=generator.device) >= lengths, -1)
        patch_ids = dict(zip(sampled, largest_ids(keys, num_patches).unbind(), strict=True))
    return [
        patch_ids[layer] if layer in patch_ids else torch.arange(size, device=generator.device).expand(num_sources, -1)
        for layer, size in enumerate(sizes)
    ]


def largest_ids(keys: Tensor, count: int) -> Tensor:
    """Return the positions of the `count` largest keys of each row (..., chunks, length), as ids of the flattened row.

    The second round selects from the largest keys of every chunk. One `torch.topk` of whole rows launches 21 kernels.
    """
    chunks, length = keys.shape[-2:]
    candidates, ids = keys.topk(min(count, length), sorted=False)
    if chunks == 1:
        return ids.squeeze(-2)
    ids += torch.arange(0, chunks * length, length, device=keys.device)[:, None]
    return ids.flatten(-2).gather(-1, candidates.flatten(-2).topk(count, sorted=False).indices)


@cache
def _integers(values: tuple[int, ...], device: torch.device) -> Tensor:
    """Return the values as a tensor. Made once, to save kernels, and on the device, because a GPU waits for a copy."""
    return torch.stack([torch.full((), value, device=device) for value in values])


def gather_positions(features: Tensor, ids: Tensor) -> Tensor:
    """Return the vectors of feature maps (N, C, H, W) at row-major positions, (N, C, S).

    `ids` are (S,) for all images, or (T, S): then the batch has T equal parts, each with its own ids.
    """
    ids = torch.atleast_2d(ids)
    is_nhwc = on_gpu(features.device) and not features.is_contiguous()
    if is_nhwc:  # the gradient has the memory format of the feature maps
        maps = features.permute(0, 2, 3, 1).flatten(1, 2).unflatten(0, (len(ids), -1))
        index = ids[:, None, :, None].expand(-1, maps.shape[1], -1, maps.shape[3])
        return maps.gather(2, index).transpose(2, 3).flatten(0, 1)
    maps = features.flatten(2).unflatten(0, (len(ids), -1))
    index = ids[:, None, None].expand(-1, *maps.shape[1:3], -1)
    return maps.gather(3, index).flatten(0, 1)


def mirrored_ids(patch_ids: Sequence[Tensor], widths: Sequence[int]) -> Sequence[Tensor]:
    """Return the ids of the same patches in feature maps of these widths that are flipped left to right, layer by layer."""
    if can_stack(patch_ids):
        ids = torch.stack(list(patch_ids))
        return _mirror(ids, _integers(tuple(widths), ids.device)[:, None, None]).unbind()
    return [_mirror(ids, width) for ids, width in zip(patch_ids, widths, strict=True)]


def _mirror(ids: Tensor, width: int | Tensor) -> Tensor:
    return torch.sub(ids + (width - 1), ids % width, alpha=2)


def normalize(vectors: Tensor, epsilon: float = 1e-7) -> Tensor:
    """Return x / (||x|| + epsilon) for every row of (..., C).

    Not `F.normalize`: the vectors of freshly initialized heads are so short that the epsilon matters. The gradient is
    finite at zero.
    """
    return vectors / (torch.linalg.vector_norm(vectors, dim=-1, keepdim=True) + epsilon)


def can_stack(tensors: Sequence[Tensor]) -> bool:
    """Return True if one operation should process all tensors: they are on a GPU and have one shape."""
    return on_gpu(tensors[0].device) and len({tensor.shape for tensor in tensors}) == 1


class PatchSampler(nn.Module):
    """Sample patches of feature maps; with `use_mlp`, project them by one MLP per layer.

    Args:
        channels: channels of the feature maps, one entry per layer.
        use_mlp: project the patches.
        nc: length of the projected vectors.
    """

    #: A patch is one position of the feature map, so that its receptive field is all that needs to be encoded.
    samples_positions = True

    def __init__(self, channels: Sequence[int], use_mlp: bool, nc: int = 256) -> None:
        super().__init__()
        self.use_mlp = use_mlp
        if use_mlp:
            for index, layer_channels in enumerate(channels):
                mlp = nn.Sequential(nn.Linear(layer_channels, nc), nn.ReLU(), nn.Linear(nc, nc))
                self.add_module(f"mlp_{index}", mlp)

    def sample_ids(
        self, features: Sequence[Tensor], num_patches: int, generator: torch.Generator, num_sources: int = 1
    ) -> list[Tensor]:
        """Sample patch ids (num_sources, S_l) for every feature map (see `sample_patch_ids`)."""
        if on_gpu(generator.device):
            sizes = [feature.shape[2:].numel() for feature in features]
            return sample_patch_ids_at_once(sizes, num_patches, num_sources, generator)
        per_source = [
            [sample_patch_ids(feature, num_patches, generator) for feature in features] for _ in range(num_sources)
        ]
        return [torch.stack(ids) for ids in zip(*per_source, strict=True)]

    def gather(self, features: Sequence[Tensor], patch_ids: Sequence[Tensor], mirrored: bool = False) -> list[Tensor]:
        """Return the patches (N, C_l, S_l) of feature maps (N, C_l, H_l, W_l); ids as for `gather_positions`.

        If the feature maps are `mirrored` left to right, the ids are those of the unflipped map. Only the ids are
        converted: no feature map is flipped or permuted.
        """
        if mirrored:
            patch_ids = mirrored_ids(patch_ids, [feature.shape[3] for feature in features])
        return [gather_positions(feature, ids) for feature, ids in zip(features, patch_ids, strict=True)]

    def forward(self, patches: Sequence[Tensor]) -> UnitVectors:
        """Project and normalize patches (N, C_l, S_l) to unit vectors (N * S_l, nc), image by image."""
        vectors = [patch.transpose(1, 2).flatten(0, 1) for patch in patches]
        if self.use_mlp:
            mlps: list[Any] = [self.get_submodule(f"mlp_{index}") for index in range(len(vectors))]
            vectors = [mlp[0](vector) for mlp, vector in zip(mlps, vectors, strict=True)]
            if can_stack(vectors):
                weight, bias = torch.stack([mlp[2].weight for mlp in mlps]), torch.stack([mlp[2].bias for mlp in mlps])
                hidden = torch.stack(vectors).relu_()
                projected = torch.baddbmm(bias[:, :, None], weight, hidden.transpose(1, 2))  # (layers, nc, N * S)
                return normalize(projected.transpose(1, 2))
            vectors = [mlp[1:](vector) for mlp, vector in zip(mlps, vectors, strict=True)]
        return [normalize(vector) for vector in vectors]


class ReshapeF(PatchSampler):
    """`--netF reshape`: the patches are the cells of a 4x4 grid over the feature map. Nothing is sampled or learned."""

    GRID_SIZE = 4
    samples_positions = False

    def __init__(self) -> None:
        super().__init__(channels=(), use_mlp=False)

    def sample_ids(
        self, features: Sequence[Tensor], num_patches: int, generator: torch.Generator, num_sources: int = 1
    ) -> list[Tensor]:
        """Return the ids of all cells; `num_patches` is ignored."""
        cells = torch.arange(self.GRID_SIZE**2, device=features[0].device).expand(num_sources, -1)
        return [cells for _ in features]

    def gather(self, features: Sequence[Tensor], patch_ids: Sequence[Tensor], mirrored: bool = False) -> list[Tensor]:
        """Return the average of every cell (N, C_l, 16) of feature maps (N, C_l, H_l, W_l)."""
        return super().gather([F.adaptive_avg_pool2d(feature, self.GRID_SIZE) for feature in features], patch_ids, mirrored)
