"""Export generators to other runtimes, with a check against the original, and to the Hugging Face Hub."""

import json
import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from data.image_folder import DATAROOT_UNSET
from models.inference.checkpoint import HUB_INPUT_RANGE, HUB_OPTIONS, HUB_OUTPUT_RANGE, HUB_WEIGHTS, LoadedGenerator
from models.inference.noise import ZeroNoise
from models.inference.raw_format import TOLERANCE, RawFormat
from models.networks.base import Generator
from util.errors import UserError
from util.runtime.weights import write_safetensors
from util.version import format_version, program_version

INPUT, OUTPUT = "image", "translation"  # names in ONNX files
TOLERANCE_8_BIT = 1  # gray level; truncation turns any difference into one
#: Sizes to compare: the batch, and the sides beyond the smallest ones, in multiples of `size_multiple`.
CHECKED_SHAPES = ((1, 0, 0), (3, 0, 3), (1, 5, 2))

Run = Callable[[Tensor], Tensor]


class ExportMismatchError(Exception):
    """The output of an exported network differs from the original."""


class ExportableGenerator(nn.Module):
    """A generator as a function of the image only: without noise, for `uint8` and `raw` with the conversions inside.

    float: (N, C, H, W) in [-1, 1] -> (N, C', H, W) in [-1, 1]. uint8 and raw: (N, H, W, C) -> (N, H, W, C'), the layout of
    image libraries. H and W are multiples of `size_multiple`, at least `min_multiples` of it.
    """

    def __init__(self, generator: Generator, input_nc: int, uint8: bool, raw: RawFormat | None = None) -> None:
        super().__init__()
        generator.set_noise_source(ZeroNoise())
        self.generator = generator.eval()
        self.input_nc = input_nc
        self.uint8 = uint8
        self.raw = raw
        self.metadata: dict[str, str] = {}  # of the exported file
        self.size_multiple = generator.size_multiple
        self.min_multiples = min_multiples(generator)

    def forward(self, image: Tensor) -> Tensor:
        """Return the output of the generator, in the layout of the input."""
        if self.raw is not None:
            return self.raw.denormalize(self.generator(self.raw.normalize(image)))
        if not self.uint8:
            return self.generator(image)
        output = self.generator((image.permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5)
        return ((output + 1) / 2 * 255).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)

    def example(self, batch: int, extra_rows: int, extra_columns: int) -> Tensor:
        """Return an input whose sides exceed the smallest ones by these multiples of `size_multiple`."""
        height, width = (self.size_multiple * (self.min_multiples + extra) for extra in (extra_rows, extra_columns))
        images = random_images(batch, height, width, self.input_nc, self.uint8)
        if self.raw is None:
            return images
        lo, hi = self.raw.input_range.lo, self.raw.input_range.hi
        return ((images.permute(0, 2, 3, 1) + 1) / 2 * (hi - lo) + lo).to(self.raw.dtype)


def min_multiples(generator: Generator) -> int:
    """Return the smallest side of an export's input in multiples of `size_multiple`, at least 2: torch.export fixes 1."""
    return max(2, math.ceil(generator.min_size / generator.size_multiple))


def random_images(batch: int, height: int, width: int, channels: int, uint8: bool) -> Tensor:
    """Return uniform noise, seeded by the size: (N, C, H, W) in [-1, 1], or for `uint8` (N, H, W, C)."""
    noise = torch.rand(batch, channels, height, width, generator=torch.Generator().manual_seed(height * width))
    return (noise * 255).to(torch.uint8).permute(0, 2, 3, 1) if uint8 else noise * 2 - 1


def export_generator(
    generator: Generator,
    input_nc: int,
    path: Path,
    format: str,
    uint8: bool = False,
    check: bool = True,
    raw: RawFormat | None = None,
    metadata: Mapping[str, str] | None = None,
) -> float:
    """Write the generator to `path`, for any batch size and image size that it supports.

    Args:
        generator: the network.
        input_nc: its input channels.
        path: file to write. It is written only if the check passes.
        format: a key of `EXPORTERS`.
        uint8: images (N, H, W, C) of uint8 as input and output, instead of (N, C, H, W) in [-1, 1].
        check: run the file at several sizes and compare it with the original.
        raw: samples (N, H, W, C) as files have them, as input and output; incompatible with `uint8`.
        metadata: stored in the file, besides the program version and the formats of input and output.
    Returns:
        The largest difference from the original, in [-1, 1] or in gray levels; NaN without `check`.
    Raises:
        UserError: a package is missing.
        ExportMismatchError: the difference is above the tolerance.
    """
    exporter = EXPORTERS[format]
    exportable = ExportableGenerator(generator, input_nc, uint8, raw)
    exportable.metadata = {**_metadata(exportable), **(metadata or {})}
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=path.parent, prefix=".export-") as folder, torch.no_grad():
        tmp_path = Path(folder, path.name)
        exporter.write(exportable, tmp_path)
        difference = largest_difference(exporter.load(tmp_path), exportable) if check else math.nan
        tolerance = raw.tolerance if raw is not None else TOLERANCE_8_BIT if uint8 else TOLERANCE
        if difference > tolerance:
            raise ExportMismatchError(
                f"--format {format}: the exported file differs from the original by {difference:.3g}, more than {tolerance}"
            )
        tmp_path.replace(path)
    return difference


