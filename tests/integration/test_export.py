"""Exports: every format agrees with the original at sizes other than the traced one, and a mismatch is an error."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from generators import checkpoint, generator, image

from data.value_range import ValueRange
from models import MODELS, Translator
from models.inference.checkpoint import load_generator
from models.inference.export import EXPORTERS, ExportableGenerator, ExportMismatchError, export_generator, random_images
from models.inference.hub import PUBLIC_OPTIONS, latest_metrics, model_card, write_hub_folder
from models.inference.raw_format import RawFormat, range_metadata
from models.networks import GENERATORS
from models.networks.base import Generator
from options import TrainOptions
from scripts.export import main
from util.errors import UserError
from util.runtime.weights import save_weights, write_safetensors
from util.version import format_version, program_version

SMALL = {"ngf": 2}


@pytest.mark.parametrize("format", EXPORTERS)
def test_formats_agree_with_the_original(tmp_path: Path, format: str) -> None:
    file = tmp_path / "network"
    assert export_generator(generator(**SMALL), 3, file, format) < 1e-4
    assert [path.name for path in tmp_path.iterdir()] == ["network"]
    assert format_version(program_version()) == stored_version(file, format)


def stored_version(file: Path, format: str) -> str:
    """Return the version of the program that an exported file names."""
    if format == "onnx":
        return {entry.key: entry.value for entry in onnx.load(file).metadata_props}["program"]
    stored = {"program": ""}
    if format == "exported":
        torch.export.load(file, extra_files=stored)
        return stored["program"]
    torch.jit.load(str(file), _extra_files=stored)
    return stored["program"].decode()


def test_onnx_accepts_uint8_images_of_any_size(tmp_path: Path) -> None:
    network = generator(**SMALL)
    assert export_generator(network, 3, tmp_path / "bytes.onnx", "onnx", uint8=True) <= 1
    session = onnxruntime.InferenceSession(str(tmp_path / "bytes.onnx"), providers=["CPUExecutionProvider"])
    pixels = random_images(2, 36, 52, 3, uint8=True).numpy()
    (found,) = session.run(None, {"image": pixels})
    assert found.dtype == np.uint8 and found.shape == (2, 36, 52, 3)
    expected = [Translator(network, device=torch.device("cpu"))(one) for one in pixels]
    assert np.abs(found.astype(int) - np.stack(expected)).max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize("uint8", [False, True])
@pytest.mark.parametrize("format", EXPORTERS)
@pytest.mark.parametrize("name", GENERATORS)
def test_every_generator_exports_in_every_format(tmp_path: Path, name: str, format: str, uint8: bool) -> None:
    difference = export_generator(generator(name, **SMALL), 3, tmp_path / "network", format, uint8)
    assert difference <= 1 if uint8 else difference < 1e-3


def test_a_mismatch_is_an_error_and_leaves_no_file(tmp_path: Path) -> None:
    class DependsOnSize(Generator):
        """Tracing records one branch only: that of the example input."""

        size_multiple = 4
        min_size = 4

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image * 0.5 if image.shape[2] == 8 else image

    with pytest.raises(ExportMismatchError, match=r"differs from the original by"):
        export_generator(DependsOnSize(), 3, tmp_path / "network", "torchscript")
    assert list(tmp_path.iterdir()) == []


def test_examples_have_the_smallest_size_that_the_generator_accepts(tmp_path: Path) -> None:
    class AtLeast12(Generator):
        size_multiple = 4
        min_size = 12

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            assert min(int(side) for side in image.shape[2:]) >= self.min_size
            return image * 0.5

    assert export_generator(AtLeast12(), 3, tmp_path / "network", "torchscript") == 0


def test_the_command_exports_and_does_not_overwrite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = checkpoint(tmp_path, **SMALL)

    def export(*arguments: str) -> str:
        monkeypatch.setattr("sys.argv", ["export.py", "--checkpoint", str(weights), *arguments])
        main()
        return capsys.readouterr().out

    assert "check passed at several sizes" in export("--format", "torchscript", "--check")
    assert (tmp_path / "latest_net_G.pt").is_file()
    with pytest.raises(SystemExit) as ending:
        export("--format", "torchscript")
    assert ending.value.code == 2 and "--overwrite" in capsys.readouterr().err
    (tmp_path / "folder").mkdir()
    for format, output in (("torchscript", "folder"), ("pth", "folder"), ("hub", "latest_net_G.pt")):
        with pytest.raises(SystemExit) as ending:
            export("--format", format, "--output", str(tmp_path / output), "--overwrite")
        assert ending.value.code == 2 and f"{tmp_path / output}: " in capsys.readouterr().err


def test_safetensors_round_trip(tmp_path: Path) -> None:
    weights = checkpoint(tmp_path)
    write_safetensors(load_generator(weights).network, tmp_path / "there.safetensors")
    save_weights(load_generator(tmp_path / "there.safetensors").network, tmp_path / "back.pth")
    there, back = torch.load(weights), torch.load(tmp_path / "back.pth")
    assert there.keys() == back.keys() and all(torch.equal(there[key], back[key]) for key in there)
    assert (tmp_path / "there.safetensors").read_bytes()[8:9] == b"{"  # the format starts with a length and JSON
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "there.safetensors").read_bytes()[:100])
    with pytest.raises(Exception, match="damaged"):
        load_generator(tmp_path / "cut.safetensors")


def test_a_hugging_face_hub_folder(tmp_path: Path) -> None:
    weights = checkpoint(tmp_path / "run", input_nc=1)
    (tmp_path / "run" / "train_opt.json").write_text(
        '{"model": "cut", "CUT_mode": "FastCUT", "dataroot": "/home/me/horses", "direction": "BtoA", "n_epochs": 7, '
        '"features": "/home/me/features.pt", "inception": "/home/me/inception.pth", "dataroot_A": "/home/me/photos", '
        '"an option of another release": "/home/me", "crop_size": 64, "load_size": 72, "net_size": 64, '
        '"preprocess": "resize_and_crop", '
        '"program": {"version": "0.1", "commit": "0123456789abcdef", "modified": false}}'
    )
    metrics = latest_metrics(
        [{"epoch": 1, "program": {"modified": True}, "losses": {"G": 2.0, "NCE": None}}, {"epoch": 2, "losses": {"G": 1.5}}]
    )
    write_hub_folder(load_generator(weights), tmp_path / "hub", "run", metrics)
    assert sorted(path.name for path in (tmp_path / "hub").iterdir()) == ["README.md", "config.json", "model.safetensors"]
    card = (tmp_path / "hub" / "README.md").read_text()
    for text in (
        "trained by version 0.1 (commit 0123456789ab), exported by version",
        "trained with FastCUT ([paper](https://arxiv.org/abs/2007.15651)) on",
        "(horses, BtoA)",
        "| losses G | 1.5 |",
        "| n_epochs | 7 |",
        "| netG | resnet_4blocks |",
        "| net_size | 64 |",
        "Input: 1 channels, output: 3 channels, images of any size, with values in [-1, 1].",
        "Training images: --preprocess resize_and_crop --load_size 72 --crop_size 64 (pixels).",
        "million parameters (",
    ):
        assert text in card
    assert "modified" not in metrics
    assert "/home" not in card + (tmp_path / "hub" / "config.json").read_text()

    batch = image(16, 20, channels=1)
    loaded = Translator.from_checkpoint(tmp_path / "hub")
    assert torch.equal(loaded(batch).cpu(), Translator.from_checkpoint(weights)(batch).cpu())


@pytest.mark.parametrize(
    ("saved", "text"),
    [
        ({"model": "sincut", "CUT_mode": "CUT"}, "trained with SinCUT ([paper](https://arxiv.org/abs/2007.15651)) on"),
        ({"model": "cycle_gan"}, "trained with CycleGAN ([paper](https://arxiv.org/abs/1703.10593)) on"),
        ({"model": "mine"}, "trained with mine on"),
        ({"model": ["damaged"]}, "trained with ['damaged'] on"),
        ({}, "trained with an unknown method on"),
    ],
)
def test_the_model_card_names_the_method_and_its_paper(tmp_path: Path, saved: dict[str, Any], text: str) -> None:
    loaded = replace(load_generator(checkpoint(tmp_path)), saved_options=saved)
    assert text in model_card(loaded, "run", {})


def test_no_option_with_a_path_is_published() -> None:
    """An option whose value is any text may be a path. Published ones are checked by the parser, or are text by design."""
    actions = [action for name in MODELS for action in TrainOptions().parser(["--model", name])._actions]
    any_text = {action.dest for action in actions if action.type is None and action.choices is None and action.nargs != 0}
    assert any_text & set(PUBLIC_OPTIONS) <= {"preprocess"}


def test_the_published_size_of_a_stylegan2_generator_is_that_of_its_training(tmp_path: Path) -> None:
    weights = checkpoint(tmp_path / "run", "stylegan2", size=64, ngf=10)
    (tmp_path / "run" / "train_opt.json").write_text('{"netG": "stylegan2", "ngf": 10, "net_size": 64}')
    options = load_generator(weights).options
    assert (options.ngf, options.net_size) == (10, 64)


@pytest.mark.parametrize("format", list(EXPORTERS))
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_raw_samples_of_any_band_count(tmp_path: Path, dtype: str, format: str) -> None:
    value_range = ValueRange(-1000, 400) if dtype == "float32" else None
    raw = RawFormat.create(dtype, value_range, value_range)
    network, file = generator(**SMALL, input_nc=5, output_nc=2), tmp_path / f"network{EXPORTERS[format].suffix}"
    metadata = range_metadata(value_range, value_range)
    assert export_generator(network, 5, file, format, raw=raw, metadata=metadata) <= raw.tolerance

    pixels = ExportableGenerator(network, 5, False, raw).example(1, 0, 0)
    found = EXPORTERS[format].load(file)(pixels).numpy()
    translator = Translator(network, 5, "cpu", input_range=value_range, output_range=value_range)
    expected = translator(pixels[0].numpy())
    assert found.dtype == expected.dtype == np.dtype(dtype)
    assert np.abs(found[0].astype(float) - expected).max() <= raw.tolerance


def test_the_value_range_is_stored_in_an_onnx_file(tmp_path: Path) -> None:
    value_range = ValueRange(-1000, 400)
    export_generator(generator(**SMALL), 3, tmp_path / "a.onnx", "onnx", metadata=range_metadata(value_range, None))
    properties = {entry.key: entry.value for entry in onnx.load(tmp_path / "a.onnx").metadata_props}
    assert properties["input_value_range"] == "-1000,400" and properties["output_value_range"].startswith("full range")


def test_a_raw_format_without_a_range_is_refused() -> None:
    with pytest.raises(UserError, match="--value_range=LO,HI"):
        RawFormat.create("float32", None, None)


@pytest.mark.parametrize(("name", "value_range"), [("uint16", (-100, 3000)), ("uint8", (0, 300))])
def test_a_raw_format_that_cannot_hold_the_range_is_refused(name: str, value_range: tuple[float, float]) -> None:
    found = ValueRange(*value_range)
    with pytest.raises(UserError, match=rf"--raw_io {name}: the value range {found} does not fit .* float32"):
        RawFormat.create(name, found, found)
    RawFormat.create("float32", found, found)
