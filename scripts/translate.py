"""Translates images with a trained generator, each to a file of the same name, kind and size:
`python scripts/translate.py --checkpoint checkpoints/horse2zebra --input photos --output zebras`.

docs/usage.md shows what else it can do.
"""

import math
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

if __name__ == "__main__":
    from util.signals import quiet_sigint_during_import

    quiet_sigint_during_import()

# isort: split

from models import Translator
from models.inference.image_io import Job, pending_jobs, plan_jobs, plan_video
from models.inference.pipeline import Existing, translate_files
from models.inference.tiling import DEFAULT_TILE
from models.inference.video import VIDEO_EXTENSIONS, VideoError, count_frames, translate_video
from options.saved_options import parse_architecture_overrides
from util.cli import CLIParser, configure_stdio, image_size, positive_float, positive_int, seed, unit_interval
from util.errors import FAILURE_STATUS, exit_on_user_error, stop_status
from util.files import prepare_output_dir, remove_stale_temp_files
from util.runtime.device import AUTO, describe_device

BATCH_ON_GPU = 8
GIGABYTE = 10**9


def build_parser() -> ArgumentParser:
    parser = CLIParser(
        description="Translates an image, a folder, a pattern, or a video. Architecture options such as --netG, which "
        "train.py knows, are taken as well; they are needed for networks of your own alone."
    )
    parser.add_argument(
        "--checkpoint", required=True, help="a generator's file, a run's folder, or a folder of the hub's layout"
    )
    parser.add_argument("--input", required=True, help="an image, a folder, a pattern in quotes, or a video")
    parser.add_argument("--output", type=Path, required=True, help="folder of the results; for one image or video, its name")
    parser.add_argument("--epoch", default="latest", help="which checkpoint of a run's folder")
    parser.add_argument("--network", default=None, help="which generator of a run's folder: G, G_A, G_B, G_ema")
    parser.add_argument("--gpu_ids", default=AUTO, help="number of the GPU; -1 for the CPU; auto: a GPU if there is one")
    parser.add_argument("--resume", action="store_true", help="keep results that are there, and do the others")
    parser.add_argument("--overwrite", action="store_true", help="make results that are there anew")
    parser.add_argument(
        "--short_side",
        type=image_size,
        default=None,
        help="pixels to resize the shorter side to; by default no image is resized",
    )
    parser.add_argument(
        "--batch_size",
        type=positive_int,
        default=None,
        help=f"images computed together; by default {BATCH_ON_GPU} on a GPU, 1 on the CPU",
    )
    parser.add_argument("--num_threads", type=positive_int, default=2, help="threads that read, and as many that write")
    parser.add_argument(
        "--bf16", action="store_true", help="compute in bfloat16: faster on hardware that has it, less exact"
    )
    parser.add_argument(
        "--tile",
        type=image_size,
        nargs="?",
        const=DEFAULT_TILE,
        default=None,
        help="compute every image in tiles of so many pixels; by default those that do not fit into memory",
    )
    parser.add_argument(
        "--memory", type=positive_float, default=None, help="gigabytes that may be used; by default most of what is free"
    )
    parser.add_argument("--scratch", type=Path, default=None, help="folder for what tiles keep when memory does not do")
    parser.add_argument(
        "--smooth",
        type=unit_interval,
        default=0.0,
        help="of a video: 0 to 1, how much of the last frame stays where nothing moves",
    )
    parser.add_argument("--seed", type=seed, default=0, help="of the noise in StyleGAN2 generators")
    return parser


def translate(arguments: Namespace, architecture: dict[str, object]) -> bool:
    """Does what the command line asks. Returns whether everything has its translation."""
    is_video = Path(arguments.input).suffix.lower() in VIDEO_EXTENSIONS and Path(arguments.input).is_file()
    jobs = (
        [plan_video(Path(arguments.input), arguments.output)] if is_video else plan_jobs(arguments.input, arguments.output)
    )
    todo = pending_jobs(jobs, arguments.resume, arguments.overwrite)
    translator = load_translator(arguments, architecture)
    print(f"{translator.origin}, on {describe_device(translator.device)}")
    prepare_output_dir(jobs[0].target.parent, "--output")
    if arguments.scratch is not None:
        prepare_output_dir(arguments.scratch, "--scratch")
    batch_size = arguments.batch_size or (BATCH_ON_GPU if translator.device.type == "cuda" else 1)
    if is_video:
        return all(translate_one_video(translator, job, batch_size, arguments.smooth) for job in todo)

    # Several of these programs may work in one folder: each writes to temporary files of its own.
    existing: Existing = "replace" if arguments.overwrite else "keep" if arguments.resume else "refuse"
    for folder in {job.target.parent for job in todo}:
        remove_stale_temp_files(folder.glob(".part.*"), alone=False)
    with tqdm(total=len(todo), unit=" images", dynamic_ncols=True, disable=None) as bar:
        failures = translate_files(
            translator, todo, batch_size, arguments.num_threads, lambda job: bar.update(), existing=existing
        )
    for failure in failures:
        print(f"{failure.job.source}: {failure.reason}", file=sys.stderr)
    skipped = f", {len(jobs) - len(todo)} were there already" if len(todo) < len(jobs) else ""
    failed = f", {len(failures)} could not be" if failures else ""
    print(f"{len(todo) - len(failures)} of {len(jobs)} images translated{skipped}{failed}: {arguments.output}")
    return not failures


def translate_one_video(translator: Translator, job: Job, batch_size: int, smoothing: float) -> bool:
    """Translates a video, and says how much it flickers. Returns whether it could be done."""
    with tqdm(total=count_frames(job.source), unit=" frames", dynamic_ncols=True, disable=None) as bar:
        try:
            report = translate_video(translator, job.source, job.target, batch_size, smoothing, lambda: bar.update())
        except VideoError as error:
            print(f"{job.source}: {error}", file=sys.stderr)
            return False
    print(f"{report.frames} frames translated: {job.target}")
    before, after = report.smoothing.before.levels, report.smoothing.after.levels
    if math.isnan(before):
        print("flicker: not known, the source stands still nowhere")
        return True
    smoothed = f", {after:.2f} after --smooth {smoothing:g}" if smoothing else ""
    print(f"flicker, where the source stands still, in levels of 255 per frame: {before:.2f}{smoothed}")
    return True


def load_translator(arguments: Namespace, architecture: dict[str, object]) -> Translator:
    """The translator that the command line asks for."""
    return Translator.from_checkpoint(
        arguments.checkpoint,
        epoch=arguments.epoch,
        network=arguments.network,
        architecture=architecture,
        gpu_ids=arguments.gpu_ids,
        bf16=arguments.bf16,
        tile=arguments.tile,
        memory=None if arguments.memory is None else int(arguments.memory * GIGABYTE),
        short_side=arguments.short_side,
        seed=arguments.seed,
        scratch=arguments.scratch,
        say=tqdm.write,
    )


def main() -> None:
    configure_stdio()
    with exit_on_user_error():
        try:
            arguments, rest = build_parser().parse_known_args()
            if not translate(arguments, parse_architecture_overrides(rest)):
                sys.exit(FAILURE_STATUS)
        except KeyboardInterrupt as interruption:
            print("interrupted; --resume goes on from here", file=sys.stderr)
            sys.exit(stop_status(interruption))


if __name__ == "__main__":
    main()
