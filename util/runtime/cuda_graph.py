"""CUDA graph execution of a training step: warm up, capture, then replay.

At small batch sizes a fast GPU waits for the CPU, which launches the kernels one by one. A CUDA graph holds all kernels of a
step and is launched at once. It reads and writes the same memory in every replay, so the inputs are copied there first.
Random samples are part of the graph: each replay advances the device's generator as the step itself would.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from util.runtime.rng import GraphRNG

WARMUP_STEPS = 3  # per graph: memory is reserved, kernels are chosen, optimizers create their state
SELF_REGISTERING = "2.14"  # PyTorch version from which a graph registers its generators itself, and warns if told
MAX_GRAPHS = 8  # each holds the memory of a whole step; steps on further image sizes run without a graph

Inputs = dict[str, Tensor]  # "real_A", "real_B": (N, C, H, W)
Outputs = dict[str, Any]  # what a step leaves behind: "losses", and images by attribute name


class GraphBackend(Protocol):
    """Capture and replay of a step."""

    def warm_up(self, step: Callable[[], Outputs]) -> Outputs:
        """Run the step eagerly, and return its outputs."""

    def capture(self, step: Callable[[], Outputs]) -> Callable[[], Outputs]:
        """Capture the step without running it, and return a function that replays it."""


class CUDAGraphBackend:
    """CUDA graphs of one device. They share a memory pool, because no two of them run at once.

    Args:
        device: CUDA device.
        device_rng: generator of the samples of a step (patch positions, noise, penalties). Each replay advances it.
    """

    def __init__(self, device: torch.device, device_rng: torch.Generator) -> None:
        self.device_rng = device_rng
        self.stream = torch.cuda.Stream(device)
        self.pool = torch.cuda.graph_pool_handle()

    def warm_up(self, step: Callable[[], Outputs]) -> Outputs:
        # On the capture stream: autograd ties a parameter's gradient to the stream on which the parameter was first used.
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            outputs = step()
        torch.cuda.current_stream().wait_stream(self.stream)
        return outputs

    def capture(self, step: Callable[[], Outputs]) -> Callable[[], Outputs]:
        graph = torch.cuda.CUDAGraph()
        if torch.__version__ < SELF_REGISTERING:
            graph.register_generator_state(self.device_rng)
        # "thread_local": the loader's thread pins memory meanwhile, which must not invalidate the capture.
        with torch.cuda.graph(graph, pool=self.pool, stream=self.stream, capture_error_mode="thread_local"):
            outputs = step()

        def replay() -> Outputs:
            graph.replay()
            return outputs

        return replay


@dataclass
class GraphEntry:
    """Static inputs and graph for one set of image sizes and one branch of the step."""

    inputs: Inputs
    steps: int = 0
    replay: Callable[[], Outputs] | None = None


class CUDAGraphStep:
    """Run `step` on inputs, with one graph per set of image sizes and branch.

    Args:
        step: computes outputs from its inputs, `rng` and constants; nothing else that it reads may change.
        rng: source of the step's coin flips, which select its branch.
        backend: captures the graphs.
    """

    def __init__(self, step: Callable[[Inputs], Outputs], rng: GraphRNG, backend: GraphBackend) -> None:
        self.step = step
        self.rng = rng
        self.backend = backend
        self.graphs: dict[Any, GraphEntry] = {}

    def __call__(self, inputs: Inputs) -> Outputs:
        """Return the outputs of one step. The next replay of the same graph overwrites them."""
        sizes = tuple((name, images.shape) for name, images in inputs.items())
        key = (sizes, self.rng.flip_in_advance())
        if key not in self.graphs:
            self.graphs[key] = GraphEntry({name: images.clone() for name, images in inputs.items()})
        entry = self.graphs[key]
        entry.steps += 1
        if entry.replay is None and (entry.steps <= WARMUP_STEPS or self._count_captured() >= MAX_GRAPHS):
            return self.backend.warm_up(lambda: self.step(inputs))

        torch._foreach_copy_(list(entry.inputs.values()), [inputs[name] for name in entry.inputs], non_blocking=True)
        if entry.replay is None:
            entry.replay = self.backend.capture(lambda: self.step(entry.inputs))
        return entry.replay()

    def _count_captured(self) -> int:
        return sum(entry.replay is not None for entry in self.graphs.values())
