"""Translator: inferred architectures, image sizes, alpha, bit depth, and tiles that agree with the whole image."""

import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from generators import checkpoint, generator, image
from image_factory import noise
from image_files import BLACK_IS_ZERO, WHITE_IS_ZERO, tiff
from PIL import Image
from programs import ENVIRONMENT, ROOT
from torch import nn

from data.image_io import read_array
from models import Translator
from models.inference import memory
from models.inference.checkpoint import infer_architecture
from models.inference.image_io import ORIENTATION, from_pil
from models.inference.memory import BYTES_PER_ELEMENT, SizeCheck, elements_per_pixel, max_images, max_map_elements
from models.inference.tiling import PROGRESS_BAR, Tiler
from models.networks import GENERATORS, GeneratorSpec
from models.networks.base import Generator
from models.networks.factory import generator_config
from models.networks.layers import InstanceNorm
from util.errors import UserError
from util.images import tensor2im

PUBLISHED = ["resnet_9blocks", "resnet_6blocks", "resnet_4blocks", "unet_256", "unet_128", "stylegan2", "smallstylegan2"]
VARIANTS = [
    {},
    {"norm": "batch", "dropout": True, "antialias": False, "input_nc": 1},
    {"norm": "none", "antialias_up": False, "output_nc": 1, "size": 256, "n_downsampling": 2},
]


class Chain(Generator):
    """A generator that users may add: a sequence of layers."""

    size_multiple = 2
    min_size = 6

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.model = nn.Sequential(*layers)

    def tileable_layers(self) -> nn.Sequential:
        return self.model

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.model(image)


def fail_on_log(line: str) -> None:
    raise AssertionError(line)


@pytest.mark.parametrize("changes", VARIANTS, ids=lambda changes: str(changes.get("norm")))
@pytest.mark.parametrize("name", PUBLISHED)
def test_the_architecture_is_inferred_from_the_weights(name: str, changes: dict[str, object]) -> None:
    state = generator(name, **changes).state_dict()
    options = infer_architecture(state)
    assert options is not None and options["netG"] == name
    config = generator_config(Namespace(**options), options["input_nc"], options["output_nc"])
    built = GENERATORS[name](config).state_dict()
    assert {key: value.shape for key, value in built.items()} == {key: value.shape for key, value in state.items()}


def test_a_run_folder_is_a_checkpoint(tmp_path: Path) -> None:
    checkpoint(tmp_path, file="latest_net_G_A.pth")
    checkpoint(tmp_path, file="latest_net_G_B.pth", norm="batch")
    batch = image(16, 20)
    expected = generator()(batch)
    assert torch.equal(Translator.from_checkpoint(tmp_path, gpu_ids="-1")(batch), expected)
    other = Translator.from_checkpoint(tmp_path, network="G_B", gpu_ids="-1")(batch)
    assert torch.equal(other, generator(norm="batch")(batch))


