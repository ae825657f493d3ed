"""Model folders for the Hugging Face hub: weights as safetensors, options and a model card."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from data.image_folder import DATAROOT_UNSET
from models import method_name
from models.inference.checkpoint import HUB_INPUT_RANGE, HUB_OPTIONS, HUB_OUTPUT_RANGE, HUB_WEIGHTS, LoadedGenerator
from models.networks.base import Generator
from util.runtime.weights import write_safetensors
from util.version import format_version, program_version

MODEL_CARD = "README.md"
# Options of a training that are published, besides the architecture. No other option is: it may contain a path or a name.
PUBLIC_OPTIONS = (
    *("model", "CUT_mode", "direction", "dataset_mode", "seed", "program"),
    *("preprocess", "load_size", "crop_size", "no_flip", "random_scale_max", "max_dataset_size"),
    *("value_range", "value_range_A", "value_range_B", HUB_INPUT_RANGE, HUB_OUTPUT_RANGE, "tiff_pages", "to_srgb"),
    *("batch_size", "accumulate", "n_epochs", "n_epochs_decay", "steps_per_epoch", "ema", "precision"),
    *("lr", "lr_policy", "lr_decay_iters", "beta1", "beta2", "pool_size", "init_type", "init_gain"),
    *("gan_mode", "lambda_gp", "netD", "ndf", "normD", "n_layers_D", "D_patch_size"),
    *("lambda_GAN", "lambda_NCE", "nce_idt", "nce_layers", "nce_T", "nce_includes_all_negatives_from_minibatch"),
    *("netF", "netF_nc", "num_patches", "flip_equivariance", "lambda_R1", "lambda_identity", "lambda_A", "lambda_B"),
)

CUT_PAPER, CYCLE_GAN_PAPER = "https://arxiv.org/abs/2007.15651", "https://arxiv.org/abs/1703.10593"
PAPERS = {**dict.fromkeys(("CUT", "FastCUT", "SinCUT"), CUT_PAPER), "CycleGAN": CYCLE_GAN_PAPER}

TEMPLATE = """---
library_name: pytorch
pipeline_tag: image-to-image
tags: [image-to-image, unpaired, contrastive-unpaired-translation]
---
# {name}

A generator for image-to-image translation, trained with {method} on unpaired images
of two domains{data}.

```python
from models import Translator
translator = Translator("path/to/this/folder")
translation = translator(image)  # a PIL image, an array or a tensor
```

Program: {program}.

Input: {input_nc} channels, output: {output_nc} channels, {sizes}, with values in [-1, 1].
{trained}
The generator has {parameters:.2f} million parameters ({megabytes:.1f} MB).

## Metrics

{metrics}

## Options

{options}
"""


def write_hub_folder(loaded: LoadedGenerator, folder: Path, name: str, metrics: Mapping[str, float]) -> None:
    """Write model.safetensors, config.json and the model card README.md into `folder`.

    `metrics` are the latest metrics and losses of the training run by name; they may be empty.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_safetensors(loaded.network, folder / HUB_WEIGHTS)
    (folder / HUB_OPTIONS).write_text(json.dumps(_public_options(loaded), indent=1, sort_keys=True) + "\n", encoding="utf-8")
    (folder / MODEL_CARD).write_text(model_card(loaded, name, metrics), encoding="utf-8")


def model_card(loaded: LoadedGenerator, name: str, metrics: Mapping[str, float]) -> str:
    """Return the model card: method, dataset, latest metrics and options, in Markdown for the Hub."""
    saved_options = loaded.saved_options
    dataroot = str(saved_options.get("dataroot", DATAROOT_UNSET))
    dataset = "" if dataroot == DATAROOT_UNSET else Path(dataroot).name
    return TEMPLATE.format(
        name=name,
        method=_describe_method(saved_options),
        data=f" ({dataset}, {saved_options.get('direction', 'AtoB')})" if dataset else "",
        input_nc=loaded.options.input_nc,
        sizes=_describe_sizes(loaded.network),
        trained=_describe_training_images(saved_options),
        parameters=sum(parameter.numel() for parameter in loaded.network.parameters()) / 1e6,
        megabytes=sum(tensor.nbytes for tensor in loaded.network.state_dict().values()) / 1e6,
        output_nc=loaded.options.output_nc,
        program=_describe_program(saved_options.get("program")),
        metrics=_table("metric", {key: f"{value:.4g}" for key, value in metrics.items()}) or "None were logged.",
        options=_table("option", {key: value for key, value in _public_options(loaded).items() if key != "program"}),
    )


def latest_metrics(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Return the latest value of each metric and loss in the rows of metrics.jsonl, under names such as "losses G_GAN"."""
    metrics: dict[str, float] = {}
    for row in rows:
        for group in ("losses", "evaluation"):
            if isinstance(values := row.get(group), dict):
                numbers = {key: value for key, value in values.items() if isinstance(value, int | float)}
                metrics |= {f"{group} {key}": float(value) for key, value in numbers.items()}
    return metrics


def _describe_method(saved_options: Mapping[str, Any]) -> str:
    """Return the method, with a link to its paper if it is a published one."""
    method = method_name(saved_options)
    return f"{method} ([paper]({PAPERS[method]}))" if method in PAPERS else method or "an unknown method"


def _describe_program(trained: Any) -> str:
    """Return the version that exported the generator, and the one that trained it if the run has stored it."""
    exported = f"exported by version {format_version(program_version())}"
    is_version = isinstance(trained, dict) and trained.keys() >= program_version().keys()
    return f"trained by version {format_version(trained)}, {exported}" if is_version else exported


def _public_options(loaded: LoadedGenerator) -> dict[str, Any]:
    saved = {key: loaded.saved_options[key] for key in PUBLIC_OPTIONS if key in loaded.saved_options}
    ranges = {HUB_INPUT_RANGE: loaded.input_range, HUB_OUTPUT_RANGE: loaded.output_range}
    known = {name: str(found) for name, found in ranges.items() if found is not None}
    return {**saved, **known, **vars(loaded.options)}


def _describe_sizes(network: Generator) -> str:
    if type(network).accepts_any_size:
        return "images of any size"
    return f"images whose sides are multiples of {network.size_multiple} pixels"


def _describe_training_images(saved_options: Mapping[str, Any]) -> str:
    """Return the size of the training images; empty if it is unknown."""
    if not saved_options.keys() >= {"preprocess", "load_size", "crop_size"}:
        return ""
    preprocess, load_size, crop_size = (saved_options[name] for name in ("preprocess", "load_size", "crop_size"))
    return f"Training images: --preprocess {preprocess} --load_size {load_size} --crop_size {crop_size} (pixels)."


def _table(heading: str, rows: Mapping[str, Any]) -> str:
    if not rows:
        return ""
    lines = [f"| {heading} | value |", "|---|---|", *(f"| {key} | {rows[key]} |" for key in sorted(rows))]
    return "\n".join(lines)
