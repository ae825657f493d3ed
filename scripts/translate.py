"""Translate images or a video with a trained generator, to files of the same name, format and size.

Example: `python scripts/translate.py --checkpoint checkpoints/horse2zebra --input photos --output zebras`.
docs/usage.md has more examples.
"""

import math
import sys
from argparse import Namespace
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

if __name__ == "__main__":
    from util.startup import prepare_import

    prepare_import()

# isort: split

from data.image_io import size_in_header
from data.image_reader import ReadOptions
from data.image_writer import WRITERS
from models import Translator
from models.inference.image_io import MAX_LISTED, Job, pending_jobs, plan_inputs, plan_video
from models.inference.pipeline import Existing, Failure, translate_files
from models.inference.tiling import DEFAULT_TILE
from models.inference.video import VIDEO_EXTENSIONS, VideoError, count_frames, translate_video
from options.reading_options import add_reading_arguments
from options.saved_options import parse_architecture_overrides
from util.cli import CLIParser, configure_stdio, image_size, positive_float, positive_int, seed, unit_interval
from util.errors import FAILURE_STATUS, UserError, exit_on_user_error, stop_status
from util.files import prepare_output_dir, remove_stale_temp_files
from util.runtime.device import AUTO, describe_device
from util.terminal import print_line

GPU_BATCH_SIZE = 8
MAX_SCALE = 2  # an image of more times the training's size gets a note
GIGABYTE = 10**9  # unit of --memory
FORMATS = [writer.extensions[0].removeprefix(".") for writer in WRITERS.values()]


def build_parser() -> CLIParser:
    parser = CLIParser(
        description="Translate an image, a folder, a pattern or a video with a trained generator. The architecture is "
        "inferred from the weights. For a network of your own, add its options, such as --netG."
    )
    parser.add_argument(
        "--checkpoint", required=True, help="weights file, run folder, or folder in the layout of the Hugging Face Hub"
    )
    parser.add_argument("--input", required=True, nargs="+", help="images, folders, patterns, or one video")
    parser.add_argument(
        "--output", type=Path, required=True, help="folder for the results; for one image or video, also a file name"
    )
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default=None,
        help="file type of the results; by default that of each input. tif and npy hold any number of channels",
    )
    parser.add_argument("--epoch", default="latest", help="checkpoint of a run folder")
    parser.add_argument("--network", default=None, help="generator of a run folder: G, G_A, G_B or G_ema")
    parser.add_argument("--gpu_ids", default=AUTO, help="GPU index; -1 for the CPU; auto: a GPU if there is one")
    parser.add_argument("--resume", action="store_true", help="skip existing results")
    parser.add_argument("--overwrite", action="store_true", help="replace existing results")
    parser.add_argument(
        "--short_side",
        type=image_size,
        default=None,
        help="size in pixels to resize the shorter side to; by default images are not resized",
    )
    parser.add_argument(
        "--batch_size",
        type=positive_int,
        default=None,
        help=f"number of images of equal size per batch; by default {GPU_BATCH_SIZE} on a GPU, 1 on the CPU",
    )
    parser.add_argument(
        "--num_threads", type=positive_int, default=2, help="number of threads that read, and of threads that write"
    )
    parser.add_argument(
        "--bf16", action="store_true", help="bfloat16 precision: faster on hardware that supports it, but less exact"
    )
    add_reading_arguments(parser.add_argument_group("reading of images, by default as in training"), has_saved=True)
    parser.add_argument(
        "--tile",
        type=image_size,
        nargs="?",
        const=DEFAULT_TILE,
        default=None,
        help=f"tile size in pixels, {DEFAULT_TILE} without a number; by default only images larger than memory are tiled",
    )
    parser.add_argument(
        "--memory", type=positive_float, default=None, help="memory limit in gigabytes; by default most of the free memory"
    )
    parser.add_argument(
        "--scratch", type=Path, default=None, help="folder for temporary feature maps of tiled images larger than memory"
    )
    parser.add_argument(
        "--smooth",
        type=unit_interval,
        default=0.0,
        help="weight of the previous video frame where the source is static, 0 to 1",
    )
    parser.add_argument("--seed", type=seed, default=0, help="random seed of the noise in StyleGAN2 generators")
    return parser


