"""The CycleGAN baseline (Zhu, Park, Isola, Efros: Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial
Networks, ICCV 2017), with CUT's networks and initialization.

For the networks of the original CycleGAN, with strided convolutions and normal initialization, use
`--no_antialias --no_antialias_up --init_type normal`.
"""

from argparse import ArgumentParser, Namespace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.base_model import BaseModel
from models.image_pool import ImagePool
from models.losses.gan import batch_mean
from models.networks.base import is_batch_dependent
from models.networks.factory import define_D, define_G
from util.cli import non_negative_float
from util.errors import UserError
from util.runtime.monitor import LossScales

G_LOSS_NAMES = ("G_A", "cycle_A", "idt_A", "G_B", "cycle_B", "idt_B")
FIXED_BETA2 = 0.999  # as published: --beta2 has no effect


class CycleGANModel(BaseModel):
    """G_A translates A to B, G_B translates B to A; D_A classifies images of B, D_B images of A.

    Minimizes over both generators (CycleGAN, equation 3, with the identity loss of section 5.2)

        L_GAN(G_A, D_A) + L_GAN(G_B, D_B) + lambda_A |G_B(G_A(a)) - a| + lambda_B |G_A(G_B(b)) - b|
        + lambda_identity (lambda_B |G_A(b) - b| + lambda_A |G_B(a) - a|).
    """

    loss_names = ("D_A", "G_A", "cycle_A", "idt_A", "D_B", "G_B", "cycle_B", "idt_B")
    loss_scales = LossScales({"G_A": ("D_A",), "G_B": ("D_B",)})

    @staticmethod
    def modify_commandline_options(parser: ArgumentParser, is_train: bool) -> ArgumentParser:
        if is_train:
            group = parser.add_argument_group("CycleGAN")
            group.add_argument(
                "--lambda_A", type=non_negative_float, default=10.0, help="weight of the cycle loss A -> B -> A"
            )
            group.add_argument(
                "--lambda_B", type=non_negative_float, default=10.0, help="weight of the cycle loss B -> A -> B"
            )
            group.add_argument(
                "--lambda_identity",
                type=non_negative_float,
                default=0.5,
                help="weight of the identity loss, relative to lambda_A and lambda_B; 0: no identity loss",
            )
        return parser

    @staticmethod
    def cuda_graph_blocker(opt: Namespace) -> str | None:
        if opt.pool_size > 0:
            return "--cuda_graphs: incompatible with the image pool, which is sampled on the host. Use --pool_size 0."
        return None

    def __init__(self, opt: Namespace) -> None:
        super().__init__(opt)
        self.use_identity = self.is_train and opt.lambda_identity > 0
        self.visual_names = (
            *("real_A", "fake_B", "rec_A", *(["idt_B"] if self.use_identity else [])),
            *("real_B", "fake_A", "rec_B", *(["idt_A"] if self.use_identity else [])),
        )
        self.netG_A = self.add_network("G_A", define_G(opt, opt.input_nc, opt.output_nc))
        self.netG_B = self.add_network("G_B", define_G(opt, opt.output_nc, opt.input_nc))
        if not self.is_train:
            return
        if self.use_identity and opt.input_nc != opt.output_nc:
            raise UserError(
                f"--input_nc {opt.input_nc}, --output_nc {opt.output_nc}: incompatible with the identity loss, which needs "
                "equal values. Use --lambda_identity 0."
            )
        self.netD_A = self.add_network("D_A", define_D(opt, opt.output_nc))
        self.netD_B = self.add_network("D_B", define_D(opt, opt.input_nc))

        self.add_optimizer("G", [*self.netG_A.parameters(), *self.netG_B.parameters()], beta2=FIXED_BETA2)
        self.add_optimizer("D", [*self.netD_A.parameters(), *self.netD_B.parameters()], beta2=FIXED_BETA2)
        self.pool_A, self.pool_B = (ImagePool(opt.pool_size, self.rng.cpu_rng) for _ in "AB")
        self.checkpoint_items |= {"pool_A": self.pool_A, "pool_B": self.pool_B}

        # If no layer depends on the rest of the batch, several batches can share a pass.
        self.can_batch_G = not is_batch_dependent(self.networks["G_A"])
        self.can_batch_D = not is_batch_dependent(self.networks["D_A"])

    def training_step(self) -> None:
        """Run both generators, update them, then update both discriminators on images from the image pools."""
        self.step.forward_all()
        self.optimize(self.compute_G_loss, "G", frozen=[self.netD_A, self.netD_B])
        self.optimize(self.compute_D_loss, "D")

    def forward(self) -> None:
        """Compute fake and reconstructed images of both domains, or from A alone if a test has no B."""
        if self.use_identity and self.can_batch_G and self.real_A.shape == self.real_B.shape:
            self.fake_B, self.idt_A = self.netG_A(torch.cat((self.real_A, self.real_B))).chunk(2)
            self.fake_A, self.idt_B = self.netG_B(torch.cat((self.real_B, self.real_A))).chunk(2)
            self.rec_A = self.netG_B(self.fake_B)
            self.rec_B = self.netG_A(self.fake_A)
            return
        self.fake_B = self.netG_A(self.real_A)
        self.rec_A = self.netG_B(self.fake_B)
        if self.real_B is not None:
            self.fake_A = self.netG_B(self.real_B)
            self.rec_B = self.netG_A(self.fake_A)
        if self.use_identity:
            self.idt_A = self.netG_A(self.real_B)
            self.idt_B = self.netG_B(self.real_A)

    def compute_G_loss(self) -> Tensor:
        """Return the sum of the losses of both generators."""
        opt, losses = self.opt, self.losses
        if self.use_identity:
            losses["idt_A"] = F.l1_loss(self.idt_A, self.real_B) * (opt.lambda_B * opt.lambda_identity)
            losses["idt_B"] = F.l1_loss(self.idt_B, self.real_A) * (opt.lambda_A * opt.lambda_identity)
        else:
            losses["idt_A"] = losses["idt_B"] = self.real_A.new_zeros(())
        losses["G_A"] = self.generator_gan_loss(self.netD_A, self.fake_B)
        losses["G_B"] = self.generator_gan_loss(self.netD_B, self.fake_A)
        losses["cycle_A"] = F.l1_loss(self.rec_A, self.real_A) * opt.lambda_A
        losses["cycle_B"] = F.l1_loss(self.rec_B, self.real_B) * opt.lambda_B
        return torch.stack([losses[name] for name in G_LOSS_NAMES]).sum()

    def compute_D_loss(self) -> Tensor:
        """Return the sum of the losses of both discriminators, which share no weights."""
        pooled_fake_B = self.pool_B.query(self.fake_B.detach())
        pooled_fake_A = self.pool_A.query(self.fake_A.detach())
        self.losses["D_A"] = self._d_loss("D_A", self.netD_A, self.real_B, pooled_fake_B)
        self.losses["D_B"] = self._d_loss("D_B", self.netD_B, self.real_A, pooled_fake_A)
        return self.losses["D_A"] + self.losses["D_B"]

    def _d_loss(self, name: str, discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        """Return the mean of the GAN losses of one discriminator on real and on fake images, and its regularization."""
        pred_real, pred_fake = self.discriminate(discriminator, real, fake)
        loss_D = (batch_mean(self.criterionGAN(pred_real, True)) + batch_mean(self.criterionGAN(pred_fake, False))) * 0.5
        return self.regularize_D(loss_D, name, pred_fake, pred_real, fake, real)
