"""CUT and FastCUT: what a step does, whichever way it is computed, and which options it refuses."""

from collections import Counter

import pytest
import torch
from golden_cases import assert_close, assert_gradients
from test_registries import all_weights, random_batch, tiny_model, train, translating_model

from models.base_model import BaseModel
from models.cut_model import draw_flip
from models.losses.gradient_penalty import wgan_gp_penalty
from models.networks import GENERATORS
from options import TrainOptions
from util.errors import UserError

RESNET = "--netG resnet_4blocks --init_gain 0.5"


def double_model(command: str, **changes: object) -> BaseModel:
    model = tiny_model(command, **changes)
    for network in model.networks.values():
        network.double()
    return model


def assert_same_step(first: BaseModel, second: BaseModel) -> None:
    """A step of either on the same batch has the same losses and the same gradients."""
    for model in (first, second):
        train(model, steps=1)
    for name in first.loss_names:
        assert_close(name, first.losses[name], second.losses[name])
    for name, network in second.networks.items():
        gradients = {key: torch.zeros(0) if p.grad is None else p.grad for key, p in network.named_parameters()}
        assert_gradients(name, dict(first.networks[name].named_parameters()), gradients)


def count_passes(model: BaseModel) -> Counter:
    """How often each network is run, from now on."""
    passes: Counter = Counter()
    for name, network in model.networks.items():
        network.register_forward_pre_hook(lambda *_, name=name: passes.update([name]))
    return passes


def everything(model: BaseModel) -> torch.Tensor:
    """All weights of all networks, in one vector."""
    return torch.cat([all_weights(network) for network in model.networks.values()])


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
        monkeypatch.setattr("models.cut_model.draw_flip", lambda generator: flip)
        economical = double_model(f"{RESNET} {command}")
        monkeypatch.setattr("models.cut_model.mixes_images", lambda network: True)
        literal = double_model(f"{RESNET} {command}")
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
    def test_are_left_alone_where_pictures_mix(self, command: str, expected: dict) -> None:
        model = tiny_model(f"{RESNET} {command}")
        passes = count_passes(model)
        train(model, steps=1)
        assert {name: passes[name] for name in expected} == expected

    def test_need_no_gradient_for_the_keys(self, monkeypatch: pytest.MonkeyPatch) -> None:
        model = tiny_model(RESNET)
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
        steps = [train(tiny_model(f"{RESNET} --batch_size {number}"), batch_size=size) for number in (option, size)]
        assert steps[0] == steps[1]

    def test_direction_swaps_the_domains(self) -> None:
        model = tiny_model(f"{RESNET} --direction BtoA")
        batch = random_batch(model) | {"B_paths": ["b.png"]}
        model.set_input(batch)
        assert torch.equal(model.real_A, batch["B"])
        assert torch.equal(model.real_B, batch["A"])
        assert model.image_paths == ["b.png"]

    def test_gray(self) -> None:
        model = tiny_model(f"{RESNET} --input_nc 1 --output_nc 1")
        train(model)
        assert model.get_current_visuals()["fake_B"].shape == (2, 1, 32, 32)

    @pytest.mark.parametrize("command", ["--CUT_mode FastCUT", "--CUT_mode FastCUT --normG batch --normD batch"])
    def test_domains_of_different_sizes(self, command: str) -> None:
        """As --preprocess none leaves them."""
        model = tiny_model(f"{RESNET} {command}")
        batch = random_batch(model)
        model.set_input(batch | {"B": batch["B"][..., :24]})
        model.optimize_parameters()
        assert model.get_current_visuals()["fake_B"].shape == (2, 3, 32, 32)

    def test_domains_of_different_sizes_cannot_be_translated_together(self) -> None:
        model = tiny_model(RESNET)
        batch = random_batch(model)
        with pytest.raises(UserError, match=r"32x32 and 24x32 pixels.*--preprocess.*--nce_idt false"):
            model.set_input(batch | {"B": batch["B"][..., :24]})