def largest_difference(run: Run, exportable: ExportableGenerator) -> float:
    """Return the largest difference between the outputs of `run` and the original, over several sizes and batches."""
    difference = 0.0
    for shape in CHECKED_SHAPES:
        image = exportable.example(*shape)
        expected, found = exportable(image), run(image)
        if found.shape != expected.shape or found.dtype != expected.dtype:
            return math.inf
        difference = max(difference, float((found.double() - expected.double()).abs().max()))
    return difference


@dataclass(frozen=True)
class Exporter:
    """The file extension, the writer and the loader of a format."""

    suffix: str
    write: Callable[[ExportableGenerator, Path], None]
    load: Callable[[Path], Run]


def _trace(exportable: ExportableGenerator) -> ExportedProgram:
    """Return the exported program with dynamic batch size, height and width."""
    height, width = (exportable.size_multiple * Dim(name, min=exportable.min_multiples) for name in ("rows", "columns"))
    first = 2 if exportable.raw is None and not exportable.uint8 else 1
    shapes = {0: Dim("batch", min=1), first: height, first + 1: width}
    return torch.export.export(exportable, (exportable.example(2, 0, 1),), dynamic_shapes=(shapes,))


def _write_onnx(exportable: ExportableGenerator, path: Path) -> None:
    onnx, _ = _require("onnx", "onnxscript")
    with warnings.catch_warnings(action="ignore"):
        torch.onnx.export(
            _trace(exportable),
            f=str(path),
            dynamo=True,
            external_data=False,
            input_names=[INPUT],
            output_names=[OUTPUT],
            verbose=False,
        )
    model = onnx.load(path)
    onnx.helper.set_model_props(model, exportable.metadata)
    onnx.save(model, path)


def _load_onnx(path: Path) -> Run:
    (onnxruntime,) = _require("onnxruntime")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(image: Tensor) -> Tensor:
        (output,) = session.run(None, {INPUT: np.ascontiguousarray(image.numpy())})
        return torch.from_numpy(output)

    return run


def _write_exported(exportable: ExportableGenerator, path: Path) -> None:
    torch.export.save(_trace(exportable), path, extra_files=exportable.metadata)


def _load_exported(path: Path) -> Run:
    return torch.export.load(path).module()


def _write_torchscript(exportable: ExportableGenerator, path: Path) -> None:
    with warnings.catch_warnings(action="ignore"):  # deprecation; --check compares the sizes
        torch.jit.trace(exportable, (exportable.example(2, 0, 1),), check_trace=False).save(
            str(path), _extra_files=exportable.metadata
        )


def _load_torchscript(path: Path) -> Run:
    with warnings.catch_warnings(action="ignore"):
        return torch.jit.load(str(path))


def _metadata(exportable: ExportableGenerator) -> dict[str, str]:
    """Return what an exported file says about its origin and its samples."""
    raw = exportable.raw
    samples = str(raw.dtype).removeprefix("torch.") if raw else "uint8" if exportable.uint8 else "float32 in [-1, 1]"
    channels = {"input_nc": str(exportable.input_nc), "samples": samples}
    return {"program": format_version(program_version()), **channels}


def _require(*names: str) -> list:
    """Import optional packages. Raise UserError if one is not installed."""
    try:
        return [import_module(name) for name in names]
    except ImportError:
        raise UserError(
            "--format onnx: packages are missing. Install them with `pip install onnx onnxscript onnxruntime`."
        ) from None


# The values of --format that are programs, not weights.
EXPORTERS: dict[str, Exporter] = {
    "onnx": Exporter(".onnx", _write_onnx, _load_onnx),
    "exported": Exporter(".pt2", _write_exported, _load_exported),
    "torchscript": Exporter(".pt", _write_torchscript, _load_torchscript),
}

MODEL_CARD = "README.md"
# Options of a training that are published, besides the architecture. No other option is: it may contain a path or a name.
PUBLIC_OPTIONS = (
    *("model", "CUT_mode", "direction", "dataset_mode", "seed", "program"),
    *("preprocess", "load_size", "crop_size", "no_flip", "random_scale_max", "max_dataset_size"),
    *("value_range", "value_range_A", "value_range_B", HUB_INPUT_RANGE, HUB_OUTPUT_RANGE),
    *("batch_size", "accumulate", "n_epochs", "n_epochs_decay", "steps_per_epoch", "ema", "precision"),
    *("lr", "lr_policy", "lr_decay_iters", "beta1", "beta2", "pool_size", "init_type", "init_gain"),
    *("gan_mode", "lambda_gp", "netD", "ndf", "normD", "n_layers_D", "D_patch_size"),
    *("lambda_GAN", "lambda_NCE", "nce_idt", "nce_layers", "nce_T", "nce_includes_all_negatives_from_minibatch"),
    *("netF", "netF_nc", "num_patches", "flip_equivariance", "lambda_R1", "lambda_identity", "lambda_A", "lambda_B"),
)

TEMPLATE = """---
library_name: pytorch
pipeline_tag: image-to-image
tags: [image-to-image, unpaired, contrastive-unpaired-translation]
---
# {name}

A generator for image-to-image translation, trained with {method} ([paper](https://arxiv.org/abs/2007.15651)) on unpaired
images of two domains{data}.

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
        method=str(saved_options.get("CUT_mode") or saved_options.get("model") or "contrastive unpaired translation"),
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
