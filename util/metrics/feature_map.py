"""Feature maps inside a program of torch.export."""

from typing import Any, Self

from torch import Tensor, nn
from torch.fx import GraphModule, Interpreter, Node


class LastFeatureMap(nn.Module):
    """Run a torch.export program and return its last feature map (N, C, h, w) of more than one position.

    Args:
        program: module of the program.
        layer: name of the node in its graph that computes the feature map.
    """

    def __init__(self, program: GraphModule, layer: str) -> None:
        super().__init__()
        self.program = program
        self.layer = layer

    @classmethod
    def find(cls, network: nn.Module) -> Self | None:
        """Return None if there is no feature map, or if the graph is hidden, as that of a TorchScript program."""
        nodes = reversed(network.graph.nodes) if isinstance(network, GraphModule) else ()
        return next((cls(network, node.name) for node in nodes if _is_feature_map(node)), None)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Tensor:
        interpreter = _LayerInterpreter(self.program, self.layer)
        interpreter.run(images)
        return interpreter.found


def _is_feature_map(node: Node) -> bool:
    """Return True if the node computes (N, C, h, w) with more than one position, as far as the sizes are known."""
    value = node.meta.get("val")
    if node.op != "call_function" or not isinstance(value, Tensor) or value.ndim != 4 or not value.is_floating_point():
        return False
    return all(side != 1 for side in value.shape[2:] if isinstance(side, int))


class _LayerInterpreter(Interpreter):
    """Interpreter that stores the result of one node in `found`."""

    found: Tensor

    def __init__(self, program: GraphModule, layer: str) -> None:
        super().__init__(program)
        self.layer = layer

    def run_node(self, n: Node) -> Any:
        result = super().run_node(n)
        if n.name == self.layer:
            self.found = result
        return result
