"""Whether images of a test may share a batch."""

from collections.abc import Mapping

from torch import nn

from models.networks.stylegan2 import NoiseInjection
from util.errors import UserError


def check_batch_independence(networks: Mapping[str, nn.Module], batch_size: int) -> None:
    """Raises UserError where networks that take `batch_size` images at a time would not give each what it gets alone."""
    layers = [layer for network in networks.values() for layer in network.modules()] if batch_size > 1 else []
    for layer in layers:
        if (isinstance(layer, (nn.BatchNorm2d, nn.Dropout)) and layer.training) or isinstance(layer, NoiseInjection):
            raise UserError(
                f"--batch_size {batch_size}: this generator has a {type(layer).__name__}, so that what becomes of a "
                "image depends on the others of its batch; leave out --batch_size"
            )
