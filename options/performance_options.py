"""Options that change how fast a step is computed, but not what is computed."""

from argparse import ArgumentParser, Namespace

from models.performance import PRECISIONS, PerformanceConfig, incompatibility
from util.cli import boolean, positive_int
from util.errors import UserError


def add_performance_arguments(parser: ArgumentParser, is_train: bool) -> None:
    """Declare the options. A test has only those that concern the forward pass."""
    group = parser.add_argument_group("performance", "docs/performance.md has measurements of each option")

    def add_bool(flag: str, help: str) -> None:
        group.add_argument(flag, type=boolean, nargs="?", const=True, default=False, help=help)

    add_bool("--fast", "the fastest of the following options for this device, unless they are set explicitly")
    group.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="fp32",
        help="fp32; tf32: NVIDIA GPUs round the factors of products; bf16: G and D compute in bfloat16, the rest in fp32",
    )
    add_bool("--channels_last", "channels-last memory format")
    add_bool("--compile", "networks compiled by torch.compile; the first steps take minutes")
    if is_train:
        add_bool("--cuda_graphs", "training steps as CUDA graphs, for small batches on a large GPU")
        add_bool("--grad_checkpoint", "gradient checkpointing of the generator's blocks: less memory, more computation")
        group.add_argument(
            "--accumulate", type=positive_int, default=1, help="number of batches to accumulate gradients over in one step"
        )
        group.add_argument(
            "--deterministic",
            action="store_true",
            help="deterministic algorithms, slower on a GPU; operations without one are reported",
        )


def validate_performance(opt: Namespace) -> None:
    """Raise UserError if the options are incompatible with each other."""
    values = {name: getattr(opt, name) for name in PerformanceConfig.__dataclass_fields__ if hasattr(opt, name)}
    if reason := incompatibility(opt, PerformanceConfig(**values)):
        raise UserError(reason)
