"""The CycleGAN baseline (Zhu, Park, Isola, Efros: Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial
Networks, ICCV 2017), with CUT's networks and initialization.

The variant of the original CycleGAN repository, with plain convolutions and normal initialization:
`--no_antialias --no_antialias_up --init_type normal`.
"""

from argparse import ArgumentParser, Namespace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.base_model import BaseModel
from models.image_pool import ImagePool
from models.losses.gan import GAN_LOSSES
from models.networks.factory import define_D, define_G
from models.networks.layers import is_batch_dependent
from util.cli import non_negative_float
from util.errors import UserError

GENERATOR_LOSSES = ("G_A", "cycle_A", "idt_A", "G_B", "cycle_B", "idt_B")
BETA2 = 0.999  # fixed, whatever --beta2 says, as published


class CycleGANModel(BaseModel):
    """G_A translates A to B, G_B back; D_A judges images of B, D_B of A.

    Minimizes over both generators (CycleGAN, equation 3, with the identity loss of section 5.2)

        L_GAN(G_A, D_A) + L_GAN(G_B, D_B) + lambda_A |G_B(G_A(a)) - a| + lambda_B |G_A(G_B(b)) - b|
        + lambda_identity (lambda_B |G_A(b) - b| + lambda_A |G_B(a) - a|).
    """

    loss_names = ("D_A", "G_A", "cycle_A", "idt_A", "D_B", "G_B", "cycle_B", "idt_B")

    @staticmethod
    def modify_commandline_options(parser: ArgumentParser, is_train: bool) -> ArgumentParser:
        if is_train:
            group = parser.add_argument_group("CycleGAN")
            group.add_argument("--lambda_A", type=non_negative_float, default=10.0, help="weight of the cycle A -> B -> A")
            group.add_argument("--lambda_B", type=non_negative_float, default=10.0, help="weight of the cycle B -> A -> B")
            group.add_argument(
                "--lambda_identity",
                type=non_negative_float,
                default=0.5,
                help="weight of the identity loss, as a share of the cycles' weights; 0: none",
            )
        return parser

    def __init__(self, opt: Namespace) -> None:
        super().__init__(opt)
        self.use_identity = self.is_train and opt.lambda_identity > 0
        self.visual_names = (
            *("real_A", "fake_B", "rec_A", *(["idt_B"] if self.use_identity else [])),
            *("real_B", "fake_A", "rec_B", *(["idt_A"] if self.use_identity else [])),
        )
        self.G_A = self.add_network("G_A", define_G(opt, opt.input_nc, opt.output_nc))
        self.G_B = self.add_network("G_B", define_G(opt, opt.output_nc, opt.input_nc))
        if not self.is_train:
            return
        if self.use_identity and opt.input_nc != opt.output_nc:
            raise UserError(
                f"--input_nc {opt.input_nc} and --output_nc {opt.output_nc} differ, so there is no identity to compare "
                "with; give --lambda_identity 0"
            )
        self.D_A = self.add_network("D_A", define_D(opt, opt.output_nc))
        self.D_B = self.add_network("D_B", define_D(opt, opt.input_nc))

        self.gan_loss = GAN_LOSSES[opt.gan_mode]
        self.add_optimizer("G", [*self.G_A.parameters(), *self.G_B.parameters()], beta2=BETA2)
        self.add_optimizer("D", [*self.D_A.parameters(), *self.D_B.parameters()], beta2=BETA2)
        self.pool_A, self.pool_B = (ImagePool(opt.pool_size, self.rng.cpu_rng) for _ in "AB")
        self.stateful |= {"pool_A": self.pool_A, "pool_B": self.pool_B}

        # Where no layer looks across the batch, passes over several batches can be joined.
        self.can_batch_G = not is_batch_dependent(self.networks["G_A"])
        self.can_batch_D = not is_batch_dependent(self.networks["D_A"])

    def training_step(self) -> None:
        """One step: translate and back, update both generators, then both discriminators on pooled translations."""
        self.translate()
        self.optimize(self.compute_G_loss, "G", through=[self.D_A, self.D_B])
        self.optimize(self.compute_D_loss, "D")

    def forward(self) -> None:
        """Translations and reconstructions of both domains, or of A alone where there is no B (in a test)."""
        if self.use_identity and self.can_batch_G and self.real_A.shape == self.real_B.shape:
            self.fake_B, self.idt_A = self.G_A(torch.cat((self.real_A, self.real_B))).chunk(2)
            self.fake_A, self.idt_B = self.G_B(torch.cat((self.real_B, self.real_A))).chunk(2)
            self.rec_A = self.G_B(self.fake_B)
            self.rec_B = self.G_A(self.fake_A)
            return
        self.fake_B = self.G_A(self.real_A)
        self.rec_A = self.G_B(self.fake_B)
        if self.real_B is not None:
            self.fake_A = self.G_B(self.real_B)
            self.rec_B = self.G_A(self.fake_A)
        if self.use_identity:
            self.idt_A = self.G_A(self.real_B)
            self.idt_B = self.G_B(self.real_A)

    def compute_G_loss(self) -> Tensor:
        """What both generators minimize together."""
        opt, losses = self.opt, self.losses
        losses["idt_A"] = losses["idt_B"] = self.real_A.new_zeros(())
        if self.use_identity:
            losses["idt_A"] = F.l1_loss(self.idt_A, self.real_B) * (opt.lambda_B * opt.lambda_identity)
            losses["idt_B"] = F.l1_loss(self.idt_B, self.real_A) * (opt.lambda_A * opt.lambda_identity)
        losses["G_A"] = self.gan_loss(self.D_A(self.fake_B), True).mean()
        losses["G_B"] = self.gan_loss(self.D_B(self.fake_A), True).mean()
        losses["cycle_A"] = F.l1_loss(self.rec_A, self.real_A) * opt.lambda_A
        losses["cycle_B"] = F.l1_loss(self.rec_B, self.real_B) * opt.lambda_B
        return torch.stack([losses[name] for name in GENERATOR_LOSSES]).sum()

    def compute_D_loss(self) -> Tensor:
        """What both discriminators minimize; each has networks of its own, so one backward pass serves both."""
        shown_B, shown_A = self.pool_B.query(self.fake_B.detach()), self.pool_A.query(self.fake_A.detach())
        penalty_A = self.gradient_penalty(self.networks["D_A"], self.real_B, shown_B)
        penalty_B = self.gradient_penalty(self.networks["D_B"], self.real_A, shown_A)
        self.losses["D_A"] = self._score(self.D_A, self.real_B, shown_B) + penalty_A
        self.losses["D_B"] = self._score(self.D_B, self.real_A, shown_A) + penalty_B
        return self.losses["D_A"] + self.losses["D_B"]

    def _score(self, discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        if self.can_batch_D and real.shape == fake.shape:
            real_scores, fake_scores = discriminator(torch.cat((real, fake))).chunk(2)
        else:
            real_scores, fake_scores = discriminator(real), discriminator(fake)
        return (self.gan_loss(real_scores, True).mean() + self.gan_loss(fake_scores, False).mean()) * 0.5
