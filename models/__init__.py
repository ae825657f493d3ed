"""The methods that --model chooses from. To add one: write its file, then one line in `MODELS`."""

from argparse import Namespace

from models.base_model import BaseModel
from models.cut_model import CUTModel
from models.cycle_gan_model import CycleGANModel
from models.inference.translator import Translator
from models.sincut_model import SinCUTModel
from models.test_model import TestModel
from util.runtime.rng import fork_rng_seeded

__all__ = ["MODELS", "Translator", "create_model"]

MODELS: dict[str, type[BaseModel]] = {
    "cut": CUTModel,
    "sincut": SinCUTModel,
    "cycle_gan": CycleGANModel,
    "test": TestModel,
}


def create_model(opt: Namespace) -> BaseModel:
    """The model that --model names, its weights drawn from --seed.

    Raises UserError where the options do not fit each other or the machine.
    """
    with fork_rng_seeded(opt.seed):
        model = MODELS[opt.model](opt)
    if opt.isTrain and opt.ema > 0:
        model.enable_ema(opt.ema)
    return model
