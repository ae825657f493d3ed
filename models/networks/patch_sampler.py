"""netF, the heads between the encoder and PatchNCE: pick positions of a feature map, project them, normalize them.

CUT, section 3: H_l, a two-layer MLP for every tapped layer l, maps the encoder's features to z_l = H_l(G_enc^l(x)).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def sample_patch_ids(features: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """`count` different positions of the map (N, C, H, W), as row-major indices into H*W; all of them where it is smaller.

    The same positions serve every image of the batch.
    """
    height, width = features.shape[-2:]
    return torch.randperm(height * width, generator=generator, device=generator.device)[:count]


def opposite(positions: Tensor, width: int) -> Tensor:
    """Where row-major positions of a map of this width lie after it was mirrored left to right."""
    return positions + (width - 1) - 2 * (positions % width)


def normalize(vectors: Tensor, epsilon: float = 1e-7) -> Tensor:
    """(N, C) -> x / (||x|| + epsilon). Not `F.normalize`: freshly initialized heads give vectors so short that the epsilon
    counts, and here their gradient stays finite at zero."""
    return vectors / (torch.linalg.vector_norm(vectors, dim=1, keepdim=True) + epsilon)


class PatchSampler(nn.Module):
    """Samples patches of feature maps; with `project`, through one MLP per layer.

    `widths` are the channels of the feature maps, in their order; `nc` is the length of the projected vectors.
    """

    def __init__(self, widths: Sequence[int], project: bool, nc: int = 256) -> None:
        super().__init__()
        self.project = project
        if project:
            for index, width in enumerate(widths):
                mlp = nn.Sequential(nn.Linear(width, nc), nn.ReLU(), nn.Linear(nc, nc))
                self.add_module(f"mlp_{index}", mlp)

    def draw(self, features: Sequence[Tensor], count: int, generator: torch.Generator) -> list[Tensor]:
        """New positions for every feature map, `count` of each (see `sample_patch_ids`)."""
        return [sample_patch_ids(feature, count, generator) for feature in features]

    def gather(self, features: Sequence[Tensor], positions: Sequence[Tensor], mirrored: bool = False) -> list[Tensor]:
        """Feature maps (N, C_i, H_i, W_i) at positions (S_i,) -> (N, C_i, S_i); of maps that are `mirrored` left to right,
        as if they were turned back before. No whole map is moved or permuted."""
        if mirrored:
            positions = [opposite(where, feature.shape[3]) for feature, where in zip(features, positions, strict=True)]
        return [feature.flatten(2).index_select(2, where) for feature, where in zip(features, positions, strict=True)]

    def forward(self, patches: Sequence[Tensor]) -> list[Tensor]:
        """Gathered patches (N, C_i, S_i) -> unit vectors (N*S_i, nc), image by image."""
        vectors = [patch.transpose(1, 2).flatten(0, 1) for patch in patches]
        if self.project:
            vectors = [self.get_submodule(f"mlp_{index}")(vector) for index, vector in enumerate(vectors)]
        return [normalize(vector) for vector in vectors]


class ReshapeF(PatchSampler):
    """`--netF reshape`: every map averaged down to a 4x4 grid, whose cells are the patches; nothing is drawn or learned."""

    GRID = 4

    def __init__(self) -> None:
        super().__init__(widths=(), project=False)

    def draw(self, features: Sequence[Tensor], count: int, generator: torch.Generator) -> list[Tensor]:
        """The cells of the grid: always all of them, whatever `count` is."""
        return [torch.arange(self.GRID**2, device=feature.device) for feature in features]

    def gather(self, features: Sequence[Tensor], positions: Sequence[Tensor], mirrored: bool = False) -> list[Tensor]:
        """Feature maps (N, C_i, H_i, W_i) -> their cells (N, C_i, 16)."""
        return super().gather([F.adaptive_avg_pool2d(feature, self.GRID) for feature in features], positions, mirrored)
