"""CUT and FastCUT (Park, Efros, Zhang, Zhu: Contrastive Learning for Unpaired Image-to-Image Translation, ECCV 2020)."""

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from models.base_model import BaseModel
from models.losses.gan import GAN_LOSSES
from models.losses.patch_nce import patch_nce
from models.networks import DEFAULT_NCE_LAYERS, FEATURE_HEADS
from models.networks.base import EncoderGenerator
from models.networks.factory import define_D, define_F, define_G
from models.networks.layers import is_batch_dependent
from util.cli import (
    boolean,
    layer_list,
    non_negative_float,
    positive_float,
    positive_int,
    set_declared_defaults,
)
from util.errors import UserError
from util.runtime.cuda_graph import Inputs, Outputs
from util.runtime.distributed import gather_from_other_ranks

MODES = ("CUT", "cut", "FastCUT", "fastcut")
FASTCUT = {"nce_idt": False, "lambda_NCE": 10.0, "flip_equivariance": True, "n_epochs": 150, "n_epochs_decay": 50}


def sample_flip(generator: torch.Generator) -> bool:
    """FastCUT's coin: whether this step's input is mirrored."""
    return bool(torch.rand((), generator=generator, device=generator.device) < 0.5)


@dataclass(frozen=True)
class SampledKeys:
    """What the queries of one PatchNCE term are compared with, one entry per layer: the positions drawn, (S_l,), and the
    source's features there, (N, C_l, S_l)."""

    positions: list[Tensor]
    patches: list[Tensor]


