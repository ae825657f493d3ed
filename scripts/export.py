"""Writes a generator for other programs: `python scripts/export.py --checkpoint checkpoints/cat --format onnx --check`.

docs/usage.md says what each format is for.
"""

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

if __name__ == "__main__":
    from util.signals import quiet_sigint_during_import

    quiet_sigint_during_import()

# isort: split

from models.inference.checkpoint import LoadedGenerator, load_generator
from models.inference.export import EXPORTERS, ExportMismatchError, export_generator, latest_metrics, write_hub_folder
from options.saved_options import parse_architecture_overrides
from util.cli import CLIParser, configure_stdio
from util.errors import FAILURE_STATUS, UserError, exit_on_user_error
from util.runtime.weights import save_weights, write_safetensors
from util.train_log import read_metrics

# The choices of --format that are weights alone.
WEIGHT_FORMATS = {"safetensors": write_safetensors, "pth": save_weights}
HUB = "hub"


def build_parser() -> ArgumentParser:
    parser = CLIParser(description="Writes a trained generator for other programs. Architecture options are taken as well.")
    parser.add_argument("--checkpoint", type=Path, required=True, help="a generator's file, or a run's folder")
    parser.add_argument("--epoch", default="latest", help="which checkpoint of a run's folder")
    parser.add_argument("--network", default=None, help="which generator of a run's folder: G, G_A, G_B, G_ema")
    parser.add_argument(
        "--format",
        choices=[*EXPORTERS, *WEIGHT_FORMATS, HUB],
        required=True,
        help="a program for other runtimes, weights alone, or a folder in the Hugging Face hub's layout with a model card",
    )
    parser.add_argument("--output", type=Path, default=None, help="file, or folder of hub; by default beside the checkpoint")
    parser.add_argument("--uint8", action="store_true", help="programs take and give bytes (N, H, W, C), 0…255")
    parser.add_argument("--check", action="store_true", help="run the file at several sizes, and fail unless it agrees")
    parser.add_argument("--overwrite", action="store_true", help="replace what is there")
    return parser


def export(arguments: Namespace, architecture: dict[str, object]) -> None:
    """Does what the command line asks. Raises ExportMismatchError where the result computes something else."""
    loaded = load_generator(arguments.checkpoint, arguments.epoch, arguments.network, architecture)
    kind = arguments.format
    suffix = EXPORTERS[kind].suffix if kind in EXPORTERS else "_hub" if kind == HUB else f".{kind}"
    output = arguments.output or loaded.path.with_name(loaded.path.stem + suffix)
    if output.exists() and not arguments.overwrite:
        raise UserError(f"{output} is there already; --overwrite replaces it, --output names another place")
    if kind not in EXPORTERS and (arguments.uint8 or arguments.check):
        raise UserError(f"--uint8 and --check are for programs ({', '.join(EXPORTERS)}); {kind} holds weights as they are")
    print(loaded.describe())

    if kind == HUB:
        figures = latest_metrics(list(read_metrics(loaded.path.parent / "metrics.jsonl")))
        write_hub_folder(loaded, output, loaded.path.resolve().parent.name, figures)
    elif kind in WEIGHT_FORMATS:
        WEIGHT_FORMATS[kind](loaded.network, output)
    else:
        _write_program(loaded, kind, output, arguments.uint8, arguments.check)
    print(f"written: {output}")


def _write_program(loaded: LoadedGenerator, kind: str, output: Path, uint8: bool, check: bool) -> None:
    multiple = loaded.network.size_multiple
    difference = export_generator(loaded.network, loaded.options.input_nc, multiple, output, kind, uint8, check)
    print(f"takes any batch of images whose sides are multiples of {multiple} pixels, and at least {2 * multiple}")
    if check:
        print(f"checked at several sizes: the largest difference is {difference:.2g} {'levels' if uint8 else 'in [-1, 1]'}")


def main() -> None:
    configure_stdio()
    with exit_on_user_error():
        arguments, rest = build_parser().parse_known_args()
        try:
            export(arguments, parse_architecture_overrides(rest))
        except ExportMismatchError as error:
            print(f"error: {error}; nothing was written", file=sys.stderr)
            sys.exit(FAILURE_STATUS)


if __name__ == "__main__":
    main()