class TestFastCUT:
    def test_mirrors_half_of_the_steps(self) -> None:
        draws = torch.Generator().manual_seed(0)
        flips = [draw_flip(draws) for _ in range(1000)]
        assert sum(flips) == pytest.approx(500, abs=60)

    def test_mirrors_what_the_generator_sees(self) -> None:
        model = tiny_model(f"{RESNET} --CUT_mode FastCUT --num_patches 1")
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
        model = tiny_model(f"{RESNET} --CUT_mode FastCUT --nce_idt true --num_patches 1")
        model.set_input(random_batch(model))
        outcomes = set()
        for _ in range(12):
            model.forward()
            outcomes.add(model.flipped)
            published, upright = model.get_current_visuals(), model.upright_visuals()
            assert list(upright) == list(published)
            for name, images in published.items():
                turned = model.flipped and name in ("fake_B", "idt_B")
                assert torch.equal(upright[name], images.flip(3) if turned else images)
        assert outcomes == {True, False}

    def test_leaves_a_test_alone(self) -> None:
        model = translating_model(f"{RESNET} --CUT_mode FastCUT")
        model.set_input({"A": torch.rand(1, 3, 32, 32), "A_paths": ["a.png"]})
        for _ in range(12):
            model.test()
            assert not model.flipped

    def test_is_cut_that_mirrors_and_leaves_b_alone(self) -> None:
        opt = TrainOptions().parse(["--CUT_mode", "FastCUT"])
        assert (opt.nce_idt, opt.lambda_NCE, opt.flip_equivariance) == (False, 10, True)
        assert not TrainOptions().parse([]).flip_equivariance


class TestOptionsThatDoWithout:
    NAMES = ("G_GAN", "D_real", "D_fake", "G", "NCE", "NCE_Y")

    @pytest.mark.parametrize(
        ("command", "loss_names", "zero"),
        [
            ("", NAMES, ()),
            ("--lambda_NCE 0", NAMES, ("NCE", "NCE_Y")),
            ("--lambda_GAN 0", NAMES, ("G_GAN",)),
            ("--nce_idt False", NAMES[:-1], ()),
            ("--netF sample", NAMES, ()),
            ("--netF reshape", NAMES, ()),
            ("--num_patches 5000", NAMES, ()),
        ],
    )
    def test_losses_and_pictures_keep_their_names(self, command: str, loss_names: tuple, zero: tuple) -> None:
        model = tiny_model(f"{RESNET} {command}")
        assert model.get_current_losses() == {}
        losses = train(model)
        assert tuple(losses) == loss_names
        assert {name for name, value in losses.items() if value == 0} == set(zero)
        identity = () if "nce_idt" in command else ("idt_B",)
        assert tuple(model.get_current_visuals()) == ("real_A", "fake_B", "real_B", *identity)

    @pytest.mark.parametrize(
        ("command", "expected"),
        [("--lambda_NCE 0", {"G": 1, "F": 0, "D": 2}), ("--lambda_GAN 0", {"G": 2, "F": 4, "D": 1})],
    )
    def test_what_does_not_count_is_not_computed(self, command: str, expected: dict) -> None:
        model = tiny_model(f"{RESNET} {command}")
        passes = count_passes(model)
        train(model, steps=1)
        assert {name: passes[name] for name in expected} == expected

    def test_total_is_the_adversarial_loss_and_the_mean_of_both_terms(self) -> None:
        losses = train(tiny_model(f"{RESNET} --lambda_GAN 3 --lambda_NCE 2"))
        assert losses["G"] == pytest.approx(losses["G_GAN"] + (losses["NCE"] + losses["NCE_Y"]) / 2)

    @pytest.mark.parametrize(("flag", "name"), [("lambda_GAN", "G_GAN"), ("lambda_NCE", "NCE")])
    def test_weights_multiply_their_loss(self, flag: str, name: str) -> None:
        single, double = (train(tiny_model(f"{RESNET} --{flag} {weight}"), steps=1)[name] for weight in (1, 2))
        assert double == pytest.approx(2 * single)

    def test_all_negatives_from_the_minibatch_are_more(self) -> None:
        """The loss at chance is the logarithm of their number: of 8 patches, or of those of both pictures."""
        few, many = (
            train(tiny_model(f"--nce_includes_all_negatives_from_minibatch {answer} --nce_T 1000"), steps=1)["NCE"]
            for answer in ("no", "yes")
        )
        # The filled diagonal counts, at this temperature, as one more.
        assert few == pytest.approx(torch.tensor(9.0).log().item(), rel=1e-2)
        assert many == pytest.approx(torch.tensor(17.0).log().item(), rel=1e-2)