class CUTModel(BaseModel):
    """One generator G, one discriminator D, and the heads F that project the encoder's features for PatchNCE.

    Minimizes, over G and F (CUT, equation 5),

        lambda_GAN * L_GAN(G, D, A, B) + lambda_NCE * L_PatchNCE(G, F, A) [+ lambda_NCE * L_PatchNCE(G, F, B)],

    the last term, with --nce_idt, keeping images of B as they are; the two PatchNCE terms are then averaged. FastCUT
    leaves that term out, weighs PatchNCE by 10, and mirrors the generator's input in half of the steps.
    """

    @staticmethod
    def modify_commandline_options(parser: ArgumentParser, is_train: bool) -> ArgumentParser:
        group = parser.add_argument_group("CUT")
        group.add_argument("--CUT_mode", choices=MODES, default="CUT", help="CUT, or its light variant FastCUT")
        group.add_argument("--lambda_GAN", type=non_negative_float, default=1.0, help="weight of the adversarial loss")
        group.add_argument("--lambda_NCE", type=non_negative_float, default=1.0, help="weight of PatchNCE")
        group.add_argument(
            "--nce_idt",
            type=boolean,
            nargs="?",
            const=True,
            default=True,
            help="PatchNCE on G(B) as well, which keeps B",
        )
        group.add_argument(
            "--nce_layers", type=layer_list, default="0,4,8,12,16", help="generator layers that PatchNCE compares"
        )
        group.add_argument(
            "--nce_includes_all_negatives_from_minibatch",
            type=boolean,
            nargs="?",
            const=True,
            default=False,
            help="negatives from all images of the minibatch, not from the same image alone",
        )
        group.add_argument(
            "--netF", choices=list(FEATURE_HEADS), default="mlp_sample", help="how features become patch vectors"
        )
        group.add_argument("--netF_nc", type=positive_int, default=256, help="length of a patch vector")
        group.add_argument("--nce_T", type=positive_float, default=0.07, help="temperature of PatchNCE")
        group.add_argument("--num_patches", type=positive_int, default=256, help="patches compared per layer")
        group.add_argument(
            "--flip_equivariance",
            type=boolean,
            nargs="?",
            const=True,
            default=False,
            help="mirror the generator's input in half of the steps (FastCUT's regularization)",
        )
        set_declared_defaults(parser, pool_size=0)  # no image pool
        return parser

    @staticmethod
    def dependent_defaults(opt: Namespace) -> Mapping[str, Any]:
        return {**default_nce_layers(opt), **(FASTCUT if opt.CUT_mode.lower() == "fastcut" else {})}

    def __init__(self, opt: Namespace) -> None:
        super().__init__(opt)
        self.layers = [int(layer) for layer in opt.nce_layers.split(",")]
        self.use_identity = self.is_train and opt.nce_idt
        self.visual_names = ("real_A", "fake_B", "real_B", *(["idt_B"] if self.use_identity else []))
        self.loss_names = ("G_GAN", "D_real", "D_fake", "G", "NCE", *(["NCE_Y"] if self.use_identity else []))
        self.flipped = False

        self.G = self.add_network("G", define_G(opt, opt.input_nc, opt.output_nc))
        if not self.is_train:
            return
        if opt.input_nc != opt.output_nc:
            raise UserError(
                f"--input_nc {opt.input_nc} and --output_nc {opt.output_nc} differ: CUT's generator encodes its own "
                "output to compare it with its input, so both domains need the same number of channels"
            )
        if opt.lambda_GAN == opt.lambda_NCE == 0:
            raise UserError(
                "--lambda_GAN 0 and --lambda_NCE 0 together leave nothing to learn from; give one of them a weight"
            )
        self.F = define_F(opt, self._feature_widths())
        self.project = self.add_network("F", self.F, in_bf16=False)
        self.D = self.add_network("D", define_D(opt, opt.output_nc))

        self.gan_loss = GAN_LOSSES[opt.gan_mode]
        for name in ("G", "F", "D"):
            self.add_optimizer(name, self.networks[name].parameters())

        # Where no layer looks across the batch, an image's features are the same in any pass with the same weights:
        # the keys are then those that the generator's own pass computed, and passes over several batches are joined.
        self.can_batch_encoder = not is_batch_dependent(self.networks["G"])
        self.can_batch_D = not is_batch_dependent(self.networks["D"])

    def _feature_widths(self) -> list[int]:
        generator = self.networks["G"]
        if not isinstance(generator, EncoderGenerator):
            raise UserError(
                f"--netG {self.opt.netG} has no encoder whose layers PatchNCE could compare: for --model {self.opt.model} "
                f"choose one of {', '.join(DEFAULT_NCE_LAYERS)}"
            )
        try:
            return generator.feature_channels(self.layers)
        except ValueError as error:
            raise UserError(f"--nce_layers {self.opt.nce_layers} do not fit --netG {self.opt.netG}: {error}") from None

    def set_input(self, batch: Mapping[str, Any]) -> None:
        """As for every model. Raises UserError where the identity term cannot translate both domains in one pass."""
        super().set_input(batch)
        if self.use_identity and self.real_A.shape[2:] != self.real_B.shape[2:]:
            sizes = " and ".join(f"{image.shape[3]}x{image.shape[2]}" for image in (self.real_A, self.real_B))
            raise UserError(
                f"images of {sizes} pixels cannot be translated together: crop them to one size (--preprocess "
                "resize_and_crop), or leave out the identity term (--nce_idt false)"
            )

    def compute_step(self, inputs: Inputs) -> Outputs:
        """As for every model; a step that is played back has to tell as well whether it is a mirrored one."""
        return {**super().compute_step(inputs), "flipped": self.flipped}

    def training_step(self) -> None:
        """One step: translate, update D on the detached translations, then G and F against the updated D."""
        self.translate()
        self.optimize(self.compute_D_loss, "D")
        self.optimize(self.compute_G_loss, "G", "F", through=[self.D])

    def forward(self) -> None:
        """fake_B = G(real_A) and, with the identity term, idt_B = G(real_B), in one pass."""
        images = torch.cat((self.real_A, self.real_B)) if self.use_identity else self.real_A
        self.flipped = self.is_train and self.opt.flip_equivariance and self.rng.coin_flip(sample_flip)
        if self.flipped:
            images = images.flip(3)

        self.keys: list[SampledKeys] | None = None
        if self.is_train and self.can_batch_encoder and not self.flipped and self.opt.lambda_NCE > 0:
            outputs, features = self.G(images, self.layers)
            self.keys = self._sample_keys(features, len(images) // len(self.real_A))
        else:
            outputs = self.G(images)
        self.fake_B = outputs[: len(self.real_A)]
        if self.use_identity:
            self.idt_B = outputs[len(self.real_A) :]

    def visuals_for_display(self) -> dict[str, Tensor]:
        """The translations of a mirrored step turned back, beside their sources, which were not mirrored."""
        mirrored = ("fake_B", "idt_B") if self.flipped else ()
        return {name: images.flip(3) if name in mirrored else images for name, images in self.get_current_visuals().items()}

    def compute_D_loss(self) -> Tensor:
        """The mean of D's losses on translated and on real images."""
        fake_scores, real_scores = self._scores(self.fake_B.detach(), self.real_B)
        self.losses["D_fake"] = self.gan_loss(fake_scores, False).mean()
        self.losses["D_real"] = self.gan_loss(real_scores, True).mean()
        loss = (self.losses["D_fake"] + self.losses["D_real"]) * 0.5
        return loss + self.gradient_penalty(self.networks["D"], self.real_B, self.fake_B)

    def _scores(self, fake: Tensor, real: Tensor) -> Sequence[Tensor]:
        """D's scores for both batches of images."""
        if self.can_batch_D and fake.shape == real.shape:
            return self.D(torch.cat((fake, real))).chunk(2)
        return self.D(fake), self.D(real)

    def compute_G_loss(self) -> Tensor:
        """The adversarial loss plus PatchNCE (CUT, equation 5)."""
        zero = self.fake_B.new_zeros(())
        loss_G_GAN = zero
        if self.opt.lambda_GAN > 0:
            loss_G_GAN = self.gan_loss(self.D(self.fake_B), True).mean() * self.opt.lambda_GAN

        terms = self._nce_losses() if self.opt.lambda_NCE > 0 else [zero] * (1 + self.use_identity)
        loss_NCE = torch.stack(terms).mean()

        self.losses["G_GAN"] = loss_G_GAN
        self.losses |= dict(zip(("NCE", "NCE_Y"), terms, strict=False))
        self.losses["G"] = loss_G_GAN + loss_NCE
        return self.losses["G"]

    def _nce_losses(self) -> list[Tensor]:
        """PatchNCE between real_A and fake_B and, with the identity term, between real_B and idt_B."""
        sources, outputs = [self.real_A], [self.fake_B]
        if self.use_identity:
            sources.append(self.real_B)
            outputs.append(self.idt_B)
        if not self.can_batch_encoder:
            return [
                self._nce(self._encode_translations(output), *self._sample_keys(self._encode_source(source)))
                for source, output in zip(sources, outputs, strict=True)
            ]
        keys = self.keys or self._sample_keys(self._encode_source(torch.cat(sources)), len(sources))
        queries = split(self._encode_translations(torch.cat(outputs)), len(outputs))
        return [self._nce(*both) for both in zip(queries, keys, strict=True)]

    def _encode_translations(self, images: Tensor) -> list[Tensor]:
        """The features of translations, mirrored where the generator saw its input so."""
        return self.G(images, self.layers, encode_only=True)

    def _encode_source(self, images: Tensor) -> list[Tensor]:
        with torch.no_grad():
            return self.G(images, self.layers, encode_only=True)

    def _sample_keys(self, features: Sequence[Tensor], terms: int = 1) -> list[SampledKeys]:
        """The keys of each term, at positions drawn anew, from one map (terms * N, C_l, H_l, W_l) per layer. The maps
        themselves are not kept."""
        keys = []
        for part in split(features, terms):
            positions = self.F.draw(part, self.opt.num_patches, self.rng.device_rng)
            with torch.no_grad():
                keys.append(SampledKeys(positions, self.F.gather(part, positions)))
        return keys

    def _nce(self, query_features: Sequence[Tensor], keys: SampledKeys) -> Tensor:
        """PatchNCE between the keys and feature maps (N, C_l, H_l, W_l) of the output, one per layer."""
        return self._patch_nce_loss(self.F.gather(query_features, keys.positions, mirrored=self.flipped), keys.patches)

    def _patch_nce_loss(self, query_patches: Sequence[Tensor], key_patches: Sequence[Tensor]) -> Tensor:
        """lambda_NCE times the mean over layers of PatchNCE between patches (N, C_l, S_l) (CUT, equation 3)."""
        whole_minibatch = self.opt.nce_includes_all_negatives_from_minibatch
        groups = 1 if whole_minibatch else len(query_patches[0])
        with torch.no_grad():
            keys = self.project(key_patches)
        queries = self.project(query_patches)
        per_layer = [
            patch_nce(q, k, groups, self.opt.nce_T, *([gather_from_other_ranks(k)] if whole_minibatch else [])).mean()
            for q, k in zip(queries, keys, strict=True)
        ]
        return torch.stack(per_layer).mean() * self.opt.lambda_NCE


def default_nce_layers(opt: Namespace) -> dict[str, str]:
    """The default of --nce_layers for the generator that --netG names; none where it has no taps."""
    return {"nce_layers": DEFAULT_NCE_LAYERS[opt.netG]} if opt.netG in DEFAULT_NCE_LAYERS else {}


def split(features: Sequence[Tensor], parts: int) -> list[list[Tensor]]:
    """The feature maps of a joined pass, taken apart along the batch: for each part, one map per layer."""
    return [list(part) for part in zip(*(feature.chunk(parts) for feature in features), strict=True)]
