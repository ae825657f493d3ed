"""Scores translations against the truth, where it is known: `python scripts/score_pairs.py --results DIR --truth DIR`.

DIR of --results is a page's folder, with images/real_A and images/fake_B; --truth holds pictures of equal names.
"""

import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from util.errors import UserError, exit_on_user_error
from util.report.paired_metrics import mean_score


def pairs(pictures: Path, truth: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Each picture of a folder with the one of the same stem in `truth`, as (H, W, 3) bytes. Raises UserError."""
    answers = {path.stem: path for path in sorted(truth.iterdir())} if truth.is_dir() else {}
    files = sorted(pictures.glob("*.png"))
    if not files:
        raise UserError(f"{pictures} has no pictures; --results is the folder of a page that test.py wrote")
    for file in files:
        if file.stem not in answers:
            raise UserError(f"{truth} has no picture named {file.stem}, which {pictures} has")
        yield read(file), read(answers[file.stem])


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def main() -> None:
    parser = ArgumentParser(description="PSNR and SSIM of translations against their paired truth.")
    parser.add_argument("--results", type=Path, required=True, help="a page's folder, such as results/demo/test_latest")
    parser.add_argument(
        "--truth", type=Path, required=True, help="folder of the true translations, such as datasets/demo/testB"
    )
    arguments = parser.parse_args()
    with exit_on_user_error():
        for title, visual in (("input left as it is", "real_A"), ("translation", "fake_B")):
            score = mean_score(pairs(arguments.results / "images" / visual, arguments.truth))
            print(f"{title:>20}: PSNR {score.psnr:5.2f} dB, SSIM {score.ssim:.3f} (mean of {score.pairs} pictures)")


if __name__ == "__main__":
    main()
