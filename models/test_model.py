"""One-sided testing: a generator of any run, on a folder of images."""

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from typing import Any

from models.base_model import BaseModel
from models.networks.factory import define_G
from util.errors import UserError

SINGLE_IMAGE_GENERATORS = ("stylegan2", "smallstylegan2")  # trained on crops, for whole images


class TestModel(BaseModel):
    """G alone, from `<epoch>_net_G<model_suffix>.pth`: CUT's has no suffix, CycleGAN's are _A and _B."""

    __test__ = False  # the name says what it is for; pytest shall not take it for a test

    visual_names = ("real_A", "fake_B")
    loss_names = ()

    @staticmethod
    def modify_commandline_options(parser: ArgumentParser, is_train: bool) -> ArgumentParser:
        group = parser.add_argument_group("one-sided testing")
        group.add_argument("--model_suffix", default="", help="which generator: _A loads latest_net_G_A.pth")
        parser.set_defaults(dataset_mode="single")
        return parser

    @staticmethod
    def dependent_defaults(opt: Namespace) -> Mapping[str, Any]:
        return {"preprocess": "none"} if opt.netG in SINGLE_IMAGE_GENERATORS else {}

    def __init__(self, opt: Namespace) -> None:
        super().__init__(opt)
        if self.is_train:
            raise UserError("--model test is for test.py; train with cut, sincut or cycle_gan")
        self.G = self.add_network(f"G{opt.model_suffix}", define_G(opt, opt.input_nc, opt.output_nc))

    def forward(self) -> None:
        """fake_B = G(real_A)."""
        self.fake_B = self.G(self.real_A)
