"""Single-domain testing: run one generator of any training run on a folder of images."""

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from typing import Any

from models.base_model import BaseModel
from models.networks import GENERATORS
from models.networks.factory import define_G
from util.errors import UserError


class TestModel(BaseModel):
    """A single generator, loaded from `<epoch>_net_G<model_suffix>.pth`."""

    __test__ = False  # not a test class, although pytest would collect it by its name

    visual_names = ("real_A", "fake_B")
    loss_names = ()

    @staticmethod
    def modify_commandline_options(parser: ArgumentParser, is_train: bool) -> ArgumentParser:
        group = parser.add_argument_group("single-domain testing")
        group.add_argument(
            "--model_suffix",
            default="",
            help="suffix of the generator's file: none for CUT, _A or _B for CycleGAN (latest_net_G_A.pth)",
        )
        parser.set_defaults(dataset_mode="single")
        return parser

    @staticmethod
    def dependent_defaults(opt: Namespace) -> Mapping[str, Any]:
        return {"preprocess": "none"} if GENERATORS[opt.netG].network.test_at_full_size else {}

    def __init__(self, opt: Namespace) -> None:
        super().__init__(opt)
        if self.is_train:
            raise UserError("--model test: only for test.py. To train, use --model cut, sincut or cycle_gan.")
        self.netG = self.add_network(f"G{opt.model_suffix}", define_G(opt, opt.input_nc, opt.output_nc))

    def forward(self) -> None:
        """Compute fake_B = G(real_A)."""
        self.fake_B = self.netG(self.real_A)