def test_a_translator_takes_a_path_and_describes_itself(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "run", input_nc=1, output_nc=1)
    for source in (path, str(path), tmp_path / "run"):
        translator = Translator(source, device="cpu")
        assert repr(translator) == f"Translator({path} (resnet_4blocks, ngf 4, 1 to 1 channels), on cpu)"
        assert translator(torch.zeros(1, 8, 8)).shape == (1, 8, 8)


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        ("photo.jpg", TypeError, r"got str. Open the file first"),
        (Path("photo.jpg"), TypeError, r"got PosixPath. Open the file first"),
        ([1, 2], TypeError, "expected a PIL image, a NumPy array or a tensor, got list"),
        (np.zeros((8, 8, 3)), ValueError, "expected an array .* of uint8 or uint16, got float64"),
        (np.zeros((0, 8, 3), np.uint8), ValueError, r"expected an array \(H, W\[, C\]\), got uint8 \(0, 8, 3\)"),
        (np.zeros((8, 8, 3), complex), ValueError, "expected an array of finite real numbers, got complex128"),
        (np.full((8, 8, 3), np.nan), ValueError, "finite real numbers, got float64 .*: 192 of 192 samples are NaN"),
        (torch.zeros(8, 8), ValueError, r"with C = 3, got shape \(8, 8\)"),
        (torch.zeros(8, 8, 3), ValueError, r"with C = 3, got shape \(8, 8, 3\)"),
        (torch.zeros(3, 8, 8, dtype=torch.uint8), ValueError, "expected a tensor of floats .* got torch.uint8"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_not_an_image_is_refused(image: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Translator(generator(), device="cpu")(image)


def test_a_translator_of_something_else_is_refused() -> None:
    with pytest.raises(TypeError, match="expected a generator or the path of a checkpoint, got dict"):
        Translator({})


def test_a_similar_run_is_suggested(tmp_path: Path) -> None:
    checkpoint(tmp_path / "horse2zebra")
    with pytest.raises(UserError, match=r"no such file or folder. Did you mean .*/horse2zebra\? Use a file"):
        Translator(tmp_path / "horse2zebar")


def test_files_that_are_not_a_generator_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no weights files"):
        Translator.from_checkpoint(tmp_path)
    checkpoint(tmp_path / "run")
    with pytest.raises(UserError, match=r"latest_net_G.pth not found. Give a run's folder, such as .*/run\."):
        Translator.from_checkpoint(tmp_path)
    torch.save({"weight": torch.zeros(2)}, tmp_path / "latest_net_G.pth")
    with pytest.raises(UserError, match=r"unknown architecture.*--netG"):
        Translator.from_checkpoint(tmp_path)
    checkpoint(tmp_path)
    with pytest.raises(UserError, match=r"another network"):
        Translator.from_checkpoint(tmp_path, architecture={"ngf": 5})


def test_saved_options_name_networks_that_cannot_be_inferred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = GeneratorSpec(Chain, lambda config: Chain(nn.Conv2d(3, 3, config.ngf, padding="same")))
    monkeypatch.setitem(GENERATORS, "mine", spec)
    torch.save(Chain(nn.Conv2d(3, 3, 5)).state_dict(), tmp_path / "latest_net_G.pth")
    (tmp_path / "train_opt.json").write_text('{"netG": "mine", "ngf": 5}')
    assert Translator.from_checkpoint(tmp_path)(image(9, 8)).shape == (1, 3, 9, 8)


@pytest.mark.parametrize("size", [(1, 1), (3, 40), (7, 5), (33, 18)])
@pytest.mark.parametrize("name", ["resnet_4blocks", "unet_128", "stylegan2"])
def test_images_of_any_size_are_accepted(name: str, size: tuple[int, int]) -> None:
    translator = Translator(generator(name, ngf=1), device=torch.device("cpu"))
    assert translator(image(*size)).shape == (1, 3, *size)


def test_an_image_without_padding_equals_the_network_output() -> None:
    image = noise(24, 16)
    tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 127.5 - 1
    expected = tensor2im(generator()(tensor))
    translated = Translator(generator(), device=torch.device("cpu"))(image)
    assert translated.mode == "RGB"
    assert np.abs(np.asarray(translated).astype(int) - expected).max() <= 1


def test_padding_reflects_the_image() -> None:
    whole = image(18, 21)
    translated = Translator(generator(), device=torch.device("cpu"))(whole)
    padded = torch.nn.functional.pad(whole, (0, 3, 0, 2), mode="reflect")
    assert torch.equal(translated, generator()(padded)[:, :, :18, :21])


def test_alpha_and_depth_are_kept() -> None:
    translator = Translator(generator(), device=torch.device("cpu"))
    image = noise(10, 9)
    image.putalpha(noise(10, 9, seed=1).convert("L"))
    translated = translator(image)
    assert translated.mode == "RGBA"
    assert np.array_equal(np.asarray(translated)[:, :, 3], np.asarray(image)[:, :, 3])

    deep = np.random.default_rng(0).integers(0, 65536, (9, 10, 4), dtype=np.uint16)
    result = translator(deep)
    assert result.dtype == np.uint16 and np.array_equal(result[:, :, 3], deep[:, :, 3])
    assert len(np.unique(result[:, :, :3] % 257)) > 100  # more than 8 bits of color

    gray = Translator(generator(output_nc=1), device=torch.device("cpu"))
    assert gray(Image.fromarray(deep[:, :, 0])).mode == "I;16"
    with pytest.raises(ValueError, match="float64"):
        translator(np.zeros((4, 4)))


def test_16_bit_gray_files_keep_their_brightness(tmp_path: Path) -> None:
    """As in data/image_io.py for training: the bit depth and the photometric interpretation come from the file."""
    deep = np.linspace(0, 65535, 6 * 8).astype(np.uint16).reshape(6, 8)
    (tmp_path / "deep.pgm").write_bytes(b"P5 8 6 65535\n" + deep.astype(">u2").tobytes())
    (tmp_path / "negative.tif").write_bytes(tiff((65535 - deep).tobytes(), (8, 6), 16, WHITE_IS_ZERO))
    twelve = "".join(f"{sample >> 4:03x}" for sample in deep.flat)
    (tmp_path / "scan.tif").write_bytes(tiff(bytes.fromhex(twelve), (8, 6), 12, BLACK_IS_ZERO))
    for path in tmp_path.iterdir():
        with path.open("rb") as file, Image.open(file) as opened:
            for samples in (read_array(str(path)), from_pil(opened)):
                assert samples.pixels.dtype == np.uint16
                assert np.abs(samples.pixels[:, :, 0].astype(int) - deep).max() <= 16, path.name


@pytest.mark.parametrize("name", ["turned.png", "turned.tif"])
def test_16_bit_gray_is_turned_upright(name: str, tmp_path: Path) -> None:
    deep = np.arange(48, dtype=np.uint16).reshape(6, 8) * 1000
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # rotate clockwise
    Image.fromarray(deep).save(tmp_path / name, exif=exif)
    with (tmp_path / name).open("rb") as file, Image.open(file) as opened:
        for samples in (read_array(str(tmp_path / name)), from_pil(opened)):
            assert np.array_equal(samples.pixels[:, :, 0], np.rot90(deep, -1))


def test_alpha_follows_a_resize() -> None:
    image = noise(40, 20)
    image.putalpha(Image.linear_gradient("L").resize((40, 20)))
    translated = Translator(generator(), device=torch.device("cpu"), short_side=10)(image)
    assert (translated.mode, translated.size) == ("RGBA", (20, 10))


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("resnet_9blocks", {"ngf": 2}),
        ("resnet_4blocks", {"ngf": 2, "antialias": False, "antialias_up": False, "dropout": True}),
        ("resnet_4blocks", {"ngf": 2, "norm": "batch"}),
        ("stylegan2", {"ngf": 1}),
        ("smallstylegan2", {"ngf": 1, "n_downsampling": 2}),
    ],
)
def test_tiles_agree_with_the_whole(name: str, changes: dict[str, object]) -> None:
    batch = image(100, 79, batch=2)
    batch[:, :, 40:] *= 0.2  # statistics of single tiles would be visible
    network = generator(name, **changes)
    whole = Translator(network, device=torch.device("cpu"), log=fail_on_log)(batch)
    tiled = Translator(network, device=torch.device("cpu"), tile=40)(batch)
    assert whole.std() > 0.05
    assert (tiled - whole).abs().max() < 1e-4