class TestWassersteinPenalty:
    def test_belongs_to_the_critics_loss(self) -> None:
        model = tiny_model(f"{RESNET} --gan_mode wgangp --lambda_gp 10")
        model.set_input(random_batch(model))
        model.forward()
        state = model.generator.get_state()
        loss = model.discriminator_loss()
        model.generator.set_state(state)
        penalty = wgan_gp_penalty(model.D, model.real_B, model.fake_B, model.generator)
        assert penalty > 0
        torch.testing.assert_close(loss, (model.losses["D_real"] + model.losses["D_fake"]) / 2 + 10 * penalty)

    @pytest.mark.parametrize("command", ["--gan_mode wgangp", "--gan_mode lsgan --lambda_gp 10"])
    def test_is_asked_for_and_wassersteins_alone(self, command: str) -> None:
        model = tiny_model(f"{RESNET} {command}")
        model.set_input(random_batch(model))
        model.forward()
        torch.testing.assert_close(model.discriminator_loss(), (model.losses["D_real"] + model.losses["D_fake"]) / 2)


class TestSeed:
    @pytest.mark.parametrize(
        "command",
        [
            f"{RESNET} --CUT_mode FastCUT",
            "--netG stylegan2",
            f"{RESNET} --gan_mode wgangp --lambda_gp 10",
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
        first, same, other = (everything(tiny_model(RESNET, seed=seed)) for seed in (7, 7, 8))
        assert torch.equal(first, same)
        assert not torch.equal(first, other)

    def test_leaves_the_global_generator_alone(self) -> None:
        torch.manual_seed(5)
        state = torch.get_rng_state()
        for command in (RESNET, "--netG stylegan2"):
            train(tiny_model(command))
        assert torch.equal(torch.get_rng_state(), state)


class TestRefusals:
    """One sentence, when the model is built, that says what would be legal."""

    @pytest.mark.parametrize(
        ("generator", "last"),
        [("resnet_9blocks", 31), ("resnet_6blocks", 28), ("resnet_4blocks", 26), ("stylegan2", 5), ("smallstylegan2", 3)],
    )
    @pytest.mark.parametrize("layers", ["0,4,99", "4,0", "2,2"])
    def test_illegal_taps(self, generator: str, last: int, layers: str) -> None:
        with pytest.raises(UserError, match=rf"--nce_layers {layers} .* --netG {generator}: .* from 0 to {last}$"):
            tiny_model(f"--netG {generator} --nce_layers {layers}")

    def test_negative_taps(self) -> None:
        with pytest.raises(UserError, match="from 0 to 26"):
            tiny_model(f"{RESNET} --nce_layers=-1,4")

    @pytest.mark.parametrize("layers", ["16,20", "26", "1,2,3"])
    def test_any_index_is_a_legal_tap(self, layers: str) -> None:
        """Of the decoder too."""
        train(tiny_model(f"{RESNET} --nce_layers {layers}"))

    @pytest.mark.parametrize("mode", ["CUT", "FastCUT"])
    @pytest.mark.parametrize(("generator", "layers"), [("stylegan2", [0, 2, 4]), ("smallstylegan2", [0, 2, 3])])
    def test_default_taps_fit_the_generator(self, generator: str, layers: list[int], mode: str) -> None:
        assert tiny_model(f"--netG {generator} --CUT_mode {mode}").layers == layers

    @pytest.mark.parametrize("model", ["cut", "sincut"])
    @pytest.mark.parametrize(("name", "side"), [("unet_128", 128), ("unet_256", 256)])
    def test_generators_without_an_encoder(self, name: str, side: int, model: str) -> None:
        with pytest.raises(UserError, match=rf"--netG {name} .* --model {model} choose one of (.*)$") as refusal:
            tiny_model(f"--model {model} --netG {name} --load_size {side} --crop_size {side}")
        offered = str(refusal.value).partition("choose one of ")[2].split(", ")
        assert offered == [name for name in GENERATORS if name not in ("unet_128", "unet_256")]

    def test_unequal_channels(self) -> None:
        with pytest.raises(UserError, match="--input_nc 3 and --output_nc 1 differ: CUT's generator encodes its own output"):
            tiny_model("--output_nc 1")
