"""netF, the heads between the encoder and PatchNCE: sample patches of a feature map, project and normalize them.

CUT, section 3: H_l, a two-layer MLP for each of the chosen layers l, maps encoder features to z_l = H_l(G_enc^l(x)).
A patch is one position of a feature map. Its id is the row-major index into H*W.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def sample_patch_ids(features: Tensor, num_patches: int, generator: torch.Generator) -> Tensor:
    """Sample `num_patches` different patch ids of a feature map (N, C, H, W), or all of them if there are fewer.

    All images of the batch share them.
    """
    height, width = features.shape[-2:]
    return torch.randperm(height * width, generator=generator, device=generator.device)[:num_patches]


def mirrored_ids(patch_ids: Tensor, width: int) -> Tensor:
    """Return the ids of the same patches in a feature map of this width that is flipped left to right."""
    return patch_ids + (width - 1) - 2 * (patch_ids % width)


def normalize(vectors: Tensor, epsilon: float = 1e-7) -> Tensor:
    """Return x / (||x|| + epsilon) for every row of (N, C).

    Not `F.normalize`: the vectors of freshly initialized heads are so short that the epsilon matters. The gradient is
    finite at zero.
    """
    return vectors / (torch.linalg.vector_norm(vectors, dim=1, keepdim=True) + epsilon)


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

    def sample_ids(self, features: Sequence[Tensor], num_patches: int, generator: torch.Generator) -> list[Tensor]:
        """Sample patch ids for every feature map (see `sample_patch_ids`)."""
        return [sample_patch_ids(feature, num_patches, generator) for feature in features]

    def gather(self, features: Sequence[Tensor], patch_ids: Sequence[Tensor], mirrored: bool = False) -> list[Tensor]:
        """Return the patches (N, C_l, S_l) with ids (S_l,) of feature maps (N, C_l, H_l, W_l).

        If the feature maps are `mirrored` left to right, the ids are those of the unflipped map. Only the ids are
        converted: no feature map is flipped or permuted.
        """
        if mirrored:
            patch_ids = [mirrored_ids(ids, feature.shape[3]) for feature, ids in zip(features, patch_ids, strict=True)]
        return [feature.flatten(2).index_select(2, ids) for feature, ids in zip(features, patch_ids, strict=True)]

    def forward(self, patches: Sequence[Tensor]) -> list[Tensor]:
        """Project and normalize patches (N, C_l, S_l) to unit vectors (N * S_l, nc), image by image."""
        vectors = [patch.transpose(1, 2).flatten(0, 1) for patch in patches]
        if self.use_mlp:
            vectors = [self.get_submodule(f"mlp_{index}")(vector) for index, vector in enumerate(vectors)]
        return [normalize(vector) for vector in vectors]


class ReshapeF(PatchSampler):
    """`--netF reshape`: the patches are the cells of a 4x4 grid over the feature map. Nothing is sampled or learned."""

    GRID_SIZE = 4
    samples_positions = False

    def __init__(self) -> None:
        super().__init__(channels=(), use_mlp=False)

    def sample_ids(self, features: Sequence[Tensor], num_patches: int, generator: torch.Generator) -> list[Tensor]:
        """Return the ids of all cells; `num_patches` is ignored."""
        return [torch.arange(self.GRID_SIZE**2, device=feature.device) for feature in features]

    def gather(self, features: Sequence[Tensor], patch_ids: Sequence[Tensor], mirrored: bool = False) -> list[Tensor]:
        """Return the average of every cell (N, C_l, 16) of feature maps (N, C_l, H_l, W_l)."""
        return super().gather([F.adaptive_avg_pool2d(feature, self.GRID_SIZE) for feature in features], patch_ids, mirrored)
