"""SinCUT: its additional losses, its receptive-field crops, and its options."""

from functools import partial

import pytest
import torch
from tiny_models import SINCUT, assert_same_step, double_model, random_batch, tiny_model, train, translating_model

from models.base_model import BaseModel
from models.cut_model import CUTModel
from models.losses.gradient_penalty import r1_penalty
from options import TrainOptions

CUT_NAMES = ("G_GAN", "D_real", "D_fake", "G", "NCE")


def encoded_sizes(model: BaseModel) -> list[int]:
    """Record the image sizes that the generator's encoder gets."""
    sides: list[int] = []
    model.netG.encoder.convs[0].register_forward_pre_hook(lambda _, inputs: sides.append(inputs[0].shape[2]))
    return sides


class TestReceptiveFieldCrops:
    @pytest.mark.parametrize("command", ["", "--netG smallstylegan2", "--nce_idt False", "--netF sample"])
    def test_equal_whole_images(self, command: str) -> None:
        """Encode the receptive fields of patches, or whole images: no result changes."""
        cropped, whole = (double_model(f"{SINCUT} {command}") for _ in range(2))
        whole._nce_losses = partial(CUTModel._nce_losses, whole)
        sides = [encoded_sizes(model) for model in (cropped, whole)]
        assert_same_step(cropped, whole)
        assert min(sides[0]) < 64
        assert set(sides[1]) == {64}

    @pytest.mark.parametrize("command", ["", "--netF reshape"])
    def test_equal_the_published_passes(self, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Compare with separate passes over whole images."""
        cropped = double_model(f"{SINCUT} {command}")
        monkeypatch.setattr("models.cut_model.is_batch_dependent", lambda network: True)
        published = double_model(f"{SINCUT} {command}")
        sides = encoded_sizes(published)
        assert_same_step(cropped, published)
        assert sides == [64] * 5

    @pytest.mark.parametrize(
        ("command", "expected"),
        [
            ("--netF reshape", {64}),  # needs the whole feature map
            ("--num_patches 64", {64}),  # would encode more than the image
            ("--flip_equivariance", {64}),
        ],
    )
    def test_are_not_used_if_they_do_not_help(self, command: str, expected: set, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("models.cut_model.sample_flip", lambda generator: True)
        model = tiny_model(f"{SINCUT} {command}")
        sides = encoded_sizes(model)
        train(model, steps=1)
        assert set(sides) == expected


class TestLosses:
    def test_names_of_losses_and_images(self) -> None:
        model = tiny_model(SINCUT)
        assert tuple(train(model, steps=1)) == (*CUT_NAMES, "NCE_Y", "D_R1", "idt")
        assert tuple(model.get_current_visuals()) == ("real_A", "fake_B", "real_B", "idt_B")

    def test_without_identity(self) -> None:
        model = tiny_model(f"{SINCUT} --nce_idt False")
        assert tuple(train(model)) == (*CUT_NAMES, "D_R1")
        assert tuple(model.get_current_visuals()) == ("real_A", "fake_B", "real_B")

    def test_total_contains_the_identity_loss(self) -> None:
        losses = train(tiny_model(f"{SINCUT} --lambda_identity 7"), steps=1)
        assert losses["G"] == pytest.approx(losses["G_GAN"] + (losses["NCE"] + losses["NCE_Y"]) / 2 + losses["idt"])
        assert losses["idt"] == pytest.approx(7 * train(tiny_model(SINCUT), steps=1)["idt"])

    def test_without_nce(self) -> None:
        losses = train(tiny_model(f"{SINCUT} --lambda_NCE 0"))
        assert losses["NCE"] == losses["NCE_Y"] == 0
        assert losses["G"] == pytest.approx(losses["G_GAN"] + losses["idt"])

    def test_r1_is_half_its_weight_times_the_penalty_on_real_images(self) -> None:
        model = tiny_model(f"{SINCUT} --lambda_R1 6")
        for step in range(2):
            model.set_input(random_batch(model, seed=step))
            model.forward()
            loss = model.compute_D_loss()
            expected = 3 * r1_penalty(model.netD, model.real_B)
            assert expected > 0
            torch.testing.assert_close(model.losses["D_R1"], expected)
            torch.testing.assert_close(loss, (model.losses["D_real"] + model.losses["D_fake"]) / 2 + expected)
            model.optimize_parameters()

    def test_without_r1(self) -> None:
        assert train(tiny_model(f"{SINCUT} --lambda_R1 0"))["D_R1"] == 0

    def test_negatives_come_from_the_whole_minibatch(self) -> None:
        """Each image has one patch. Without the other images it has no negatives, and its loss is zero."""
        minibatch = train(tiny_model(SINCUT), steps=1, batch_size=4)["NCE"]
        alone = train(tiny_model(f"{SINCUT} --nce_includes_all_negatives_from_minibatch no"), steps=1, batch_size=4)["NCE"]
        assert minibatch > 0.1
        assert alone == pytest.approx(0, abs=1e-6)


class TestOptions:
    def test_defaults(self) -> None:
        opt = TrainOptions().parse(["--model", "sincut"])
        assert (opt.netG, opt.netD, opt.gan_mode, opt.num_patches, opt.nce_layers) == (
            *("stylegan2", "stylegan2", "nonsaturating", 1, "0,2,4"),
        )

    def test_small_generator_has_its_own_nce_layers(self) -> None:
        assert tiny_model(f"{SINCUT} --netG smallstylegan2").nce_layers == [0, 2, 3]

    @pytest.mark.parametrize(("size", "option"), [(1, 3), (3, 1)])
    def test_step_depends_on_the_batch_not_on_batch_size(self, size: int, option: int) -> None:
        steps = [train(tiny_model(f"{SINCUT} --batch_size {number}"), batch_size=size) for number in (option, size)]
        assert steps[0] == steps[1]


class TestNoise:
    def test_of_steps_depends_on_the_seed(self) -> None:
        results = []
        for index, seed in enumerate((3, 3, 4)):
            model = tiny_model(SINCUT, seed=seed)
            torch.manual_seed(index)  # must have no effect
            results.append(train(model, steps=3))
        assert results[0] == results[1] != results[2]

    @pytest.mark.parametrize("method", ["cut", "sincut", "cycle_gan", "test"])
    def test_at_test_time_depends_on_the_seed(self, method: str) -> None:
        first, same = (self.noisy(translating_model(f"--model {method} --netG stylegan2 --ngf 1")) for _ in range(2))
        images = []
        for index, model in enumerate((first, same, first)):
            torch.manual_seed(index)  # must have no effect
            model.test()
            images.append(model.fake_B)
        assert torch.equal(images[0], images[1])
        assert not torch.equal(images[0], images[2]), "sampled again for every image"

    @staticmethod
    def noisy(model: BaseModel) -> BaseModel:
        """Set the noise strength, initially zero, to one."""
        for network in model.networks.values():
            for key, strength in network.named_parameters():
                if key.endswith("noise.weight"):
                    torch.nn.init.ones_(strength)
        model.set_input({"A": torch.zeros(1, 3, 32, 48), "A_paths": ["a.png"]})
        return model
