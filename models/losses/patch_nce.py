"""PatchNCE (CUT, section 3, equations 2 and 3): a patch of the output must be closer to the input's patch at the same
position than to other patches of the input."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.networks.patch_sampler import PatchSampler, UnitVectors
from util.runtime.device import on_gpu
from util.runtime.distributed import gather_from_other_ranks, world_size

# The published code masks the positive among the negatives with this value. exp(-10 / 0.07) is negligible.
MASK_LOGIT = -10.0


def patch_nce(
    queries: Tensor, keys: Tensor, num_groups: int, temperature: float, extra_negatives: Tensor | None = None
) -> Tensor:
    """Return the cross-entropy of classifying each query's own key among all keys of its group (CUT, equation 2).

    Args:
        queries: unit vectors (..., C), S of each group, group by group.
        keys: as many unit vectors; the i-th is the positive of the i-th query. They get no gradient.
        num_groups: a group is one image, whose S patches are each other's negatives. 1: the whole minibatch is one group.
        temperature: divides the cosine similarities.
        extra_negatives: more keys (M, C), negatives of every query.

    Returns:
        The loss of every query, (num_groups * S,). Chance level is ln(S + M).
    """
    grouped_queries = queries.reshape(num_groups, -1, queries.shape[-1])
    grouped_keys = keys.detach().reshape(num_groups, -1, keys.shape[-1])
    similarities = torch.bmm(grouped_queries, grouped_keys.transpose(1, 2))  # the positives are on the diagonal
    columns = [similarities, similarities.new_full((), MASK_LOGIT).expand(*similarities.shape[:2], 1)]
    if extra_negatives is not None:
        columns.append(grouped_queries @ extra_negatives.detach().T)
    logits = torch.cat(columns, dim=2).flatten(0, 1) / temperature
    targets = torch.arange(similarities.shape[1], device=logits.device).repeat(num_groups)
    return F.cross_entropy(logits, targets, reduction="none")


@dataclass(frozen=True)
class SampledKeys:
    """The keys of T batches of N source images, one entry per layer.

    Attributes:
        patch_ids: (T, S_l), each row for all images of one source.
        patches: encoder features (T * N, C_l, S_l), source by source.
    """

    patch_ids: list[Tensor]
    patches: list[Tensor]

    @property
    def num_sources(self) -> int:
        """The number T of sources."""
        return len(self.patch_ids[0])

    def split(self) -> list["SampledKeys"]:
        """Return the keys of each source."""
        ids, patches = (split_sources(tensors, self.num_sources) for tensors in (self.patch_ids, self.patches))
        return [SampledKeys(*pair) for pair in zip(ids, patches, strict=True)]


def split_sources(tensors: Sequence[Tensor], num_sources: int) -> list[list[Tensor]]:
    """Split the tensors of all layers into equal parts along the batch: return one list of tensors per source."""
    return [list(part) for part in zip(*(tensor.chunk(num_sources) for tensor in tensors), strict=True)]


class PatchNCELoss:
    """L_PatchNCE(G, F, X) of CUT, equation 3: the mean over layers and patches of `patch_nce`.

    `loss(src, tgt)` encodes both images with G, samples patches, projects them with F and compares them. A method with
    several generators has one `PatchNCELoss` for each. The single steps are public, for a method that shares passes.

    Args:
        netG: the generator as a training step calls it: `netG(images, layers, encode_only=True)` returns features.
        netF: the feature head as a training step calls it.
        sampler: the module inside `netF`, which samples and gathers patches.
        layers: indices of the generator layers to compare (--nce_layers).
        num_patches: patches per layer and image.
        rng: samples the patch ids.
        temperature: divides the cosine similarities.
        all_negatives: negatives come from all images of the minibatch, those of other ranks included.
    """

    def __init__(
        self,
        netG: nn.Module,
        netF: nn.Module,
        sampler: PatchSampler,
        layers: Sequence[int],
        num_patches: int,
        rng: torch.Generator,
        temperature: float = 0.07,
        all_negatives: bool = False,
    ) -> None:
        self.netG, self.netF, self.sampler = netG, netF, sampler
        self.layers = layers
        self.num_patches = num_patches
        self.rng = rng
        self.temperature = temperature
        self.all_negatives = all_negatives

    def __call__(self, src: Tensor, tgt: Tensor, mirrored: bool = False) -> Tensor:
        """Return the loss between input images `src` and output images `tgt`, (N, C, H, W) each; a scalar.

        `mirrored`: `tgt` is flipped left to right with respect to `src`.
        """
        features = self.encode(tgt)
        return self.compare(features, self.sample_keys(self.encode_keys(src)), mirrored)[0]

    def loss_at_chance(self, batch_size: int) -> float:
        """Return the loss of features that do not tell positions apart, if every layer has `num_patches` positions."""
        return math.log(self.num_patches * (batch_size if self.all_negatives else 1))

    def encode(self, images: Tensor) -> list[Tensor]:
        """Return the encoder features (N, C_l, H_l, W_l) of every layer."""
        return self.netG(images, self.layers, encode_only=True)

    def encode_keys(self, images: Tensor) -> list[Tensor]:
        """Return the encoder features without a gradient."""
        with torch.no_grad():
            return self.encode(images)

    def sample_keys(self, features: Sequence[Tensor], num_sources: int = 1) -> SampledKeys:
        """Sample patches of feature maps (num_sources * N, C_l, H_l, W_l), without a gradient. The maps are not stored."""
        patch_ids = self.sampler.sample_ids(features, self.num_patches, self.rng, num_sources)
        with torch.no_grad():
            return SampledKeys(patch_ids, self.sampler.gather(features, patch_ids))

    def compare(self, features: Sequence[Tensor], keys: SampledKeys, mirrored: bool = False) -> Tensor:
        """Return the loss between the keys and the patches at the same positions of `features`, for each source: (T,)."""
        return self.compare_patches(self.sampler.gather(features, keys.patch_ids, mirrored), keys)

    def compare_patches(self, query_patches: Sequence[Tensor], keys: SampledKeys) -> Tensor:
        """Return the loss between the keys and patches (T * N, C_l, S_l), for each source: (T,)."""
        if self.can_share_passes:
            return self._losses(query_patches, keys)
        parts = zip(split_sources(query_patches, keys.num_sources), keys.split(), strict=True)
        return torch.cat([self._losses(queries, part) for queries, part in parts])

    @property
    def can_share_passes(self) -> bool:
        """Return True if all sources share a pass (see `on_gpu`)."""
        other_ranks = self.all_negatives and world_size() > 1  # have keys of one source at a time
        return on_gpu(self.rng.device) and not other_ranks

    def _losses(self, query_patches: Sequence[Tensor], keys: SampledKeys) -> Tensor:
        queries, projected_keys = self._project(query_patches, keys.patches)
        num_groups = keys.num_sources if self.all_negatives else len(query_patches[0])
        if self.can_share_passes and isinstance(queries, Tensor) and isinstance(projected_keys, Tensor):
            losses = patch_nce(queries, projected_keys, len(queries) * num_groups, self.temperature)
            return losses.view(len(queries), keys.num_sources, -1).mean((0, 2))
        pairs = zip(queries, projected_keys, strict=True)
        layer_losses = [self._layer_losses(layer_queries, layer_keys, num_groups) for layer_queries, layer_keys in pairs]
        return torch.stack([losses.view(keys.num_sources, -1).mean(1) for losses in layer_losses]).mean(0)

    def _project(self, query_patches: Sequence[Tensor], key_patches: Sequence[Tensor]) -> tuple[UnitVectors, UnitVectors]:
        """Return the unit vectors of queries and keys. On a GPU they share a pass, in which the keys get zero gradients."""
        if not on_gpu(self.rng.device):
            with torch.no_grad():
                projected_keys = self.netF(key_patches)
            return self.netF(query_patches), projected_keys
        pairs = zip(query_patches, key_patches, strict=True)
        # In the order (N, S, C), in which netF reads patches, so that only `cat` copies them.
        by_position = [torch.cat([patches.transpose(1, 2) for patches in pair]) for pair in pairs]
        projected = self.netF([patches.transpose(1, 2) for patches in by_position])
        if isinstance(projected, Tensor):
            queries, keys = projected.chunk(2, dim=1)
            return queries, keys
        halves = [vectors.chunk(2) for vectors in projected]
        return [queries for queries, _ in halves], [keys for _, keys in halves]

    def _layer_losses(self, queries: Tensor, keys: Tensor, num_groups: int) -> Tensor:
        if self.all_negatives:
            return patch_nce(queries, keys, num_groups, self.temperature, gather_from_other_ranks(keys))
        return patch_nce(queries, keys, num_groups, self.temperature)
