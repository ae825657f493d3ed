"""Options for small datasets: DiffAugment, LeCam, spectral normalization, the hinge loss, and both warm-ups."""

from pathlib import Path

import pytest
import torch
from tiny_models import CUT, CYCLE_GAN, SINCUT, all_weights, checkpointer, everything, take_step, tiny_model
from torch import Tensor, nn

from models.losses.diff_augment import AUGMENTATIONS, DiffAugment, color, cutout, translation
from models.losses.gan import GAN_LOSSES, GENERATOR_LOSSES
from models.losses.lecam import LeCam
from util.errors import UserError
from util.runtime.checkpoint import Checkpointer
from util.runtime.image_counter import ImageCounter

CPU = torch.device("cpu")


def images(count: int = 4, side: int = 16) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2 - 1


def rows(*values: list[float]):
    """Return a sampler of these uniform numbers, one row per image."""
    return lambda count: torch.tensor(values, dtype=torch.float64)[:, :count]


class TestDiffAugment:
    @pytest.mark.parametrize("name", AUGMENTATIONS)
    def test_is_differentiable_and_different_for_each_image(self, name: str) -> None:
        one = images(1, 8)
        batch = images(1, 32).expand(4, -1, -1, -1).clone().requires_grad_()
        augment = DiffAugment([name], torch.Generator().manual_seed(0))
        augmented = augment(batch)
        assert augmented.shape == batch.shape and augmented.dtype == batch.dtype
        assert all(not torch.equal(augmented[0], other) for other in augmented[1:])
        seeded = DiffAugment([name], torch.Generator())

        def repeat(inputs: Tensor) -> Tensor:
            seeded.rng.manual_seed(2)
            return seeded(inputs)

        assert torch.autograd.gradcheck(repeat, one.clone().requires_grad_())

    def test_none_returns_the_same_tensor_and_samples_nothing(self) -> None:
        rng = torch.Generator().manual_seed(0)
        before, batch = rng.get_state(), images()
        assert DiffAugment([], rng)(batch) is batch
        assert torch.equal(rng.get_state(), before)

    def test_color_follows_its_formula(self) -> None:
        batch = images(2)
        numbers = [[0.9, 0.2, 0.1], [0.5, 0.5, 0.5]]
        changed = color(batch, rows(*numbers))
        torch.testing.assert_close(changed[1], batch[1])  # the middle of every range changes nothing
        brighter = batch[0] + 0.4
        gray = brighter.mean(0, keepdim=True)
        saturated = gray + (brighter - gray) * 0.4
        torch.testing.assert_close(changed[0], saturated.mean() + (saturated - saturated.mean()) * 0.6)

    def test_translation_shifts_by_up_to_an_eighth_and_fills_with_gray(self) -> None:
        batch = images(3)
        up, middle, right = translation(batch, rows([0.999, 0.5], [0.5, 0.5], [0.5, 0.0]))
        assert torch.equal(middle, batch[1])
        assert torch.equal(up[:, :-2], batch[0, :, 2:]) and not up[:, -2:].any()
        assert torch.equal(right[:, :, 2:], batch[2, :, :, :-2]) and not right[:, :, :2].any()

    def test_cutout_masks_half_of_both_sides(self) -> None:
        batch = images(2)
        center, corner = cutout(batch, rows([0.5, 0.5], [0.0, 0.0]))
        assert not center[:, 4:12, 4:12].any()
        assert torch.equal(center[:, :4], batch[0, :, :4]) and torch.equal(center[:, :, 12:], batch[0, :, :, 12:])
        assert (center == 0).sum() == 3 * 64
        assert not corner[:, :4, :4].any() and (corner == 0).sum() == 3 * 16

    @pytest.mark.parametrize(("method", "names"), [(CUT, ["D"]), (SINCUT, ["D"]), (CYCLE_GAN, ["D_A", "D_B"])])
    def test_is_applied_before_every_pass_of_the_discriminator(self, method: str, names: list[str]) -> None:
        """Cutout sets a quarter of every image to 0, of real and of fake ones, in the updates of D and of G."""
        model = tiny_model(f"{method} --diffaugment cutout")
        seen: list[Tensor] = []
        for name in names:
            model.networks[name].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
        take_step(model, size=2)
        assert len(seen) >= 2 * len(names)
        for batch in seen:
            assert ((batch == 0).flatten(1).float().mean(1) > 0.05).all()
        assert all((image != 0).float().mean() > 0.9 for image in (model.fake_B, model.real_B))

    def test_unknown_names_are_refused(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            tiny_model(f"{CUT} --diffaugment color,blur")
        assert "'blur' is not one of color, translation, cutout" in capsys.readouterr().err
        assert tiny_model(f"{CUT} --diffaugment").augment.names == list(AUGMENTATIONS)


class TestLeCam:
    def test_follows_its_formula(self) -> None:
        lecam = LeCam(["D"], CPU)
        a_R = a_F = None
        for seed in range(4):
            real, fake = torch.randn(2, 2, 1, 3, 3, generator=torch.Generator().manual_seed(seed))
            a_R = real.mean() if a_R is None else 0.99 * a_R + 0.01 * real.mean()
            a_F = fake.mean() if a_F is None else 0.99 * a_F + 0.01 * fake.mean()
            expected = ((real - a_F) ** 2).mean() + ((fake - a_R) ** 2).mean()
            torch.testing.assert_close(lecam("D", real, fake), expected)

    def test_adds_to_the_loss_of_each_discriminator(self) -> None:
        for method, losses in ((CUT, ["D_real", "D_fake"]), (CYCLE_GAN, [])):
            plain, model = (tiny_model(f"{method} {more}") for more in ("", "--lambda_lecam 0.5"))
            for each in (plain, model):
                take_step(each)
            assert all(plain.losses[name] == model.losses[name] for name in losses)
            assert list(model.lecam.averages) == [name for name in model.networks if name[0] == "D"]
            assert all(state[2] == 1 and state[:2].any() for state in model.lecam.averages.values())
            assert not torch.equal(everything(plain), everything(model))


class TestSpectralNorm:
    def test_the_largest_singular_value_is_1(self) -> None:
        model = tiny_model(f"{CUT} --spectral_norm_D --ndf 4")
        for step in range(20):
            take_step(model, seed=step)
        for layer in model.networks["D"].modules():
            if isinstance(layer, nn.Conv2d):
                assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1, abs=0.1)

    def test_weights_files_have_plain_keys(self, tmp_path: Path) -> None:
        model, other = (tiny_model(f"{CUT} --spectral_norm_D", checkpoints_dir=tmp_path, seed=seed) for seed in (1, 2))
        plain = tiny_model(CUT)
        take_step(model)
        model.save_networks("latest")
        saved = torch.load(tmp_path / "experiment_name" / "latest_net_D.pth", weights_only=True)
        expected = plain.networks["D"].state_dict()
        assert {key: value.shape for key, value in saved.items()} == {key: value.shape for key, value in expected.items()}
        other.load_networks("latest")
        for layer, loaded in zip(model.networks["D"].modules(), other.networks["D"].modules(), strict=True):
            if isinstance(layer, nn.Conv2d):
                torch.testing.assert_close(loaded.weight, layer.weight, atol=0.02, rtol=0.1)  # after new power iterations

    def test_a_discriminator_without_plain_convolutions_is_refused(self) -> None:
        with pytest.raises(UserError, match="--spectral_norm_D: the discriminator has no plain convolutions"):
            tiny_model(f"{SINCUT} --spectral_norm_D")


