"""The options of CUT: the losses that they disable, and invalid values."""

import pytest
import torch
from tiny_models import CUT, count_passes, tiny_model, train

from models.networks import GENERATORS
from util.errors import UserError


class TestDisabledLosses:
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
    def test_losses_and_images_keep_their_names(self, command: str, loss_names: tuple, zero: tuple) -> None:
        model = tiny_model(f"{CUT} {command}")
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
    def test_disabled_losses_are_not_computed(self, command: str, expected: dict) -> None:
        model = tiny_model(f"{CUT} {command}")
        passes = count_passes(model)
        train(model, steps=1)
        assert {name: passes[name] for name in expected} == expected

    def test_total_is_the_gan_loss_and_the_mean_of_both_nce_losses(self) -> None:
        losses = train(tiny_model(f"{CUT} --lambda_GAN 3 --lambda_NCE 2"))
        assert losses["G"] == pytest.approx(losses["G_GAN"] + (losses["NCE"] + losses["NCE_Y"]) / 2)

    @pytest.mark.parametrize(("flag", "name"), [("lambda_GAN", "G_GAN"), ("lambda_NCE", "NCE")])
    def test_weights_scale_their_loss(self, flag: str, name: str) -> None:
        single, double = (train(tiny_model(f"{CUT} --{flag} {weight}"), steps=1)[name] for weight in (1, 2))
        assert double == pytest.approx(2 * single)

    def test_all_negatives_from_the_minibatch(self) -> None:
        """The chance level is the logarithm of the number of patches: 8, or 16 for both images."""
        few, many = (
            train(tiny_model(f"--nce_includes_all_negatives_from_minibatch {answer} --nce_T 1000"), steps=1)["NCE"]
            for answer in ("no", "yes")
        )
        # At this temperature the masked diagonal counts as one more patch.
        assert few == pytest.approx(torch.tensor(9.0).log().item(), rel=1e-2)
        assert many == pytest.approx(torch.tensor(17.0).log().item(), rel=1e-2)


class TestInvalidOptions:
    """The constructor raises an error that lists the valid values."""

    @pytest.mark.parametrize(
        ("generator", "last"),
        [("resnet_9blocks", 31), ("resnet_6blocks", 28), ("resnet_4blocks", 26), ("stylegan2", 5), ("smallstylegan2", 3)],
    )
    @pytest.mark.parametrize("layers", ["0,4,99", "4,0", "2,2"])
    def test_invalid_nce_layers(self, generator: str, last: int, layers: str) -> None:
        with pytest.raises(
            UserError, match=rf"^--nce_layers {layers}: invalid for --netG {generator}: .* from 0 to {last}\.$"
        ):
            tiny_model(f"--netG {generator} --nce_layers {layers}")

    def test_negative_nce_layers(self) -> None:
        with pytest.raises(UserError, match="from 0 to 26"):
            tiny_model(f"{CUT} --nce_layers=-1,4")

    @pytest.mark.parametrize("layers", ["16,20", "26", "1,2,3"])
    def test_decoder_layers_are_valid(self, layers: str) -> None:
        train(tiny_model(f"{CUT} --nce_layers {layers}"))

    @pytest.mark.parametrize("mode", ["CUT", "FastCUT"])
    @pytest.mark.parametrize(("generator", "layers"), [("stylegan2", [0, 2, 4]), ("smallstylegan2", [0, 2, 3])])
    def test_default_nce_layers_depend_on_the_generator(self, generator: str, layers: list[int], mode: str) -> None:
        assert tiny_model(f"--netG {generator} --CUT_mode {mode}").nce_layers == layers

    @pytest.mark.parametrize("model", ["cut", "sincut"])
    @pytest.mark.parametrize(("name", "side"), [("unet_128", 128), ("unet_256", 256)])
    def test_generators_without_an_encoder(self, name: str, side: int, model: str) -> None:
        with pytest.raises(
            UserError, match=rf"^--netG {name}: incompatible with --model {model}, .* Use one of .*\.$"
        ) as raised:
            tiny_model(f"--model {model} --netG {name} --load_size {side} --crop_size {side}")
        offered = str(raised.value).partition("Use one of ")[2].removesuffix(".").split(", ")
        assert offered == [name for name, spec in GENERATORS.items() if spec.network.default_nce_layers]
        assert not {"unet_128", "unet_256"} & {*offered}

    def test_different_numbers_of_channels(self) -> None:
        with pytest.raises(UserError, match=r"^--input_nc 3, --output_nc 1: .* Use equal values\.$"):
            tiny_model("--output_nc 1")
