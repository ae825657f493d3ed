"""The registry of methods for --model. To add a method, write its file and add one line to `MODELS`.

docs/extending.md has an example.
"""

from argparse import Namespace
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from models.base_model import BaseModel
from models.cut_model import CUTModel
from models.cycle_gan_model import CycleGANModel
from models.sincut_model import SinCUTModel
from models.test_model import TestModel
from util.runtime.rng import fork_rng_seeded

if TYPE_CHECKING:
    from models.inference.translator import Translator

__all__ = ["MODELS", "Translator", "create_model", "method_name"]

MODELS: dict[str, type[BaseModel]] = {
    "cut": CUTModel,
    "sincut": SinCUTModel,
    "cycle_gan": CycleGANModel,
    "test": TestModel,
}


def create_model(opt: Namespace) -> BaseModel:
    """Create the model of --model, with weights initialized from --seed.

    Raise UserError if the options are incompatible with each other or with the machine.
    """
    with fork_rng_seeded(opt.seed):
        model = MODELS[opt.model](opt)
    if opt.isTrain and opt.ema > 0:
        model.enable_ema(opt.ema)
    return model


def method_name(options: Mapping[str, Any]) -> str:
    """Return the method of a run as people read it: CUT, FastCUT, SinCUT, CycleGAN, or another name.

    Args:
        options: options of the run by name, of which "model" and "CUT_mode" are read. Without a model: "".
    """
    key = str(options.get("model", ""))
    if key == "cut" and str(options.get("CUT_mode")).lower() == "fastcut":
        return "FastCUT"
    return MODELS[key].__name__.removesuffix("Model") if key in MODELS else key


def __getattr__(name: str) -> Any:
    """Import `Translator` on first use, so that training does not import inference."""
    if name == "Translator":
        from models.inference.translator import Translator

        return Translator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
