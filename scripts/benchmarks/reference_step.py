"""The training step as the published code takes it, to be timed beside ours (scripts/benchmarks/benchmark.py).

Every pass for itself, keys encoded again and with a graph, whole feature maps permuted before a few positions are looked at,
positions from permutations on the CPU, plain optimizers, two waits for the device, and the plain form of the norm and of the
blurs. StyleGAN2's layers are ours in both.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.base_model import BaseModel
from models.cut_model import CUTModel
from models.cycle_gan_model import CycleGANModel
from models.losses.patch_nce import PatchNCELoss, SampledKeys, patch_nce
from models.networks.layers import Downsample, InstanceNorm, ReflectionPad, Upsample
from models.networks.winograd import Conv3x3
from models.sincut_model import SinCUTModel


class PlainDownsample(Downsample):
    """Reflected borders, then a depthwise convolution of stride 2."""

    def forward(self, features: Tensor) -> Tensor:
        padded = F.pad(features, (1, 1, 1, 1), mode="reflect")
        return F.conv2d(padded, self.filt, stride=2, groups=features.shape[1])


class PlainUpsample(Upsample):
    """Replicated borders, then a depthwise transposed convolution of stride 2."""

    def forward(self, features: Tensor) -> Tensor:
        padded = F.pad(features, (1, 1, 1, 1), mode="replicate")
        return F.conv_transpose2d(padded, self.filt, stride=2, padding=3, groups=features.shape[1])


def use_reference_layers(network: nn.Module) -> None:
    """Gives the network the layers of the published one; its weights stay."""
    for layer in list(network.modules()):
        for name, inner in layer.named_children():
            if isinstance(inner, InstanceNorm):
                setattr(layer, name, nn.InstanceNorm2d(inner.channels))
            elif isinstance(inner, Downsample):
                inner.__class__ = PlainDownsample
            elif isinstance(inner, Upsample):
                inner.__class__ = PlainUpsample
            elif isinstance(inner, Conv3x3):
                inner.forward = partial(nn.Conv2d.forward, inner)  # type: ignore[method-assign]
            elif isinstance(inner, ReflectionPad):
                setattr(layer, name, nn.ReflectionPad2d(inner.padding))


class ReferenceMixin(BaseModel):
    """What all methods have in common."""

    def make_as_published(self) -> None:
        for network in self.networks.values():
            use_reference_layers(network)
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["fused"] = None  # torch decides, as where nothing is said

    def optimize_parameters(self) -> None:
        self._wait()
        super().optimize_parameters()
        self._wait()

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


class PublishedPatchNCELoss(PatchNCELoss):
    """PatchNCE with keys that are encoded again with a graph, and feature maps that are permuted as a whole."""

    def encode_keys(self, images: Tensor) -> list[Tensor]:
        return self.encode(images)

    def sample_keys(self, features: Sequence[Tensor]) -> SampledKeys:
        patch_ids = []
        for feature in features:
            order = np.random.permutation(feature[0, 0].numel())[: self.num_patches]
            patch_ids.append(torch.tensor(order, dtype=torch.long, device=feature.device))
        return SampledKeys(patch_ids, permuted(features, patch_ids))

    def compare(self, features: Sequence[Tensor], keys: SampledKeys, mirrored: bool = False) -> Tensor:
        upright = [feature.flip(3) for feature in features] if mirrored else features
        queries, sources = self.sampler(permuted(upright, keys.patch_ids)), self.sampler(keys.patches)
        groups = 1 if self.all_negatives else len(features[0])
        per_layer = [patch_nce(q, k, groups, self.temperature).mean() for q, k in zip(queries, sources, strict=True)]
        return torch.stack(per_layer).mean()


class PublishedCUT(ReferenceMixin, CUTModel):
    """CUT and FastCUT."""

    def __init__(self, opt: Any) -> None:
        super().__init__(opt)
        self.make_as_published()
        self.can_batch_encoder = self.can_batch_D = False
        self.criterionNCE.__class__ = PublishedPatchNCELoss


class PublishedSinCUT(PublishedCUT, SinCUTModel):
    """SinCUT."""


class PublishedCycleGAN(ReferenceMixin, CycleGANModel):
    """CycleGAN."""

    def __init__(self, opt: Any) -> None:
        super().__init__(opt)
        self.make_as_published()
        self.can_batch_G = self.can_batch_D = False


def permuted(features: Sequence[Tensor], positions: Sequence[Tensor]) -> list[Tensor]:
    """Feature maps (N, C, H, W) at positions (S,), the whole maps laid out anew first -> (N, C, S)."""
    return [
        feature.permute(0, 2, 3, 1).flatten(1, 2)[:, where].transpose(1, 2)
        for feature, where in zip(features, positions, strict=True)
    ]


PUBLISHED: dict[str, type[BaseModel]] = {
    "cut": PublishedCUT,
    "sincut": PublishedSinCUT,
    "cycle_gan": PublishedCycleGAN,
}
