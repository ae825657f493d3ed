"""Export a generator: `python scripts/export.py --checkpoint checkpoints/cat --format onnx --check`.

docs/usage.md describes the formats.
"""

import sys
from argparse import Namespace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

if __name__ == "__main__":
    from util.startup import prepare_import

    prepare_import()

# isort: split

from models.inference.checkpoint import LoadedGenerator, load_generator
from models.inference.export import EXPORTERS, ExportMismatchError, export_generator, min_multiples
from models.inference.hub import latest_metrics, write_hub_folder
from models.inference.raw_format import RAW_DTYPES, RawFormat, range_metadata
from options.saved_options import parse_architecture_overrides
from util.cli import CLIParser, configure_stdio
from util.errors import FAILURE_STATUS, UserError, exit_on_user_error
from util.files import prepare_output_dir, prepare_output_file
from util.runtime.weights import save_weights, write_safetensors
from util.terminal import print_line
from util.train_log import read_metrics

# The values of --format that are weights only.
WEIGHT_FORMATS = {"safetensors": write_safetensors, "pth": save_weights}
HUB = "hub"


def build_parser() -> CLIParser:
    parser = CLIParser(
        description="Export a trained generator to other programs. The architecture is inferred from the weights. For a "
        "network of your own, add its options, such as --netG."
    )
    parser.add_argument("--checkpoint", type=Path, required=True, help="weights file or run folder")
    parser.add_argument("--epoch", default="latest", help="checkpoint of a run folder")
    parser.add_argument("--network", default=None, help="generator of a run folder: G, G_A, G_B or G_ema")
    parser.add_argument(
        "--format",
        choices=[*EXPORTERS, *WEIGHT_FORMATS, HUB],
        required=True,
        help="program for another runtime, weights only, or a Hugging Face Hub folder with a model card",
    )
    parser.add_argument(
        "--output", type=Path, default=None, help="file, or folder for hub; by default next to the checkpoint"
    )
    parser.add_argument(
        "--uint8", action="store_true", help="uint8 images (N, H, W, C) in 0…255 as input and output of the program"
    )
    parser.add_argument(
        "--raw_io",
        choices=list(RAW_DTYPES),
        default=None,
        help="samples (N, H, W, C) of this type, in the value range of the training, as input and output of the program",
    )
    parser.add_argument(
        "--check", action="store_true", help="compare the file with the original at several sizes; fail if they differ"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file or folder")
    return parser


def export(arguments: Namespace, architecture: dict[str, object]) -> None:
    """Export the generator. Raise ExportMismatchError if the exported file computes something else."""
    loaded = load_generator(arguments.checkpoint, arguments.epoch, arguments.network, architecture)
    format = arguments.format
    suffix = EXPORTERS[format].suffix if format in EXPORTERS else "_hub" if format == HUB else f".{format}"
    output = arguments.output or loaded.path.with_name(loaded.path.stem + suffix)
    if output.exists() and not arguments.overwrite:
        raise UserError(f"--output: {output} exists. Use --overwrite to replace it, or another --output.")
    if arguments.uint8 and arguments.raw_io:
        raise UserError("--uint8: incompatible with --raw_io. Use one of them.")
    if format not in EXPORTERS and (arguments.uint8 or arguments.check or arguments.raw_io):
        flag = "--uint8" if arguments.uint8 else "--raw_io" if arguments.raw_io else "--check"
        raise UserError(f"{flag}: incompatible with --format {format}. Use --format {', '.join(EXPORTERS)}.")
    if format == HUB:
        prepare_output_dir(output, "--output")
    else:
        prepare_output_file(output, "--output")
    print_line(loaded.describe())

    if format == HUB:
        metrics = latest_metrics(read_metrics(loaded.path.parent / "metrics.jsonl"))
        write_hub_folder(loaded, output, loaded.path.resolve().parent.name, metrics)
    elif format in WEIGHT_FORMATS:
        WEIGHT_FORMATS[format](loaded.network, output)
    else:
        _export_program(loaded, format, output, arguments.uint8, arguments.check, arguments.raw_io)
    print(f"written: {output}")


def _export_program(
    loaded: LoadedGenerator, format: str, output: Path, uint8: bool, check: bool, raw_io: str | None
) -> None:
    generator, ranges = loaded.network, (loaded.input_range, loaded.output_range)
    raw = None if raw_io is None else RawFormat.create(raw_io, *ranges)
    metadata = range_metadata(*ranges)
    difference = export_generator(generator, loaded.options.input_nc, output, format, uint8, check, raw, metadata)
    multiple, smallest = generator.size_multiple, min_multiples(generator) * generator.size_multiple
    print_line(f"input: any batch size; sides that are multiples of {multiple} pixels, at least {smallest}")
    if check:
        unit = "gray levels" if uint8 else "in [-1, 1]" if raw is None else "in sample values"
        print_line(f"check passed at several sizes: largest difference {difference:.2g} {unit}")


def main() -> None:
    configure_stdio()
    with exit_on_user_error():
        parser = build_parser()
        arguments, rest = parser.parse_known_args()
        try:
            export(arguments, parse_architecture_overrides(rest, parser))
        except ExportMismatchError as error:
            print_line(f"error: {error}. Nothing was written.", file=sys.stderr)
            sys.exit(FAILURE_STATUS)


if __name__ == "__main__":
    main()
