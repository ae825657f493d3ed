"""Translations of a model during training: which networks translate which images, for metrics and for the training page."""

from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from torch import nn

from data.eval_data import EvalDataset
from data.sample_images import load_sample_images
from models.base_model import BaseModel
from models.networks import GENERATORS
from util.html.fixed_samples import FixedSamples
from util.metrics.evaluator import create_evaluator
from util.metrics.validation import Validator
from util.runtime.distributed import is_main_process
from util.terminal import print_line

SAMPLES = 4  # source images that the training page shows in every epoch


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
    if not is_main_process():
        return None
    evaluator = create_evaluator(
        config, opt.seed, model.device, lambda error: print_line(f"warning: metric skipped, training continues: {error}")
    )
    if opt.best_by is not None and (evaluator.metrics or not config):
        evaluator.check_computes(opt.best_by, config)
    if not evaluator.metrics:
        return None
    if opt.best_by is None and not (evaluator.needs("distribution") or evaluator.needs("paired")):
        print_line(
            "warning: all metrics compare outputs with inputs, so best_net_*.pth are the weights that change the least. "
            "Add --inception or --features."
        )
    generators = evaluated_generators(model)

    def save_best(best: str) -> None:
        averages = model.ema.networks if model.ema else {}
        model.save_networks("best", *(model.networks if best in model.networks else averages))

    dataset = EvalDataset(opt, any_size=GENERATORS[opt.netG].network.accepts_any_size)
    validator = Validator(evaluator, dataset, generators, save_best, model.device, opt.best_by)
    for line in validator.check():
        print_line(line)
    return validator


def create_samples(opt: Namespace, model: BaseModel) -> FixedSamples | None:
    """Create the fixed samples of the training page, None without a page or if no image can be read."""
    if opt.no_html or not is_main_process():
        return None
    images = load_sample_images(opt, SAMPLES, any_size=GENERATORS[opt.netG].network.accepts_any_size)
    if not images:
        return None
    return FixedSamples(images, evaluated_generators(model), model.device, opt.seed, opt.crop_size**2)


def evaluated_generators(model: BaseModel) -> dict[str, nn.Module]:
    """Return the first generator of the model, which translates A to B, and its moving average."""
    ema = model.ema.networks if model.ema else {}
    name, generator = next(iter(model.generators.items()))
    return {name: generator} | {average: network for average, network in ema.items() if average.startswith(name)}