def test_hinge_follows_its_formula() -> None:
    logits = images(2)[:, :1] * 3
    zero = torch.zeros_like(logits)
    torch.testing.assert_close(GAN_LOSSES["hinge"](logits, True), torch.maximum(zero, 1 - logits).mean())
    torch.testing.assert_close(GAN_LOSSES["hinge"](logits, False), torch.maximum(zero, 1 + logits).mean())
    torch.testing.assert_close(GENERATOR_LOSSES["hinge"](logits, True), -logits.mean())


@pytest.mark.parametrize(("method", "loss"), [(CUT, "G_GAN"), (CYCLE_GAN, "G_A")])
def test_the_generator_learns_by_its_own_hinge_loss(method: str, loss: str) -> None:
    model = tiny_model(f"{method} --gan_mode hinge")
    logits: list[Tensor] = []
    name = "D" if "D" in model.networks else "D_A"
    model.networks[name].register_forward_hook(lambda _, inputs, output: logits.append(output.detach()))
    take_step(model)
    of_generator = logits[0 if name == "D_A" else -1]  # CycleGAN updates its generators first
    torch.testing.assert_close(model.losses[loss].detach(), -of_generator.mean())


def test_the_learning_rate_warms_up_over_images() -> None:
    model = tiny_model(f"{CUT} --batch_size 2 --lr 0.1 --lr_warm_up 8")
    rates = []
    for step in range(6):
        take_step(model, size=2, seed=step)
        rates.append(model.learning_rate)
        assert {group["lr"] for each in model.optimizers.values() for group in each.param_groups} == {rates[-1]}
    assert rates == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1, 0.1])


