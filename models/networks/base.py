"""The `Generator` base class: what training, testing and inference may ask of any generator.

Its attributes are the capabilities of a generator. Code outside this package reads them and never tests for a class.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from util.errors import UserError
from util.runtime.distributed import local_shard, world_size


class NoiseSource:
    """Sample the noise that a generator injects; each generator has its own source.

    `rng` may be on any device; None means PyTorch's global RNG.
    """

    def __init__(self) -> None:
        self.rng: torch.Generator | None = None

    def sample(self, features: Tensor) -> Tensor:
        """Return standard normal noise (N, 1, H, W) for feature maps (N, C, H, W): all channels share it."""
        batch, _, height, width = features.shape
        device = features.device if self.rng is None else self.rng.device
        noise = torch.randn(batch * world_size(), 1, height, width, generator=self.rng, device=device)
        return local_shard(noise).to(features)


class Generator(nn.Module):
    """An image-to-image network: (N, input_nc, H, W) in [-1, 1] -> (N, output_nc, H, W).

    `G(x)` is the output. If `default_nce_layers` is set, PatchNCE can read the feature maps of some layers as well:
    `G(x, layers)` returns (output, features), and `G(x, layers, encode_only=True)` the features alone, a list of
    (N, C_l, H_l, W_l). `layers` are strictly increasing indices, as in --nce_layers.
    """

    #: Height and width of the input must be multiples of this, in pixels.
    size_multiple: int
    #: Smallest height and width of the input, in pixels.
    min_size: int
    #: Default of --nce_layers. None: the generator has no encoder features, and CUT refuses it.
    default_nce_layers: str | None = None
    #: `G(x, layers, patch_ids=...)` returns features (N, C_l, S_l) at these positions only, for less than a full encoding.
    can_encode_patches: bool = False
    #: The generator runs its stages through `checkpointed`.
    supports_gradient_checkpointing: bool = False
    #: Recompute the activations of a stage in the backward pass instead of storing them. Set by --grad_checkpoint.
    gradient_checkpointing: bool = False
    #: Every forward pass adds random noise, so that two passes over one image differ.
    injects_noise: bool = False
    #: A test translates whole images of any size. Otherwise it crops images as the training did.
    accepts_any_size: bool = True
    #: Trained on crops for whole images: --model test does not resize its input by default.
    test_at_full_size: bool = False

    def feature_channels(self, layers: Sequence[int]) -> list[int]:
        """Return the channels C_l of the feature maps at `layers`. Raise ValueError if they are not valid --nce_layers."""
        raise ValueError(f"{type(self).__name__} has no encoder features")

    def set_rng(self, rng: torch.Generator) -> None:
        """Sample injected noise from `rng`. Generators without noise ignore it."""

    def set_noise_source(self, source: NoiseSource) -> None:
        """Take injected noise from `source`. Generators without noise ignore it."""

    def tileable_layers(self) -> nn.Sequential | None:
        """Return the layers that compute the generator one after the other, or None if it is not such a sequence.

        A generator with instance norms needs them to be run in tiles: the tiler goes from norm to norm. Residual blocks
        must be consecutive and work at 1/`size_multiple` of the image's height and width.
        """
        return None

    def checkpointed(self, stage: Callable[..., Any], features: Tensor, *arguments: Any) -> Any:
        """Return `stage(features, *arguments)`, with gradient checkpointing if it is on.

        The stage may sample dropout masks but no other random numbers.
        """
        if not (self.gradient_checkpointing and torch.is_grad_enabled()):
            return stage(features, *arguments)
        has_dropout = any(isinstance(layer, nn.Dropout) for layer in self.modules())
        return checkpoint(stage, features, *arguments, use_reentrant=False, preserve_rng_state=has_dropout)


def validate_nce_layers(layers: Sequence[int], num_layers: int) -> None:
    """Raise ValueError unless `layers` is a non-empty, strictly increasing list of indices below `num_layers`."""
    in_range = all(0 <= layer < num_layers for layer in layers)
    if not layers or not in_range or any(later <= earlier for earlier, later in pairwise(layers)):
        raise ValueError(f"layers must be strictly increasing indices from 0 to {num_layers - 1}")


def is_batch_dependent(network: nn.Module) -> bool:
    """Return True if the output for one image depends on the rest of the batch, or on a dropout mask.

    If it does not, several batches can share one forward pass, and features can be reused, with equal results.
    """
    return any(isinstance(layer, (nn.BatchNorm2d, nn.Dropout)) for layer in network.modules())


def check_batch_independence(networks: Mapping[str, nn.Module], batch_size: int) -> None:
    """Raise UserError if, in batches of `batch_size`, an image's output would differ from its output alone."""
    if batch_size == 1:
        return
    for network in networks.values():
        causes = [
            f"has a {type(layer).__name__} layer in training mode"
            for layer in network.modules()
            if isinstance(layer, (nn.BatchNorm2d, nn.Dropout)) and layer.training
        ]
        if isinstance(network, Generator) and network.injects_noise:
            causes.append("injects noise")
        if causes:
            raise UserError(
                f"--batch_size {batch_size}: the generator {causes[0]}, so an image's output depends on its batch. "
                "Use --batch_size 1."
            )
