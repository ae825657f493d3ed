"""Compare the throughput of scripts/translate.py with that of the generator alone.

    python scripts/benchmarks/benchmark_translate.py

The file pipeline (read, translate, write) and the generator on tensors in memory are timed in interleaved rounds. The result
is the ratio of their throughputs: 1 means that reading and writing files costs nothing.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter, process_time

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from data.image_io import read_array
from models import Translator
from models.inference.image_io import Job, to_tensor
from models.inference.pipeline import translate_files
from models.networks import GENERATORS, GeneratorConfig
from util.cli import CLIParser, image_size, positive_int
from util.errors import UserError, exit_on_user_error
from util.runtime.device import AUTO, describe_device, select_device


@exit_on_user_error()
def main() -> None:
    parser = CLIParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--netG", choices=list(GENERATORS), default="resnet_9blocks", help="generator architecture")
    parser.add_argument("--size", type=image_size, default=256, help="side of the JPEG images in pixels")
    parser.add_argument("--images", type=positive_int, default=8, help="images per round")
    parser.add_argument("--rounds", type=positive_int, default=5, help="interleaved rounds")
    parser.add_argument("--batch_size", type=positive_int, default=1, help="images per forward pass")
    parser.add_argument("--gpu_ids", default=AUTO, help="GPU index; -1 for the CPU; auto: a GPU if there is one")
    arguments = parser.parse_args()

    config = GeneratorConfig(3, 3, 64, "instance", False, True, True, arguments.size, 1)
    generator = GENERATORS[arguments.netG](config)
    if arguments.size < generator.min_size or arguments.size % generator.size_multiple:
        raise UserError(
            f"--size {arguments.size}: incompatible with --netG {arguments.netG}. Use a multiple of "
            f"{generator.size_multiple}, at least {generator.min_size}."
        )
    translator = Translator(generator, device=select_device(arguments.gpu_ids))
    with TemporaryDirectory() as folder:
        jobs = make_images(Path(folder), arguments.images, arguments.size)
        tensors = [to_tensor(read_array(str(job.source)), 3) for job in jobs]
        batches = torch.stack(tensors).split(arguments.batch_size)

        def run_generator() -> None:
            with torch.inference_mode():
                for batch in batches:
                    translator.generator(batch.to(translator.device)).cpu()

        def run_pipeline() -> None:
            assert not translate_files(translator, jobs, arguments.batch_size, threads=2, on_complete=lambda job: None)

        run_pipeline()  # warm up
        translator.noise.set_full_view(arguments.size, arguments.size)
        rounds = [(timed(run_generator), timed(run_pipeline)) for _ in tqdm(range(arguments.rounds), disable=None)]
    wall, cpu = zip(*((alone.wall / files.wall, alone.cpu / files.cpu) for alone, files in rounds), strict=True)
    rate = arguments.images / median(files.wall for _, files in rounds)
    print(f"{describe_device(translator.device)}: {rate:.2f} images per second from file to file")
    print(f"throughput, relative to the generator alone: {median(wall):.3f} ({min(wall):.3f} to {max(wall):.3f})")
    print(f"the same by CPU time, without overlap: {median(cpu):.3f} ({min(cpu):.3f} to {max(cpu):.3f})")


@dataclass(frozen=True)
class Duration:
    """Seconds of wall-clock time, and of CPU time of all threads."""

    wall: float
    cpu: float


def timed(run: Callable[[], None]) -> Duration:
    wall, cpu = perf_counter(), process_time()
    run()
    return Duration(perf_counter() - wall, process_time() - cpu)


def make_images(folder: Path, count: int, size: int) -> list[Job]:
    """Write JPEG files of noise: the slowest content to read and write."""
    (folder / "in").mkdir()
    jobs = []
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (size, size, 3), dtype=np.uint8)
        jobs.append(Job(folder / "in" / f"{number}.jpg", folder / "out" / f"{number}.jpg"))
        Image.fromarray(pixels).save(jobs[-1].source)
    return jobs


if __name__ == "__main__":
    main()