@pytest.mark.parametrize("method", [CUT, CYCLE_GAN])
def test_the_discriminator_warms_up_alone(method: str) -> None:
    model = tiny_model(f"{method} --batch_size 2 --warm_up_D 4")

    def weights() -> dict[str, Tensor]:
        return {name: torch.cat([p.detach().flatten() for p in net.parameters()]) for name, net in model.networks.items()}

    before = weights()
    for step, moving in enumerate(("D", "D", "GFD")):
        take_step(model, size=2, seed=step)
        after = weights()
        for name in model.networks:
            assert torch.equal(before[name], after[name]) != (name[0] in moving)
        before = after
        assert set(model.get_current_losses()) == set(model.loss_names)


KIT = "--diffaugment --lambda_lecam 0.1 --gan_mode hinge --lr_warm_up 6 --warm_up_D 3"


@pytest.mark.parametrize(
    "command",
    [
        f"{CUT} {KIT} --spectral_norm_D",
        f"{CUT} {KIT} --accumulate 2",
        f"{CYCLE_GAN} {KIT} --spectral_norm_D --pool_size 2",
        f"{SINCUT} {KIT}",
    ],
)
def test_a_resumed_run_goes_on_exactly(tmp_path: Path, command: str) -> None:
    whole, first, second = (tiny_model(command, checkpoints_dir=tmp_path, name=name) for name in ("whole", "run", "run"))
    for step in range(7):
        take_step(whole, seed=step)
    for step in range(3):
        take_step(first, seed=step)
    checkpointer(first).save("latest")
    assert checkpointer(second).resume()
    for step in range(3, 7):
        take_step(second, seed=step)
    assert torch.equal(everything(second), everything(whole))
    assert second.get_current_losses() == whole.get_current_losses()


def test_warm_ups_count_images_if_the_batch_size_changes(tmp_path: Path) -> None:
    command = f"{CUT} --lr 0.1 --lr_warm_up 16 --warm_up_D 8"
    first, second = (tiny_model(f"{command} --batch_size {size}", checkpoints_dir=tmp_path, name="run") for size in (4, 1))
    for step in range(3):  # 12 images: the first two steps train D alone
        take_step(first, size=4, seed=step)
    checkpointer(first).save("latest")
    assert checkpointer(second).resume()
    before = all_weights(second.networks["G"])
    take_step(second)
    assert not torch.equal(all_weights(second.networks["G"]), before)
    assert second.learning_rate == pytest.approx(0.1 * 13 / 16)


def test_a_state_of_an_earlier_release_has_the_images_of_its_position(tmp_path: Path) -> None:
    model = tiny_model(f"{CUT} --warm_up_D 8", checkpoints_dir=tmp_path, name="run")
    run = Checkpointer(tmp_path / "run", model=model, counter=ImageCounter())
    run.counter.advance(6)
    run.save("latest")
    path = tmp_path / "run" / "training_state.pt"
    state = torch.load(path, weights_only=True)
    del state["images_done"]
    torch.save(state, path)
    assert run.resume()
    assert model.images_done == 6


def test_a_run_may_be_resumed_with_all_but_spectral_norm(tmp_path: Path) -> None:
    plain, more, norm = (
        tiny_model(f"{CUT} {kit}", checkpoints_dir=tmp_path, name="run") for kit in ("", KIT, "--spectral_norm_D")
    )
    take_step(plain)
    checkpointer(plain).save("latest")
    assert checkpointer(more).resume()
    take_step(more)
    assert all(torch.isfinite(everything(more)))
    with pytest.raises(UserError, match=r"it has no spectral_norm\. Use the options that the run was started with"):
        checkpointer(norm).resume()
