"""CUT and FastCUT: the training step and its optimizations, flips, and seeds."""

import pytest
import torch
from tiny_models import (
    CUT,
    assert_same_step,
    count_passes,
    double_model,
    everything,
    random_batch,
    tiny_model,
    train,
    translating_model,
)

from models.cut_model import sample_flip
from models.losses.gradient_penalty import wgan_gp_penalty
from options import TrainOptions
from util.errors import UserError


class TestSharedPasses:
    @pytest.mark.parametrize(
        ("command", "flip", "shared", "separate"),
        [
            ("--CUT_mode CUT", False, {"G": 2, "D": 2}, {"G": 5, "D": 3}),
            ("--CUT_mode CUT --flip_equivariance", True, {"G": 3, "D": 2}, {"G": 5, "D": 3}),
            ("--CUT_mode FastCUT", False, {"G": 2, "D": 2}, {"G": 3, "D": 3}),
            ("--CUT_mode FastCUT", True, {"G": 3, "D": 2}, {"G": 3, "D": 3}),
            ("--CUT_mode CUT --netF reshape", False, {"G": 2, "D": 2}, {"G": 5, "D": 3}),
            ("--CUT_mode CUT --normG none --no_antialias", False, {"G": 2, "D": 2}, {"G": 5, "D": 3}),
        ],
    )
    def test_equal_separate_ones(self, command: str, flip: bool, shared: dict, separate: dict, monkeypatch) -> None:
        """Reuse features as keys, and run encoder and discriminator once on several batches: no result changes."""
        monkeypatch.setattr("models.cut_model.sample_flip", lambda generator: flip)
        shared_model = double_model(f"{CUT} {command}")
        monkeypatch.setattr("models.cut_model.is_batch_dependent", lambda network: True)
        published = double_model(f"{CUT} {command}")
        passes = [count_passes(model) for model in (shared_model, published)]
        assert_same_step(shared_model, published)
        for found, expected in zip(passes, (shared, separate), strict=True):
            assert {name: found[name] for name in expected} == expected

    @pytest.mark.parametrize(
        ("command", "expected"),
        [
            ("--normG batch", {"G": 5, "D": 2}),
            ("--no_dropout False", {"G": 5, "D": 2}),
            ("--normD batch", {"G": 2, "D": 3}),
        ],
    )
    def test_are_not_used_if_images_depend_on_the_batch(self, command: str, expected: dict) -> None:
        model = tiny_model(f"{CUT} {command}")
        passes = count_passes(model)
        train(model, steps=1)
        assert {name: passes[name] for name in expected} == expected

    def test_keys_have_no_gradient(self, monkeypatch: pytest.MonkeyPatch) -> None:
        model = tiny_model(CUT)
        requires_grad = []
        monkeypatch.setattr(
            "models.losses.patch_nce.patch_nce",
            lambda q, k, groups, temperature: requires_grad.append((q.requires_grad, k.requires_grad)) or q.sum(1),
        )
        train(model, steps=1)
        assert requires_grad == [(True, False)] * 10


class TestCalculateNCELoss:
    @pytest.mark.parametrize("command", ["", "--CUT_mode FastCUT --lambda_NCE 3"])
    def test_of_one_pair_equals_the_loss_of_the_step(self, command: str) -> None:
        """Sample all patches, so that the patch ids have no influence."""
        model = double_model(f"{CUT} {command} --num_patches 5000")
        model.set_input(random_batch(model))
        model.forward()
        model.compute_G_loss()
        torch.testing.assert_close(model.calculate_NCE_loss(model.real_A, model.fake_B), model.losses["NCE"])
        if model.use_identity:
            torch.testing.assert_close(model.calculate_NCE_loss(model.real_B, model.idt_B), model.losses["NCE_Y"])


class TestBatches:
    @pytest.mark.parametrize(("size", "option"), [(1, 3), (3, 1)])
    def test_step_depends_on_the_batch_not_on_batch_size(self, size: int, option: int) -> None:
        steps = [train(tiny_model(f"{CUT} --batch_size {number}"), batch_size=size) for number in (option, size)]
        assert steps[0] == steps[1]

    def test_direction_swaps_the_domains(self) -> None:
        model = tiny_model(f"{CUT} --direction BtoA")
        batch = random_batch(model) | {"B_paths": ["b.png"]}
        model.set_input(batch)
        assert torch.equal(model.real_A, batch["B"])
        assert torch.equal(model.real_B, batch["A"])
        assert model.image_paths == ["b.png"]

    def test_gray(self) -> None:
        model = tiny_model(f"{CUT} --input_nc 1 --output_nc 1")
        train(model)
        assert model.get_current_visuals()["fake_B"].shape == (2, 1, 32, 32)

    @pytest.mark.parametrize("command", ["--CUT_mode FastCUT", "--CUT_mode FastCUT --normG batch --normD batch"])
    def test_domains_of_different_sizes(self, command: str) -> None:
        """--preprocess none allows this."""
        model = tiny_model(f"{CUT} {command}")
        batch = random_batch(model)
        model.set_input(batch | {"B": batch["B"][..., :24]})
        model.optimize_parameters()
        assert model.get_current_visuals()["fake_B"].shape == (2, 3, 32, 32)

    def test_domains_of_different_sizes_are_refused_with_the_identity_loss(self) -> None:
        model = tiny_model(CUT)
        batch = random_batch(model)
        with pytest.raises(UserError, match=r"32x32 and 24x32 pixels.*--preprocess.*--nce_idt false"):
            model.set_input(batch | {"B": batch["B"][..., :24]})


