"""The options that change how a step is computed, and not what."""

from argparse import ArgumentParser, Namespace
from typing import Any

from models.performance import PRECISIONS, PerformanceConfig, incompatibility
from util.cli import boolean, positive_int
from util.errors import UserError


def add_performance_arguments(parser: ArgumentParser, is_train: bool) -> None:
    """Declares them; a test has those that concern a single pass."""
    group = parser.add_argument_group("speed", "docs/performance.md says what each is worth")

    def switch(flag: str, help: str) -> None:
        on_or_off: dict[str, Any] = {"type": boolean, "nargs": "?", "const": True, "default": False}
        group.add_argument(flag, **on_or_off, help=help)

    switch("--fast", "the best known of what follows for this device, unless it is given")
    group.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="fp32",
        help="fp32; tf32: an NVIDIA GPU rounds the factors of products; bf16: G and D compute in bfloat16, all else in fp32",
    )
    switch("--channels_last", "memory layout with the channels last")
    switch("--compile", "compile the networks; the first steps take minutes")
    if is_train:
        switch("--cuda_graphs", "record a step and play it back: for small batches on a large GPU")
        switch("--grad_checkpoint", "compute the generator's blocks again instead of keeping their results: less memory")
        group.add_argument(
            "--accumulate", type=positive_int, default=1, help="batches whose gradients make one step, as if they were one"
        )
        group.add_argument(
            "--deterministic",
            action="store_true",
            help="algorithms with the same result every time, also on a GPU, where they are slower; what has none is named",
        )


def validate_performance(opt: Namespace) -> None:
    """Raises UserError for options that cannot go with each other."""
    asked = {name: getattr(opt, name) for name in PerformanceConfig.__dataclass_fields__ if hasattr(opt, name)}
    if reason := incompatibility(opt, PerformanceConfig(**asked)):
        raise UserError(reason)
