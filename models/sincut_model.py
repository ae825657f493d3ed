"""SinCUT: CUT trained on crops of a single pair of images, with StyleGAN2 layers (CUT, section 4.3 and appendix)."""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from models.cut_model import CUTModel, default_nce_layers
from models.losses.gradient_penalty import r1_penalty
from models.losses.patch_nce import SampledKeys
from models.networks import GENERATORS
from util.cli import non_negative_float, set_declared_defaults


class SinCUTModel(CUTModel):
    """CUT with R1 regularization of D in every step, an L1 identity loss, and one patch per crop.

    The negatives of a patch are the patches of the other crops.
    """

    @staticmethod
    def modify_commandline_options(parser: ArgumentParser, is_train: bool) -> ArgumentParser:
        CUTModel.modify_commandline_options(parser, is_train)
        group = parser.add_argument_group("SinCUT")
        group.add_argument("--lambda_R1", type=non_negative_float, default=1.0, help="weight of the R1 gradient penalty")
        group.add_argument(
            "--lambda_identity", type=non_negative_float, default=1.0, help="weight of the L1 identity loss |G(B) - B|"
        )
        set_declared_defaults(
            parser,
            nce_includes_all_negatives_from_minibatch=True,
            dataset_mode="singleimage",
            netG="stylegan2",
            stylegan2_G_num_downsampling=1,
            netD="stylegan2",
            gan_mode="nonsaturating",
            num_patches=1,
            lambda_NCE=4.0,
            ngf=10,
            ndf=8,
            lr=0.002,
            beta1=0.0,
            beta2=0.99,
            load_size=1024,
            crop_size=64,
            n_epochs=8,
            n_epochs_decay=8,
            save_epoch_freq=1,
            save_latest_freq=20000,
            preprocess="zoom_and_patch" if is_train else "none",
        )
        if is_train:
            set_declared_defaults(parser, batch_size=16)
        return parser

    @staticmethod
    def dependent_defaults(opt: Namespace) -> Mapping[str, Any]:
        return default_nce_layers(opt)

    def __init__(self, opt: Namespace) -> None:
        super().__init__(opt)
        self.loss_names = (*self.loss_names, "D_R1", *(["idt"] if self.use_identity else []))
        if self.is_train:
            #: Encode the receptive fields of the few patches of a crop instead of the whole crop.
            self.encodes_patches = (
                GENERATORS[opt.netG].network.can_encode_patches and self.criterionNCE.sampler.samples_positions
            )

    def compute_D_loss(self) -> Tensor:
        """Return the loss of CUT plus the R1 penalty."""
        loss_D = super().compute_D_loss()
        if self.opt.lambda_R1 == 0:
            self.losses["D_R1"] = loss_D.new_zeros(())
            return loss_D
        self.losses["D_R1"] = r1_penalty(self.networks["D"], self.augment(self.real_B)) * (0.5 * self.opt.lambda_R1)
        return loss_D + self.losses["D_R1"]

    def compute_G_loss(self) -> Tensor:
        """Return the loss of CUT plus the identity loss."""
        loss_G = super().compute_G_loss()
        if self.use_identity:
            self.losses["idt"] = F.l1_loss(self.idt_B, self.real_B) * self.opt.lambda_identity
            self.losses["G"] = loss_G + self.losses["idt"]
        return self.losses["G"]

    def _nce_losses(self) -> Tensor:
        """Return the losses of CUT, encoding only the receptive fields of the patches if possible."""
        if self.keys is None or not self.encodes_patches:
            return super()._nce_losses()
        outputs = [self.fake_B, self.idt_B] if self.use_identity else [self.fake_B]
        pairs: Iterable[tuple[Tensor, SampledKeys]] = zip(outputs, self.keys.split(), strict=True)
        if self.criterionNCE.can_share_passes:
            pairs = [(torch.cat(outputs), self.keys)]
        losses = []
        for images, keys in pairs:
            patches = self.netG(images, self.nce_layers, patch_ids=keys.patch_ids)
            losses.append(self.criterionNCE.compare_patches(patches, keys))
        return torch.cat(losses) * self.opt.lambda_NCE
