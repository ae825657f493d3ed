"""First values of the weights, by --init_type and --init_gain."""

from collections.abc import Callable

from torch import Tensor, nn

INIT_FUNCTIONS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "normal": lambda weight, gain: nn.init.normal_(weight, 0.0, gain),
    "xavier": lambda weight, gain: nn.init.xavier_normal_(weight, gain=gain),
    "kaiming": lambda weight, gain: nn.init.kaiming_normal_(weight, a=0, mode="fan_in"),
    "orthogonal": lambda weight, gain: nn.init.orthogonal_(weight, gain=gain),
}


def init_weights(network: nn.Module, init_type: str = "xavier", gain: float = 0.02) -> None:
    """Draws the weights of convolutions and linear layers anew, sets their biases to zero, and draws batch-norm scales
    from normal(1, gain). Layers of other classes (StyleGAN2's) keep the initialization they brought along.

    `init_type` is a key of `INIT_FUNCTIONS`; kaiming takes no gain.
    """
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            INIT_FUNCTIONS[init_type](layer.weight, gain)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1.0, gain)
            nn.init.zeros_(layer.bias)
