"""CUT and FastCUT: what a step does, whichever way it is computed."""

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


class TestJoinedPasses:
    @pytest.mark.parametrize(
        ("command", "flip", "joined", "separate"),
        [
            ("--CUT_mode CUT", False, {"G": 2, "D": 2}, {"G": 5, "D": 3}),
            ("--CUT_mode CUT --flip_equivariance", True, {"G": 3, "D": 2}, {"G": 5, "D": 3}),
            ("--CUT_mode FastCUT", False, {"G": 2, "D": 2}, {"G": 3, "D": 3}),
            ("--CUT_mode FastCUT", True, {"G": 3, "D": 2}, {"G": 3, "D": 3}),
            ("--CUT_mode CUT --netF reshape", False, {"G": 2, "D": 2}, {"G": 5, "D": 3}),
            ("--CUT_mode CUT --normG none --no_antialias", False, {"G": 2, "D": 2}, {"G": 5, "D": 3}),
        ],
    )
    def test_equal_separate_ones(self, command: str, flip: bool, joined: dict, separate: dict, monkeypatch) -> None:
        """Keys from the generator's own pass, encoder and discriminator run once on everything: an economy, no change."""
        monkeypatch.setattr("models.cut_model.sample_flip", lambda generator: flip)
        economical = double_model(f"{CUT} {command}")
        monkeypatch.setattr("models.cut_model.is_batch_dependent", lambda network: True)
        literal = double_model(f"{CUT} {command}")
        passes = [count_passes(model) for model in (economical, literal)]
        assert_same_step(economical, literal)
        for found, expected in zip(passes, (joined, separate), strict=True):
            assert {name: found[name] for name in expected} == expected

    @pytest.mark.parametrize(
        ("command", "expected"),
        [
            ("--normG batch", {"G": 5, "D": 2}),
            ("--no_dropout False", {"G": 5, "D": 2}),
            ("--normD batch", {"G": 2, "D": 3}),
        ],
    )
    def test_are_left_alone_where_images_mix(self, command: str, expected: dict) -> None:
        model = tiny_model(f"{CUT} {command}")
        passes = count_passes(model)
        train(model, steps=1)
        assert {name: passes[name] for name in expected} == expected

    def test_need_no_gradient_for_the_keys(self, monkeypatch: pytest.MonkeyPatch) -> None:
        model = tiny_model(CUT)
        seen = []
        monkeypatch.setattr(
            "models.cut_model.patch_nce",
            lambda q, k, groups, temperature: seen.append((q.requires_grad, k.requires_grad)) or q.sum(1),
        )
        train(model, steps=1)
        assert seen == [(True, False)] * 10


class TestBatches:
    @pytest.mark.parametrize(("size", "option"), [(1, 3), (3, 1)])
    def test_step_goes_by_the_batch_not_by_the_option(self, size: int, option: int) -> None:
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
        """As --preprocess none leaves them."""
        model = tiny_model(f"{CUT} {command}")
        batch = random_batch(model)
        model.set_input(batch | {"B": batch["B"][..., :24]})
        model.optimize_parameters()
        assert model.get_current_visuals()["fake_B"].shape == (2, 3, 32, 32)

    def test_domains_of_different_sizes_cannot_be_translated_together(self) -> None:
        model = tiny_model(CUT)
        batch = random_batch(model)
        with pytest.raises(UserError, match=r"32x32 and 24x32 pixels.*--preprocess.*--nce_idt false"):
            model.set_input(batch | {"B": batch["B"][..., :24]})


class TestFastCUT:
    def test_mirrors_half_of_the_steps(self) -> None:
        draws = torch.Generator().manual_seed(0)
        flips = [sample_flip(draws) for _ in range(1000)]
        assert sum(flips) == pytest.approx(500, abs=60)

    def test_mirrors_what_the_generator_sees(self) -> None:
        model = tiny_model(f"{CUT} --CUT_mode FastCUT --num_patches 1")
        model.set_input(random_batch(model))
        shown = []
        model.G.register_forward_pre_hook(lambda _, inputs: shown.append(inputs[0]))
        outcomes = set()
        for _ in range(12):
            model.forward()
            outcomes.add(model.flipped)
            assert torch.equal(shown[-1], model.real_A.flip(3) if model.flipped else model.real_A)
        assert outcomes == {True, False}

    def test_shows_people_what_it_mirrored_the_right_way_round(self) -> None:
        model = tiny_model(f"{CUT} --CUT_mode FastCUT --nce_idt true --num_patches 1")
        model.set_input(random_batch(model))
        outcomes = set()
        for _ in range(12):
            model.forward()
            outcomes.add(model.flipped)
            published, upright = model.get_current_visuals(), model.visuals_for_display()
            assert list(upright) == list(published)
            for name, images in published.items():
                turned = model.flipped and name in ("fake_B", "idt_B")
                assert torch.equal(upright[name], images.flip(3) if turned else images)
        assert outcomes == {True, False}

    def test_leaves_a_test_alone(self) -> None:
        model = translating_model(f"{CUT} --CUT_mode FastCUT")
        model.set_input({"A": torch.rand(1, 3, 32, 32), "A_paths": ["a.png"]})
        for _ in range(12):
            model.test()
            assert not model.flipped

    def test_is_cut_that_mirrors_and_leaves_b_alone(self) -> None:
        opt = TrainOptions().parse(["--CUT_mode", "FastCUT"])
        assert (opt.nce_idt, opt.lambda_NCE, opt.flip_equivariance) == (False, 10, True)
        assert not TrainOptions().parse([]).flip_equivariance


class TestWassersteinPenalty:
    def test_belongs_to_the_critics_loss(self) -> None:
        model = tiny_model(f"{CUT} --gan_mode wgangp --lambda_gp 10")
        model.set_input(random_batch(model))
        model.forward()
        state = model.rng.device_rng.get_state()
        loss = model.compute_D_loss()
        model.rng.device_rng.set_state(state)
        penalty = wgan_gp_penalty(model.D, model.real_B, model.fake_B, model.rng.device_rng)
        assert penalty > 0
        torch.testing.assert_close(loss, (model.losses["D_real"] + model.losses["D_fake"]) / 2 + 10 * penalty)

    @pytest.mark.parametrize("command", ["--gan_mode wgangp", "--gan_mode lsgan --lambda_gp 10"])
    def test_is_asked_for_and_wassersteins_alone(self, command: str) -> None:
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
    def test_decides_weights_and_steps(self, command: str) -> None:
        models = [tiny_model(command, seed=seed) for seed in (7, 7, 8)]
        for index, model in enumerate(models):
            torch.manual_seed(index)  # nothing may depend on it
            train(model)
        first, same, other = (everything(model) for model in models)
        assert torch.equal(first, same)
        assert not torch.equal(first, other)

    def test_decides_the_first_weights(self) -> None:
        first, same, other = (everything(tiny_model(CUT, seed=seed)) for seed in (7, 7, 8))
        assert torch.equal(first, same)
        assert not torch.equal(first, other)

    def test_leaves_the_global_generator_alone(self) -> None:
        torch.manual_seed(5)
        state = torch.get_rng_state()
        for command in (CUT, "--netG stylegan2"):
            train(tiny_model(command))
        assert torch.equal(torch.get_rng_state(), state)
