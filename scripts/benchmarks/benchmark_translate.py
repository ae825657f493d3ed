"""How much of a generator's speed is left when images are read from files and written to files:
`python scripts/benchmarks/benchmark_translate.py`.

Alternates between the pipeline of scripts/translate.py and the bare generator on tensors that are in memory already, and
prints the ratio of their times: 1 is a pipeline that costs nothing.
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

from models import Translator
from models.inference.image_io import Job, read_image_array, to_tensor
from models.inference.pipeline import translate_files
from models.networks import GENERATORS, GeneratorConfig
from util.cli import CLIParser, image_size, positive_int
from util.errors import exit_on_user_error
from util.runtime.device import AUTO, describe_device, select_device


@exit_on_user_error()
def main() -> None:
    parser = CLIParser(description="The pipeline of scripts/translate.py against the bare generator.")
    parser.add_argument("--netG", choices=list(GENERATORS), default="resnet_9blocks", help="the generator")
    parser.add_argument("--size", type=image_size, default=256, help="side of the images, JPEG, in pixels")
    parser.add_argument("--pictures", type=positive_int, default=8, help="in a round")
    parser.add_argument("--rounds", type=positive_int, default=5, help="of both, alternating")
    parser.add_argument("--batch_size", type=positive_int, default=1, help="images computed together")
    parser.add_argument("--gpu_ids", default=AUTO, help="number of the GPU; -1 for the CPU; auto: a GPU if there is one")
    arguments = parser.parse_args()

    settings = GeneratorConfig(3, 3, 64, "instance", False, True, True, arguments.size, 1)
    translator = Translator(GENERATORS[arguments.netG](settings), device=select_device(arguments.gpu_ids))
    with TemporaryDirectory() as folder:
        jobs = make_images(Path(folder), arguments.pictures, arguments.size)
        tensors = [to_tensor(read_image_array(job.source), 3) for job in jobs]
        batches = torch.stack(tensors).split(arguments.batch_size)

        def bare() -> None:
            with torch.inference_mode():
                for batch in batches:
                    translator.generator(batch.to(translator.device)).cpu()

        def pipeline() -> None:
            assert not translate_files(translator, jobs, arguments.batch_size, threads=2, on_complete=lambda job: None)

        translator.noise.set_full_view(arguments.size, arguments.size)
        rounds = [(measure(bare), measure(pipeline)) for _ in tqdm(range(arguments.rounds + 1), disable=None)]
    walls, cpus = zip(*((b.wall / p.wall, b.cpu / p.cpu) for b, p in rounds[1:]), strict=True)  # the first one warms up
    rate = arguments.pictures / median(p.wall for _, p in rounds[1:])
    print(f"on {describe_device(translator.device)}: {rate:.2f} images a second from file to file")
    print(f"throughput over the bare generator's: {median(walls):.3f} (from {min(walls):.3f} to {max(walls):.3f})")
    print(f"by CPU time, as if nothing overlapped: {median(cpus):.3f} (from {min(cpus):.3f} to {max(cpus):.3f})")


@dataclass(frozen=True)
class Time:
    """What something took, in seconds by the clock and of all processors."""

    wall: float
    cpu: float


def measure(run: Callable[[], None]) -> Time:
    wall, cpu = perf_counter(), process_time()
    run()
    return Time(perf_counter() - wall, process_time() - cpu)


def make_images(folder: Path, count: int, size: int) -> list[Job]:
    """JPEG files of noise, which are the slowest to read and to write."""
    (folder / "in").mkdir()
    jobs = []
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (size, size, 3), dtype=np.uint8)
        jobs.append(Job(folder / "in" / f"{number}.jpg", folder / "out" / f"{number}.jpg"))
        Image.fromarray(pixels).save(jobs[-1].source)
    return jobs


if __name__ == "__main__":
    main()