class TestFastCUT:
    def test_flips_half_of_the_steps(self) -> None:
        rng = torch.Generator().manual_seed(0)
        flips = [sample_flip(rng) for _ in range(1000)]
        assert sum(flips) == pytest.approx(500, abs=60)

    def test_flips_the_input_of_the_generator(self) -> None:
        model = tiny_model(f"{CUT} --CUT_mode FastCUT --num_patches 1")
        model.set_input(random_batch(model))
        shown = []
        model.netG.register_forward_pre_hook(lambda _, inputs: shown.append(inputs[0]))
        outcomes = set()
        for _ in range(12):
            model.forward()
            outcomes.add(model.flipped)
            assert torch.equal(shown[-1], model.real_A.flip(3) if model.flipped else model.real_A)
        assert outcomes == {True, False}

    def test_displays_flipped_outputs_unflipped(self) -> None:
        model = tiny_model(f"{CUT} --CUT_mode FastCUT --nce_idt true --num_patches 1")
        model.set_input(random_batch(model))
        outcomes = set()
        for _ in range(12):
            model.forward()
            outcomes.add(model.flipped)
            visuals, displayed = model.get_current_visuals(), model.visuals_for_display()
            assert list(displayed) == list(visuals)
            for name, images in visuals.items():
                flipped = model.flipped and name in ("fake_B", "idt_B")
                assert torch.equal(displayed[name], images.flip(3) if flipped else images)
        assert outcomes == {True, False}

    def test_does_not_flip_in_a_test(self) -> None:
        model = translating_model(f"{CUT} --CUT_mode FastCUT")
        model.set_input({"A": torch.rand(1, 3, 32, 32), "A_paths": ["a.png"]})
        for _ in range(12):
            model.test()
            assert not model.flipped

    def test_defaults_differ_from_cut(self) -> None:
        opt = TrainOptions().parse(["--CUT_mode", "FastCUT"])
        assert (opt.nce_idt, opt.lambda_NCE, opt.flip_equivariance) == (False, 10, True)
        assert not TrainOptions().parse([]).flip_equivariance


class TestWassersteinPenalty:
    def test_is_part_of_the_discriminator_loss(self) -> None:
        model = tiny_model(f"{CUT} --gan_mode wgangp --lambda_gp 10")
        model.set_input(random_batch(model))
        model.forward()
        state = model.rng.device_rng.get_state()
        loss = model.compute_D_loss()
        model.rng.device_rng.set_state(state)
        penalty = wgan_gp_penalty(model.netD, model.real_B, model.fake_B, model.rng.device_rng)
        assert penalty > 0
        torch.testing.assert_close(loss, (model.losses["D_real"] + model.losses["D_fake"]) / 2 + 10 * penalty)

    @pytest.mark.parametrize("command", ["--gan_mode wgangp", "--gan_mode lsgan --lambda_gp 10"])
    def test_needs_lambda_gp_and_wgangp(self, command: str) -> None:
        model = tiny_model(f"{CUT} {command}")
        model.set_input(random_batch(model))
        model.forward()
        torch.testing.assert_close(model.compute_D_loss(), (model.losses["D_real"] + model.losses["D_fake"]) / 2)


class TestSeed:
    @pytest.mark.parametrize(
        "command",
        [
            f"{CUT} --CUT_mode FastCUT",
            "--netG stylegan2",
            f"{CUT} --gan_mode wgangp --lambda_gp 10",
        ],
    )
    def test_determines_weights_and_steps(self, command: str) -> None:
        models = [tiny_model(command, seed=seed) for seed in (7, 7, 8)]
        for index, model in enumerate(models):
            torch.manual_seed(index)  # must have no effect
            train(model)
        first, same, other = (everything(model) for model in models)
        assert torch.equal(first, same)
        assert not torch.equal(first, other)

    def test_determines_the_initial_weights(self) -> None:
        first, same, other = (everything(tiny_model(CUT, seed=seed)) for seed in (7, 7, 8))
        assert torch.equal(first, same)
        assert not torch.equal(first, other)

    def test_does_not_change_the_global_rng(self) -> None:
        torch.manual_seed(5)
        state = torch.get_rng_state()
        for command in (CUT, "--netG stylegan2"):
            train(tiny_model(command))
        assert torch.equal(torch.get_rng_state(), state)