def test_an_added_generator_runs_in_tiles() -> None:
    """It needs `size_multiple`, `min_size` and `tileable_layers`, and no change of the tiler."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 4, stride=2, padding=1), InstanceNorm(4), nn.ReLU(inplace=True), nn.Conv2d(4, 5, 3, padding=1)]
    network = Chain(*layers, InstanceNorm(5), nn.ConvTranspose2d(5, 3, 4, stride=2, padding=1))
    batch = image(60, 51)
    batch[:, :, 30:] *= 0.2
    whole = Translator(network, device=torch.device("cpu"), log=fail_on_log)(batch)
    tiled = Translator(network, device=torch.device("cpu"), tile=20)(batch)
    assert (tiled - whole).abs().max() < 1e-4
    assert Translator(network, device=torch.device("cpu"))(image(1, 3)).shape == (1, 3, 1, 3)


@pytest.mark.parametrize("name", ["resnet_4blocks", "smallstylegan2"])
def test_the_progress_bar_of_tiles_ends_full(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of passes is predicted exactly."""
    monkeypatch.setitem(PROGRESS_BAR, "disable", False)
    translator = Translator(generator(name, ngf=1), device=torch.device("cpu"))
    tiler = Tiler(translator.generator, translator.noise, tile=40)
    tiler(image(60, 72))
    assert tiler.bar.n == tiler.bar.total > 1


def test_norms_of_single_tiles_differ_from_the_whole() -> None:
    """Show that the test above can fail: without statistics of the whole image, the difference exceeds its tolerance."""
    batch = image(96, 96)
    batch[:, :, 48:] *= 0.2
    network = generator()
    assert (network(batch)[:, :, :48] - network(batch[:, :, :48])).abs().max() > 0.1


def test_images_larger_than_memory_are_tiled_with_a_message(tmp_path: Path) -> None:
    lines: list[str] = []
    translator = Translator(
        generator(), device=torch.device("cpu"), memory_limit=100_000, log=lines.append, tmp_dir=tmp_path
    )
    batch = image(120, 100)
    tiled = translator(batch)
    (line,) = lines
    assert "100x120" in line and "tiles" in line
    assert (tiled - generator()(batch)).abs().max() < 1e-4
    assert list(tmp_path.iterdir()) == []  # the temporary feature maps are removed


