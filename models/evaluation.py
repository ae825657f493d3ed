"""Evaluation of a model during training: which networks translate which images, and what is saved as "best"."""

from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from data.eval_data import EvalDataset
from models.base_model import BaseModel
from models.networks import GENERATORS
from util.metrics.evaluator import create_evaluator
from util.metrics.validation import Validator
from util.runtime.distributed import is_main_process


def create_validator(opt: Namespace, config: Mapping[str, Any], model: BaseModel) -> Validator | None:
    """Create the validator of a run, None if nothing is to be computed.

    The first generator of the model and its moving average are evaluated. Metrics whose weights are unavailable are
    skipped, with a warning.

    Args:
        opt: options of the training.
        config: option values of the requested metrics, by their keys in METRICS.
        model: the model to evaluate.
    Raises:
        UserError: there are no images to evaluate on, or a metric cannot be computed.
    """
    if not config or not is_main_process():
        return None
    evaluator = create_evaluator(
        config, opt.seed, model.device, lambda error: print(f"warning: metric skipped, training continues: {error}")
    )
    if not evaluator.metrics:
        return None
    if opt.best_by is not None:
        evaluator.check_computes(opt.best_by)
    ema = model.ema.networks if model.ema else {}
    name, generator = next(iter(model.generators.items()))
    generators = {name: generator} | {average: network for average, network in ema.items() if average.startswith(name)}

    def save_best(best: str) -> None:
        model.save_networks("best", *(model.networks if best == name else ema))

    dataset = EvalDataset(opt, any_size=GENERATORS[opt.netG].network.accepts_any_size)
    validator = Validator(evaluator, dataset, generators, save_best, model.device, opt.best_by)
    for line in validator.check():
        print(line)
    return validator
