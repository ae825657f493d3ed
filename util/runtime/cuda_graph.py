"""The training step as a recording: it is computed as usual a few times, then recorded, and from then on played back.

At small batches a large GPU waits for the program that tells it what to do, kernel by kernel. A CUDA graph holds the kernels
of a whole step. It reads and writes the same memory every time: images are copied there first. Random samples are part of
the graph: each replay continues the generator on the device, as the step itself would.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from util.runtime.rng import GraphRNG

WARMUP_STEPS = 3  # of each course: memory is reserved, kernels are chosen, optimizers get their state
REGISTERS_GENERATORS = "2.14"  # PyTorch version from which a graph registers its generators itself, and warns if told
MAX_GRAPHS = 8  # each holds the memory of a whole step; where images come in more sizes, the others are not recorded

Inputs = dict[str, Tensor]
Outputs = dict[str, Any]


class GraphBackend(Protocol):
    """Who records."""

    def warm_up(self, step: Callable[[], Outputs]) -> Outputs:
        """Computes the step as usual."""

    def record(self, step: Callable[[], Outputs]) -> Callable[[], Outputs]:
        """What plays the step back; recording it computes nothing."""


class CUDAGraphBackend:
    """Records CUDA graphs. They share their memory, for never do two of them run at once."""

    def __init__(self, device: torch.device, generator: torch.Generator) -> None:
        """Args: generator draws the samples of a step (positions, noise, penalties), which are new in every replay."""
        self.generator = generator
        self.stream = torch.cuda.Stream(device)
        self.pool = torch.cuda.graph_pool_handle()

    def warm_up(self, step: Callable[[], Outputs]) -> Outputs:
        # On the stream that records: what autograd remembers of a parameter belongs to the stream that it was first used on.
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            outputs = step()
        torch.cuda.current_stream().wait_stream(self.stream)
        return outputs

    def record(self, step: Callable[[], Outputs]) -> Callable[[], Outputs]:
        graph = torch.cuda.CUDAGraph()
        if torch.__version__ < REGISTERS_GENERATORS:
            graph.register_generator_state(self.generator)
        # "thread_local": the loader's thread, which pins memory meanwhile, shall not spoil the recording.
        with torch.cuda.graph(graph, pool=self.pool, stream=self.stream, capture_error_mode="thread_local"):
            outputs = step()

        def play() -> Outputs:
            graph.replay()
            return outputs

        return play


@dataclass
class GraphEntry:
    """One of the ways that a step can go: images of certain sizes, certain decisions."""

    inputs: Inputs
    steps: int = 0
    play: Callable[[], Outputs] | None = None


class CUDAGraphStep:
    """Calls `step` on inputs, and records it for every course that it takes."""

    def __init__(self, step: Callable[[Inputs], Outputs], draws: GraphRNG, recorder: GraphBackend) -> None:
        """Args: step computes its outputs from its inputs, from `draws` and from the generator on the device, and from
        nothing else that changes."""
        self.step = step
        self.draws = draws
        self.recorder = recorder
        self.courses: dict[Any, GraphEntry] = {}

    def __call__(self, inputs: Inputs) -> Outputs:
        """The outputs of one step; the next step of the same course overwrites them."""
        sizes = tuple((name, images.shape) for name, images in inputs.items())
        key = (sizes, self.draws.decide())
        if key not in self.courses:
            self.courses[key] = GraphEntry({name: images.clone() for name, images in inputs.items()})
        course = self.courses[key]
        course.steps += 1
        if course.play is None and (course.steps <= WARMUP_STEPS or self._recordings() >= MAX_GRAPHS):
            return self.recorder.warm_up(lambda: self.step(inputs))

        for name, images in inputs.items():
            course.inputs[name].copy_(images, non_blocking=True)
        if course.play is None:
            course.play = self.recorder.record(lambda: self.step(course.inputs))
        return course.play()

    def _recordings(self) -> int:
        return sum(course.play is not None for course in self.courses.values())