def translate(arguments: Namespace, architecture: dict[str, object]) -> bool:
    """Translate the input. Return True if every image or video was translated."""
    videos = [Path(source) for source in arguments.input if is_video(Path(source))]
    if videos and len(arguments.input) > 1:
        raise UserError(f"--input: {videos[0]} is a video, and there are other inputs. Translate videos one by one.")
    if videos:
        jobs = [plan_video(videos[0], arguments.output)]
    else:
        suffix = None if arguments.format is None else f".{arguments.format}"
        jobs = plan_inputs(arguments.input, arguments.output, suffix, all_pages=arguments.tiff_pages == "all")
    pending = pending_jobs(jobs, arguments.resume, arguments.overwrite)
    translator = load_translator(arguments, architecture)
    print_line(f"{translator.source}, on {describe_device(translator.device)}")
    options = ReadOptions.of(arguments, translator.saved_options)
    if taken_over := saved_reading(arguments, options):
        print(f"as in training: {taken_over}")
    if pending and arguments.short_side is None and (note := scale_note(pending[0].source, translator.saved_options)):
        print_line(note)
    prepare_output_dir(jobs[0].target.parent, "--output")
    if arguments.scratch is not None:
        prepare_output_dir(arguments.scratch, "--scratch")
    batch_size = arguments.batch_size or (GPU_BATCH_SIZE if translator.device.type == "cuda" else 1)
    if videos:
        return all(translate_one_video(translator, job, batch_size, arguments.smooth) for job in pending)

    # Several processes may work on one folder: each writes temporary files of its own.
    existing: Existing = "replace" if arguments.overwrite else "keep" if arguments.resume else "refuse"
    for folder in {job.target.parent for job in pending}:
        remove_stale_temp_files(folder.glob(".part.*"), alone=False)
    with tqdm(total=len(pending), unit=" images", dynamic_ncols=True, disable=None) as bar:

        def count(job: Job) -> None:
            with bar.get_lock():  # results are written in several threads
                bar.update()

        failures = translate_files(
            translator,
            pending,
            batch_size,
            arguments.num_threads,
            count,
            existing=existing,
            options=options,
            on_start=lambda job: bar.set_postfix_str(job.source.name),
        )
    for line in describe_failures(failures):
        print_line(line, file=sys.stderr)
    skipped = f", {len(jobs) - len(pending)} skipped" if len(pending) < len(jobs) else ""
    failed = f", {len(failures)} failed" if failures else ""
    print_line(f"{len(pending) - len(failures)} of {len(jobs)} images translated{skipped}{failed}: {arguments.output}")
    return not failures


def describe_failures(failures: Sequence[Failure]) -> Iterator[str]:
    """Yield a line for each of the first failures of every reason, and one line with the number of the others."""
    files: dict[str, list[Path]] = defaultdict(list)
    for failure in failures:
        files[failure.reason].append(failure.job.source)
    for reason, failed in files.items():
        yield from (f"{file}: {reason}" for file in failed[:MAX_LISTED])
        if len(failed) > MAX_LISTED:
            yield f"{len(failed) - MAX_LISTED} more of {len(failed)} files: {reason}"


def saved_reading(arguments: Namespace, options: ReadOptions) -> str:
    """Return the flags that change what the generator sees and that the command line leaves to the training run."""
    bands = options.tiff_pages == "bands" and arguments.tiff_pages is None
    srgb = options.to_srgb and arguments.to_srgb is None
    return " ".join(["--tiff_pages bands"] * bands + ["--to_srgb"] * srgb)


def scale_note(image: Path, saved_options: Mapping[str, Any]) -> str | None:
    """Return a note if the image is much larger than those of a training that resized all to one size, else None."""
    crop_size, size = saved_options.get("crop_size"), size_in_header(str(image))
    if saved_options.get("preprocess") != "resize_and_crop" or not isinstance(crop_size, int) or size is None:
        return None
    if min(size) <= MAX_SCALE * crop_size:
        return None
    return (
        f"note: {image.name} has {size[0]}x{size[1]} pixels, but the run was trained at {crop_size}x{crop_size}. "
        f"Use --short_side {crop_size} to translate at that scale."
    )


def is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_EXTENSIONS and path.is_file()


def translate_one_video(translator: Translator, job: Job, batch_size: int, smoothing: float) -> bool:
    """Translate a video and print its flicker. Return True if it was translated."""
    with tqdm(total=count_frames(job.source), unit=" frames", dynamic_ncols=True, disable=None) as bar:
        try:
            stats = translate_video(translator, job.source, job.target, batch_size, smoothing, lambda: bar.update())
        except VideoError as error:
            print_line(f"{job.source}: {error}", file=sys.stderr)
            return False
    print_line(f"{stats.frames} frames translated: {job.target}")
    if math.isnan(stats.flicker):
        print_line("flicker: unknown, because no pixel of the source is static")
        return True
    smoothed = f", {stats.smoothed_flicker:.2f} with --smooth {smoothing:g}" if smoothing else ""
    print_line(f"flicker where the source is static, in gray levels (0 to 255) per frame: {stats.flicker:.2f}{smoothed}")
    return True


def load_translator(arguments: Namespace, architecture: dict[str, object]) -> Translator:
    """Create the translator from the command-line arguments."""
    return Translator.from_checkpoint(
        arguments.checkpoint,
        epoch=arguments.epoch,
        network=arguments.network,
        architecture=architecture,
        gpu_ids=arguments.gpu_ids,
        bf16=arguments.bf16,
        tile=arguments.tile,
        memory_limit=None if arguments.memory is None else int(arguments.memory * GIGABYTE),
        short_side=arguments.short_side,
        seed=arguments.seed,
        tmp_dir=arguments.scratch,
        log=print_line,
    )


def main() -> None:
    configure_stdio()
    with exit_on_user_error():
        try:
            parser = build_parser()
            arguments, rest = parser.parse_known_args()
            if not translate(arguments, parse_architecture_overrides(rest, parser)):
                sys.exit(FAILURE_STATUS)
        except KeyboardInterrupt as interruption:
            print_line("interrupted. Use --resume to continue.", file=sys.stderr)
            sys.exit(stop_status(interruption))


if __name__ == "__main__":
    main()
