"""The examples of docs/datasets.md for other images than 8-bit RGB, in real processes."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from programs import ROOT, succeed

from data.image_io import read_array

TINY = [
    "--netG",
    "resnet_4blocks",
    "--ngf",
    "2",
    "--ndf",
    "2",
    "--netF_nc",
    "4",
    "--num_patches",
    "8",
    "--nce_layers",
    "0,4",
]
TINY += ["--load_size", "36", "--crop_size", "32", "--n_epochs", "1", "--n_epochs_decay", "0"]
MORE = {"datasets/make_nchannel_dataset.py": ["--size", "32", "--train", "4", "--test", "2"], "train.py": TINY}


def documented_commands(kind: str) -> list[list[str]]:
    """Return the commands of docs/datasets.md about the dataset of this kind, without `python`."""
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "docs" / "datasets.md").read_text(), re.DOTALL)
    (block,) = [block for block in blocks if f"--kind {kind}\n" in block]
    return [shlex.split(line)[1:] for line in block.splitlines()]


@pytest.mark.parametrize(
    ("kind", "dtype", "bands"), [("satellite", "uint16", 5), ("microscopy", "uint16", 1), ("ct", "float32", 1)]
)
def test_documented_commands(kind: str, dtype: str, bands: int, tmp_path: Path) -> None:
    said = ""
    for program, *arguments in documented_commands(kind):
        if program.startswith("datasets"):
            subprocess.run([sys.executable, str(ROOT / program), *arguments, *MORE[program]], cwd=tmp_path, check=True)
        else:
            said += succeed(tmp_path, program, *arguments, *MORE.get(program, []))
    assert "PSNR" in said
    results = sorted((tmp_path / "results" / kind / "test_latest" / "images" / "fake_B").iterdir())
    source = sorted((tmp_path / "datasets" / kind / "testA").iterdir())[0]
    assert [path.suffix for path in results] == [source.suffix] * 2
    result = read_array(str(results[0]))
    assert (str(result.pixels.dtype), result.bands) == (dtype, bands)

    succeed(
        tmp_path, "scripts/translate.py", "--checkpoint", f"checkpoints/{kind}", "--input", str(source), "--output", "out"
    )
    translated = read_array(str(tmp_path / "out" / source.name))
    assert (translated.pixels.dtype, translated.bands) == (result.pixels.dtype, bands)
    if kind == "satellite":
        with tifffile.TiffFile(tmp_path / "out" / source.name) as tif:
            assert tif.pages[0].tags[33550].value == (10.0, 10.0, 0.0)
    if kind == "ct":
        assert -160 <= translated.pixels.min() <= translated.pixels.max() <= 240
    assert np.isfinite(translated.pixels).all()
