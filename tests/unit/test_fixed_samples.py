"""Fixed samples of the training page: which images, their translations, and that training is unaffected."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from image_factory import noise, two_domains
from page_reader import linked_file, read_page
from tiny_models import CUT, CYCLE_GAN, SINCUT, everything, take_step, tiny_model

from data.sample_images import MAX_SIDE, load_sample_images
from models.base_model import BaseModel
from models.evaluation import SAMPLES, create_samples
from options import TrainOptions
from util.channel_view import ChannelView
from util.html.fixed_samples import FixedSamples, SampleSection
from util.html.training_page import TrainingPage


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return a dataset with six training images and no test images."""
    return two_domains(tmp_path / "data", n_A=6, n_B=6, size=(40, 32))


def options(data: Path, *arguments: str):
    return TrainOptions().parse(["--dataroot", str(data), "--load_size", "36", "--crop_size", "32", *arguments])


def test_samples_are_evenly_spaced_in_the_test_split_or_else_in_the_training_split(data: Path) -> None:
    assert list(load_sample_images(options(data), 3)) == ["00.png", "02.png", "04.png"]
    assert list(load_sample_images(options(data), 10)) == [f"{number:02d}.png" for number in range(6)]
    two_domains(data, n_A=2, n_B=2, size=(40, 32), phase="test")
    images = load_sample_images(options(data), 3)
    assert list(images) == ["00.png", "01.png"]
    assert {image.shape for image in images.values()} == {(1, 3, 32, 32)}


def test_unreadable_samples_are_left_out_and_large_ones_are_cut(data: Path) -> None:
    (data / "trainA/02.png").write_bytes(b"")
    noise(MAX_SIDE + 80, 32).save(data / "trainA/04.png")
    images = load_sample_images(options(data, "--preprocess", "none"), 3)
    assert {name: tuple(image.shape) for name, image in images.items()} == {
        "00.png": (1, 3, 32, 40),
        "04.png": (1, 3, 32, MAX_SIDE),
    }


def test_the_image_of_sincut_is_a_sample(tmp_path: Path) -> None:
    two_domains(tmp_path, n_A=1, n_B=1, size=(80, 72))
    (image,) = load_sample_images(TrainOptions().parse(["--model", "sincut", "--dataroot", str(tmp_path)]), 4).values()
    assert image.shape == (1, 3, 72, 80)


def samples_of(model: BaseModel, data: Path) -> FixedSamples:
    model.opt.dataroot = str(data)
    samples = create_samples(model.opt, model)
    assert samples is not None and 0 < len(samples.images) <= SAMPLES
    return samples


def test_a_run_without_a_page_has_no_samples(data: Path) -> None:
    model = tiny_model(CUT)
    model.opt.dataroot, model.opt.no_html = str(data), True
    assert create_samples(model.opt, model) is None


@pytest.mark.parametrize(
    "command",
    [CUT, f"{CUT} --normG batch --no_dropout false --ema 0.9 --CUT_mode FastCUT", CYCLE_GAN, SINCUT],
    ids=["cut", "batch norm, dropout, EMA", "cycle_gan", "noise"],
)
def test_samples_do_not_change_the_training(data: Path, command: str) -> None:
    if "sincut" in command:
        two_domains(data / "one", n_A=1, n_B=1, size=(64, 64))
        data = data / "one"
    trained, expected = tiny_model(command), tiny_model(command)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    samples = samples_of(trained, data)
    for step in range(3):
        for model in (trained, expected):
            torch.manual_seed(step)
            take_step(model, seed=step)
            if model is trained:
                rng_state, losses, visuals = torch.get_rng_state(), model.get_current_losses(), model.get_current_visuals()
                first, second = samples.translate(), samples.translate()
                assert torch.equal(torch.get_rng_state(), rng_state)
                assert model.get_current_losses() == losses
                assert all(torch.equal(image, visuals[name]) for name, image in model.get_current_visuals().items())
                assert all(map(torch.equal, first["G" if "G" in first else "G_A"], second["G" if "G" in second else "G_A"]))
    assert torch.equal(everything(trained), everything(expected))
    assert (np.random.get_state()[1].tolist(), random.getstate()) == before[1:]
    if trained.ema:
        assert set(samples.generators) == {"G", "G_ema"}


def test_samples_are_translated_as_in_a_test(data: Path) -> None:
    model = tiny_model(CUT)
    samples = samples_of(model, data)
    with torch.inference_mode():
        expected = [model.networks["G"](image) for image in samples.images.values()]
    assert all(map(torch.equal, samples.translate()["G"], expected))


class Shift(torch.nn.Module):
    """A generator that adds its only weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def set_rng(self, rng: torch.Generator) -> None: ...

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images + self.weight


def section(web_dir: Path, first_epoch: int = 1, shade: float = 0.0, generators=("G",)) -> SampleSection:
    images = {f"{name}.jpg": torch.full((1, 3, 8, 8), shade) for name in ("cat", "dog")}
    networks = {name: Shift() for name in generators}
    return SampleSection(web_dir, FixedSamples(images, networks, torch.device("cpu"), 0, 64), first_epoch, ChannelView())


def test_the_page_shows_the_newest_translations_and_all_epochs(tmp_path: Path) -> None:
    samples = section(tmp_path, generators=("G", "G_ema"))
    page = TrainingPage(tmp_path, "cats", 1, 9, samples=samples)
    page.write([], 1)
    assert read_page(tmp_path / "index.html").text_of("small") == ["real_A"] * 2  # before the first step
    for epoch in (1, 2):
        samples.update(epoch, images=100 * epoch)
    page.write([], 1)
    read = read_page(tmp_path / "index.html")
    assert read.text_of("h2") == ["cat.jpg", "dog.jpg"]
    assert [caption.strip() for caption in read.text_of("figcaption")] == ["input", "translation", "moving average"] * 2
    assert read.text_of("small") == ["real_A", "fake_B", "G_ema"] * 2
    assert [Path(link).name for link in read.attributes("img", "src")][:2] == ["input_1.png", "epoch002_1_G.png"]
    assert all(linked_file(tmp_path / "index.html", link).is_file() for link in read.attributes("img", "src"))
    assert [attributes["data-epochs"] for tag, attributes in read.elements if tag == "section"] == ["001 002"]


def test_samples_are_translated_again_after_an_interval_and_at_the_end(tmp_path: Path) -> None:
    samples = section(tmp_path)
    interval = samples.samples.interval
    assert interval == 20
    translated = []
    for images in (1, 2, interval, interval + 1, interval + 5):
        samples.update(images, images)
        translated.append(max(samples.epochs))
    assert translated == [1, 1, 1, interval + 1, interval + 1]
    samples.update(99, interval + 5, is_last=True)
    assert max(samples.epochs) == 99


def test_a_resumed_run_keeps_the_earlier_translations_of_the_same_images(tmp_path: Path) -> None:
    before = section(tmp_path)
    for epoch in (1, 2, 3):
        before.update(epoch, 100 * epoch)
    (tmp_path / before.folder / "epoch002_2_G.png").unlink()  # killed in between
    assert section(tmp_path, first_epoch=3).epochs == {1}
    assert section(tmp_path, first_epoch=1).epochs == set()
    assert section(tmp_path, first_epoch=3, shade=0.5).epochs == set()
