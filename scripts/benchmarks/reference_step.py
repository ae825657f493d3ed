"""The training step as the published code computes it: the reference that scripts/benchmarks/benchmark.py compares with.

Losses and gradients are equal, but the computation is the published one. Every network pass runs separately. Keys are
encoded again, with an autograd graph. Whole feature maps are permuted before patches are gathered, and patch ids come from
permutations on the CPU. The optimizers are not fused, a step synchronizes the device twice, and norms and blurs have their
plain form. StyleGAN2 layers are the project's own.
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
from models.networks.layers import InstanceNorm
from models.networks.padding import ReflectionPad
from models.networks.resampling import Downsample, Upsample
from models.networks.winograd import Conv3x3
from models.sincut_model import SinCUTModel


class ReferenceDownsample(Downsample):
    """Reflection padding, then a depthwise convolution with stride 2."""

    def forward(self, features: Tensor) -> Tensor:
        padded = F.pad(features, (1, 1, 1, 1), mode="reflect")
        return F.conv2d(padded, self.filt, stride=2, groups=features.shape[1])


class ReferenceUpsample(Upsample):
    """Replication padding, then a depthwise transposed convolution with stride 2."""

    def forward(self, features: Tensor) -> Tensor:
        padded = F.pad(features, (1, 1, 1, 1), mode="replicate")
        return F.conv_transpose2d(padded, self.filt, stride=2, padding=3, groups=features.shape[1])


def use_reference_layers(network: nn.Module) -> None:
    """Replace the layers of the network by the published ones, in place. The weights stay."""
    for layer in list(network.modules()):
        for name, inner in layer.named_children():
            if isinstance(inner, InstanceNorm):
                setattr(layer, name, nn.InstanceNorm2d(inner.channels))
            elif isinstance(inner, Downsample):
                inner.__class__ = ReferenceDownsample
            elif isinstance(inner, Upsample):
                inner.__class__ = ReferenceUpsample
            elif isinstance(inner, Conv3x3):
                inner.forward = partial(nn.Conv2d.forward, inner)  # type: ignore[method-assign]
            elif isinstance(inner, ReflectionPad):
                setattr(layer, name, nn.ReflectionPad2d(inner.padding))


class ReferenceMixin(BaseModel):
    """The parts of the published step that all methods share."""

    def use_reference_step(self) -> None:
        """Replace the layers of all networks, and let PyTorch choose the kind of Adam."""
        for network in self.networks.values():
            use_reference_layers(network)
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["fused"] = None  # PyTorch's default

    def optimize_parameters(self) -> None:
        self._synchronize()
        super().optimize_parameters()
        self._synchronize()

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


class ReferencePatchNCELoss(PatchNCELoss):
    """PatchNCE with keys that are encoded again with a graph, and feature maps that are permuted as a whole."""

    def encode_keys(self, images: Tensor) -> list[Tensor]:
        return self.encode(images)

    def sample_keys(self, features: Sequence[Tensor], num_sources: int = 1) -> SampledKeys:
        patch_ids = []
        for feature in features:
            order = np.random.permutation(feature[0, 0].numel())[: self.num_patches]
            patch_ids.append(torch.tensor(order, dtype=torch.long, device=feature.device)[None])
        return SampledKeys(patch_ids, gather_permuted(features, patch_ids))

    def compare(self, features: Sequence[Tensor], keys: SampledKeys, mirrored: bool = False) -> Tensor:
        upright = [feature.flip(3) for feature in features] if mirrored else features
        queries, sources = self.sampler(gather_permuted(upright, keys.patch_ids)), self.sampler(keys.patches)
        groups = 1 if self.all_negatives else len(features[0])
        per_layer = [patch_nce(q, k, groups, self.temperature).mean() for q, k in zip(queries, sources, strict=True)]
        return torch.stack(per_layer).mean()[None]


class ReferenceCUT(ReferenceMixin, CUTModel):
    """CUT and FastCUT."""

    def __init__(self, opt: Any) -> None:
        super().__init__(opt)
        self.use_reference_step()
        self.can_batch_encoder = self.can_batch_D = False
        self.criterionNCE.__class__ = ReferencePatchNCELoss


class ReferenceSinCUT(ReferenceCUT, SinCUTModel):
    """SinCUT."""


class ReferenceCycleGAN(ReferenceMixin, CycleGANModel):
    """CycleGAN."""

    def __init__(self, opt: Any) -> None:
        super().__init__(opt)
        self.use_reference_step()
        self.can_batch_G = self.can_batch_D = False


def gather_permuted(features: Sequence[Tensor], patch_ids: Sequence[Tensor]) -> list[Tensor]:
    """Permute feature maps (N, C, H, W) to (N, H * W, C), then gather patch ids (1, S); return (N, C, S) per layer."""
    return [
        feature.permute(0, 2, 3, 1).flatten(1, 2)[:, ids[0]].transpose(1, 2)
        for feature, ids in zip(features, patch_ids, strict=True)
    ]


REFERENCE_MODELS: dict[str, type[BaseModel]] = {
    "cut": ReferenceCUT,
    "sincut": ReferenceSinCUT,
    "cycle_gan": ReferenceCycleGAN,
}
