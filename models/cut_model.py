"""CUT and FastCUT (Park, Efros, Zhang, Zhu: Contrastive Learning for Unpaired Image-to-Image Translation, ECCV 2020)."""

from argparse import ArgumentParser, Namespace, _ArgumentGroup
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from models.base_model import BaseModel
from models.losses.gan import batch_mean
from models.losses.patch_nce import PatchNCELoss, SampledKeys
from models.networks import FEATURE_HEADS, GENERATORS
from models.networks.base import is_batch_dependent
from models.networks.factory import define_D, define_F, define_G
from models.training_step import Outputs
from util.cli import (
    boolean,
    layer_list,
    non_negative_float,
    positive_float,
    positive_int,
    set_declared_defaults,
)
from util.errors import UserError
from util.runtime.monitor import LossScales

MODES = ("CUT", "cut", "FastCUT", "fastcut")
FASTCUT = {"nce_idt": False, "lambda_NCE": 10.0, "flip_equivariance": True, "n_epochs": 150, "n_epochs_decay": 50}


def sample_flip(generator: torch.Generator) -> bool:
    """Sample if FastCUT flips the generator's input in this step; the probability is 1/2."""
    return bool(torch.rand((), generator=generator, device=generator.device) < 0.5)


def default_nce_layers(opt: Namespace) -> dict[str, str]:
    """Return the default of --nce_layers for --netG; empty if the generator has no encoder features."""
    layers = GENERATORS[opt.netG].network.default_nce_layers
    return {} if layers is None else {"nce_layers": layers}


def add_nce_options(group: _ArgumentGroup) -> None:
    """Declare the options of PatchNCE. Every method with a `PatchNCELoss` shares them."""
    group.add_argument("--nce_layers", type=layer_list, default="0,4,8,12,16", help="generator layers of the PatchNCE loss")
    group.add_argument(
        "--nce_includes_all_negatives_from_minibatch",
        type=boolean,
        nargs="?",
        const=True,
        default=False,
        help="negatives from all images of the minibatch, not only from the same image",
    )
    group.add_argument("--netF", choices=list(FEATURE_HEADS), default="mlp_sample", help="how to sample the feature map")
    group.add_argument("--netF_nc", type=positive_int, default=256, help="length of a patch's feature vector")
    group.add_argument("--nce_T", type=positive_float, default=0.07, help="temperature of the PatchNCE loss")
    group.add_argument("--num_patches", type=positive_int, default=256, help="number of patches per layer")