def test_feature_maps_stay_below_the_index_limit_of_gpu_kernels() -> None:
    """At 4096x4096 pixels, resnet_9blocks with 64 filters has a map of 128 channels: 2**31 elements."""
    network = generator("resnet_9blocks", ngf=64)
    per_pixel = elements_per_pixel(network, 3)
    assert 128 <= per_pixel < 140
    gpu, cpu = (max_map_elements(torch.device(name)) for name in ("cuda", "cpu"))
    plenty = 2**40
    assert max_images(per_pixel * 4096**2, plenty, gpu) == 0
    assert max_images(per_pixel * 3500**2, plenty, gpu) == 1
    assert max_images(per_pixel * 1024**2, plenty, gpu) < 16 <= max_images(per_pixel * 1024**2, plenty, cpu)
    assert max_images(per_pixel * 4096**2, plenty, cpu) > 1
    assert max_images(per_pixel * 64**2, 2**30, gpu) == max_images(per_pixel * 64**2, 2**30, cpu) > 1


def test_images_too_large_for_gpu_kernels_are_tiled_with_a_message() -> None:
    lines: list[str] = []
    translator = Translator(generator(), device=torch.device("cpu"), log=lines.append)
    batch = image(120, 100)
    whole = translator(batch)
    translator.max_map_elements = 90_000
    tiled = translator(batch)
    (line,) = lines
    assert line.startswith("100x120 pixels need a feature map of ")
    assert "too many for GPU kernels" in line
    assert (tiled - whole).abs().max() < 1e-4


def test_images_of_a_test_that_are_too_large_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    network = generator("resnet_9blocks", ngf=64)
    check = SizeCheck(network, 3, torch.device("cuda"))
    monkeypatch.setattr(memory, "free_memory", lambda device: 2**30)
    check(torch.empty(1, 3, 64, 64, device="meta"), "a.png")
    assert "elements_per_pixel" not in vars(check)
    for _ in range(2):
        check(torch.empty(1, 3, 2048, 1024, device="meta"), "a.png")
    said = capsys.readouterr().out
    assert said.count("note: a.png: 1024x2048 pixels need about 4.") == 1 and "only 1.0 GiB can be used" in said
    with pytest.raises(UserError, match=r"^a\.png: 4096x4096 pixels need .* too many for GPU kernels.*translate\.py"):
        check(torch.empty(1, 3, 4096, 4096, device="meta"), "a.png")
    with pytest.raises(UserError, match=r"^a\.png: 16 images of 1024x1024 pixels need"):
        check(torch.empty(16, 3, 1024, 1024, device="meta"), "a.png")


def test_measuring_feature_maps_samples_no_noise() -> None:
    network = generator("stylegan2", ngf=1, size=64)
    rng = torch.Generator().manual_seed(1)
    network.set_rng(rng)
    assert elements_per_pixel(network, 3) > 0
    assert torch.equal(rng.get_state(), torch.Generator().manual_seed(1).get_state())


def test_a_batch_is_split_to_fit() -> None:
    batch = torch.cat([image(24, 32), image(24, 32).flip(3), image(24, 32).neg()])
    translator = Translator(generator(), device=torch.device("cpu"))
    needed = 24 * 32 * translator.elements_per_pixel * BYTES_PER_ELEMENT
    passes: list[int] = []
    translator.generator.register_forward_pre_hook(lambda _, inputs: passes.append(len(inputs[0])))
    expected = translator(batch)
    translator.memory_limit = int(2.5 * needed)
    assert (translator(batch) - expected).abs().max() < 1e-4
    assert passes == [3, 2, 1]


def test_generators_that_need_the_whole_image_are_refused_in_tiles() -> None:
    with pytest.raises(UserError, match="UnetGenerator needs the whole image"):
        Translator(generator("unet_128", ngf=2), tile=128, device=torch.device("cpu"))(image(256, 128))


def test_feature_maps_larger_than_memory_and_disk_are_refused(tmp_path: Path) -> None:
    translator = Translator(generator(), device=torch.device("cpu"))
    tiler = Tiler(translator.generator, translator.noise, memory_limit=0, tmp_dir=tmp_path)
    with pytest.raises(UserError, match=r"--scratch"):
        tiler(torch.zeros(1, 1, 1, 1).expand(1, 3, 4_000_000, 4_000_000))  # one value in memory


def test_training_does_not_import_inference() -> None:
    code = "import sys, train; sys.exit(any(name.startswith('models.inference') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=ENVIRONMENT, timeout=120).returncode == 0