class CUTModel(BaseModel):
    """A generator netG, a discriminator netD, and heads netF that project encoder features for PatchNCE.

    Minimizes over G and F (CUT, equation 5)

        lambda_GAN * L_GAN(G, D, A, B) + lambda_NCE * L_PatchNCE(G, F, A) [+ lambda_NCE * L_PatchNCE(G, F, B)].

    The last term is the identity loss of --nce_idt, with which G keeps images of B unchanged; the two PatchNCE terms are
    then averaged. FastCUT has no identity loss, lambda_NCE = 10, and flips the generator's input in half of the steps.
    """

    @staticmethod
    def modify_commandline_options(parser: ArgumentParser, is_train: bool) -> ArgumentParser:
        group = parser.add_argument_group("CUT")
        group.add_argument("--CUT_mode", choices=MODES, default="CUT", help="CUT, or FastCUT, its faster variant")
        group.add_argument("--lambda_GAN", type=non_negative_float, default=1.0, help="weight of the GAN loss of G(A)")
        group.add_argument("--lambda_NCE", type=non_negative_float, default=1.0, help="weight of the PatchNCE loss")
        group.add_argument(
            "--nce_idt",
            type=boolean,
            nargs="?",
            const=True,
            default=True,
            help="identity loss: PatchNCE between B and G(B)",
        )
        add_nce_options(group)
        group.add_argument(
            "--flip_equivariance",
            type=boolean,
            nargs="?",
            const=True,
            default=False,
            help="flip-equivariance as additional regularization (FastCUT): flip the input of G in half of the steps",
        )
        set_declared_defaults(parser, pool_size=0)  # no image pool
        return parser

    @staticmethod
    def dependent_defaults(opt: Namespace) -> Mapping[str, Any]:
        return {**default_nce_layers(opt), **(FASTCUT if opt.CUT_mode.lower() == "fastcut" else {})}

    def __init__(self, opt: Namespace) -> None:
        super().__init__(opt)
        self.nce_layers = [int(layer) for layer in opt.nce_layers.split(",")]
        self.use_identity = self.is_train and opt.nce_idt
        self.visual_names = ("real_A", "fake_B", "real_B", *(["idt_B"] if self.use_identity else []))
        self.loss_names = ("G_GAN", "D_real", "D_fake", "G", "NCE", *(["NCE_Y"] if self.use_identity else []))
        self.flipped = False

        generator = define_G(opt, opt.input_nc, opt.output_nc)
        self.netG = self.add_network("G", generator)
        if not self.is_train:
            return
        if opt.input_nc != opt.output_nc:
            raise UserError(
                f"--input_nc {opt.input_nc}, --output_nc {opt.output_nc}: CUT encodes input and output with one network. "
                "Use equal values."
            )
        if opt.lambda_GAN == opt.lambda_NCE == 0:
            raise UserError("--lambda_GAN 0, --lambda_NCE 0: nothing to train. Use a positive weight for one of them.")
        sampler = define_F(opt, generator, self.nce_layers)
        self.netF = self.add_network("F", sampler, in_bf16=False)
        self.netD = self.add_network("D", define_D(opt, opt.output_nc))

        self.criterionNCE = PatchNCELoss(
            self.netG,
            self.netF,
            sampler,
            self.nce_layers,
            opt.num_patches,
            self.rng.device_rng,
            opt.nce_T,
            opt.nce_includes_all_negatives_from_minibatch,
        )
        nce_at_chance = self.criterionNCE.loss_at_chance(opt.batch_size) * opt.lambda_NCE
        self.loss_scales = LossScales({"G_GAN": ("D_real", "D_fake")}, opt.lambda_GAN, nce_at_chance)
        for name in ("G", "F", "D"):
            self.add_optimizer(name, self.networks[name].parameters())

        # If no layer depends on the rest of the batch, features are equal in every pass with equal weights. The keys are
        # then those of the generator's own pass, and several batches share a pass.
        self.can_batch_encoder = not is_batch_dependent(self.networks["G"])
        self.can_batch_D = not is_batch_dependent(self.networks["D"])

    def set_input(self, batch: Mapping[str, Any]) -> None:
        """Place a batch on the device. Raise UserError if the identity loss gets two domains of different sizes."""
        super().set_input(batch)
        if self.use_identity and self.real_A.shape[2:] != self.real_B.shape[2:]:
            sizes = " and ".join(f"{image.shape[3]}x{image.shape[2]}" for image in (self.real_A, self.real_B))
            raise UserError(
                f"--nce_idt: expected images of one size, got {sizes} pixels. Crop them (--preprocess resize_and_crop), "
                "or use --nce_idt false."
            )

    def step_outputs(self) -> Outputs:
        """Return losses, images and the flip: a replayed step also restores whether it was a flipped one."""
        return {**super().step_outputs(), "flipped": self.flipped}

    def load_step_outputs(self, outputs: Outputs) -> None:
        """Take over the outputs of a step, with its flip."""
        super().load_step_outputs(outputs)
        self.flipped = outputs["flipped"]

    def training_step(self) -> None:
        """Run the generator, update D on the detached outputs, then update G and F against the updated D."""
        self.step.forward_all()
        self.optimize(self.compute_D_loss, "D")
        self.optimize(self.compute_G_loss, "G", "F", frozen=[self.netD])

    def forward(self) -> None:
        """Compute fake_B = G(real_A) and, with the identity loss, idt_B = G(real_B) in the same pass."""
        images = torch.cat((self.real_A, self.real_B)) if self.use_identity else self.real_A
        self.flipped = self.is_train and self.opt.flip_equivariance and self.rng.coin_flip(sample_flip)
        if self.flipped:
            images = images.flip(3)

        self.keys: SampledKeys | None = None
        if self.is_train and self.can_batch_encoder and not self.flipped and self.opt.lambda_NCE > 0:
            outputs, features = self.netG(images, self.nce_layers)
            self.keys = self.criterionNCE.sample_keys(features, len(images) // len(self.real_A))
        else:
            outputs = self.netG(images)
        if self.use_identity:
            self.fake_B, self.idt_B = outputs.split(len(self.real_A))
        else:
            self.fake_B = outputs

    def visuals_for_display(self) -> dict[str, Tensor]:
        """Return the visuals with the outputs of a flipped step flipped back, to match their inputs."""
        flipped = ("fake_B", "idt_B") if self.flipped else ()
        return {name: images.flip(3) if name in flipped else images for name, images in self.get_current_visuals().items()}

    def compute_D_loss(self) -> Tensor:
        """Return the mean of the GAN losses of D on fake and on real images."""
        pred_fake, pred_real = self.discriminate(self.netD, self.fake_B.detach(), self.real_B)
        self.losses["D_fake"] = batch_mean(self.criterionGAN(pred_fake, False))
        self.losses["D_real"] = batch_mean(self.criterionGAN(pred_real, True))
        loss_D = (self.losses["D_fake"] + self.losses["D_real"]) * 0.5
        return self.regularize_D(loss_D, "D", pred_fake, pred_real, self.fake_B, self.real_B)

    def compute_G_loss(self) -> Tensor:
        """Return the GAN loss of G plus the PatchNCE loss (CUT, equation 5)."""
        if self.opt.lambda_GAN > 0:
            loss_G_GAN = self.generator_gan_loss(self.netD, self.fake_B) * self.opt.lambda_GAN
        else:
            loss_G_GAN = self.fake_B.new_zeros(())

        nce_losses = self._nce_losses() if self.opt.lambda_NCE > 0 else self.fake_B.new_zeros(1 + self.use_identity)
        loss_NCE = nce_losses.mean()

        self.losses["G_GAN"] = loss_G_GAN
        self.losses |= dict(zip(("NCE", "NCE_Y"), nce_losses.unbind(), strict=False))
        self.losses["G"] = loss_G_GAN + loss_NCE
        return self.losses["G"]

    def calculate_NCE_loss(self, src: Tensor, tgt: Tensor) -> Tensor:
        """Return lambda_NCE * L_PatchNCE(G, F, src), where `tgt` = G(src)."""
        return self.criterionNCE(src, tgt, self.flipped) * self.opt.lambda_NCE

    def _nce_losses(self) -> Tensor:
        """Return `calculate_NCE_loss` for (real_A, fake_B) and, with the identity loss, for (real_B, idt_B): (1,) or (2,).

        Both pairs share their encoder passes if possible.
        """
        sources, outputs = [self.real_A], [self.fake_B]
        if self.use_identity:
            sources.append(self.real_B)
            outputs.append(self.idt_B)
        if not self.can_batch_encoder:
            return torch.stack([self.calculate_NCE_loss(src, tgt) for src, tgt in zip(sources, outputs, strict=True)])
        nce = self.criterionNCE
        keys = self.keys or nce.sample_keys(nce.encode_keys(torch.cat(sources)), len(sources))
        return nce.compare(nce.encode(torch.cat(outputs)), keys, self.flipped) * self.opt.lambda_NCE
