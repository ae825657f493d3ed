"""Trained generators for other runtimes, each compared with the original before it is called done."""

import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from models.inference.checkpoint import HUB_OPTIONS, HUB_WEIGHTS, LoadedGenerator
from models.inference.noise import ZeroNoise
from models.networks.base import Generator
from util.errors import UserError
from util.runtime.weights import write_safetensors

INPUT, OUTPUT = "image", "translation"
TOLERANCE = 1e-3  # in [-1, 1]; an eighth of a level of 0…255
TOLERANCE_8_BIT = 1  # level: truncation turns the smallest difference into one
#: Batch, and sides in multiples of what the generator takes, that an export is compared at.
CHECKED_SHAPES = ((1, 2, 2), (3, 2, 5), (1, 7, 4))

Run = Callable[[Tensor], Tensor]


class ExportableGenerator(nn.Module):
    """A generator as a function of images alone: without noise, and for `uint8` with everything around it inside.

    float: (N, C, H, W) in [-1, 1] -> (N, C', H, W) in [-1, 1]. uint8: (N, H, W, C) -> (N, H, W, C'), as image libraries
    have them. Sides are multiples of what the generator takes.
    """

    def __init__(self, generator: Generator, uint8: bool) -> None:
        super().__init__()
        generator.set_noise_source(ZeroNoise())
        self.generator = generator.eval()
        self.uint8 = uint8

    def forward(self, image: Tensor) -> Tensor:
        if not self.uint8:
            return self.generator(image)
        translation = self.generator((image.permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5)
        return ((translation + 1) / 2 * 255).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


@dataclass(frozen=True)
class Exporter:
    """How a format is written, and how its file is run."""

    suffix: str
    write: Callable[[nn.Module, Tensor, int, Path], None]  # what, example, multiple of the sides, where to
    load: Callable[[Path], Run]


def export_generator(
    generator: Generator, input_nc: int, multiple: int, path: Path, kind: str, uint8: bool = False, check: bool = True
) -> float:
    """Writes the generator to `path`, for any batch and any sides that are multiples of `multiple`.

    Args:
        kind: a key of `EXPORTERS`.
        uint8: images (N, H, W, C) of bytes in and out, instead of (N, C, H, W) in [-1, 1].
        check: run the file at several sizes, and compare.
    Returns:
        The largest difference from the original, in [-1, 1] or in levels; not a number without `check`. The file is at
        its place only if it is below the tolerance.
    Raises:
        UserError: a package is missing.
        ExportMismatchError: the file computes something else.
    """
    exporter = EXPORTERS[kind]
    exportable = ExportableGenerator(generator, uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=path.parent, prefix=".export-") as folder, torch.no_grad():
        partial = Path(folder, path.name)
        exporter.write(exportable, example(2, 2 * multiple, 3 * multiple, input_nc, uint8), multiple, partial)
        difference = largest_difference(exporter.load(partial), exportable, input_nc, multiple) if check else torch.nan
        tolerance = TOLERANCE_8_BIT if uint8 else TOLERANCE
        if difference > tolerance:
            raise ExportMismatchError(
                f"the {kind} file differs from the original by {difference:.3g}, more than {tolerance}"
            )
        partial.replace(path)
    return difference


class ExportMismatchError(Exception):
    """An exported network computes something else than the original."""


def largest_difference(run: Run, exportable: ExportableGenerator, input_nc: int, multiple: int) -> float:
    """Between `run` and the original, over several sizes and batches."""
    difference = 0.0
    for batch, rows, columns in CHECKED_SHAPES:
        image = example(batch, rows * multiple, columns * multiple, input_nc, exportable.uint8)
        expected = exportable(image)
        found = run(image)
        if found.shape != expected.shape or found.dtype != expected.dtype:
            return float("inf")
        difference = max(difference, float((found.double() - expected.double()).abs().max()))
    return difference


def example(batch: int, height: int, width: int, channels: int, uint8: bool) -> Tensor:
    """An image of noise, the same each time."""
    noise = torch.rand(batch, channels, height, width, generator=torch.Generator().manual_seed(height * width))
    return (noise * 255).to(torch.uint8).permute(0, 2, 3, 1) if uint8 else noise * 2 - 1


def _traced(exportable: nn.Module, image: Tensor, multiple: int) -> ExportedProgram:
    """The program with sides and batch left open."""
    height, width = multiple * Dim("rows", min=2), multiple * Dim("columns", min=2)
    first = 1 if image.dtype == torch.uint8 else 2
    shapes = {0: Dim("batch", min=1), first: height, first + 1: width}
    return torch.export.export(exportable, (image,), dynamic_shapes=(shapes,))


def _write_onnx(exportable: nn.Module, image: Tensor, multiple: int, path: Path) -> None:
    _needed("onnx", "onnxscript")
    with warnings.catch_warnings(action="ignore"):
        torch.onnx.export(
            _traced(exportable, image, multiple),
            f=str(path),
            dynamo=True,
            external_data=False,
            input_names=[INPUT],
            output_names=[OUTPUT],
            verbose=False,
        )


def _load_onnx(path: Path) -> Run:
    (onnxruntime,) = _needed("onnxruntime")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(image: Tensor) -> Tensor:
        (translation,) = session.run(None, {INPUT: np.ascontiguousarray(image.numpy())})
        return torch.from_numpy(translation)

    return run


def _write_exported(exportable: nn.Module, image: Tensor, multiple: int, path: Path) -> None:
    torch.export.save(_traced(exportable, image, multiple), path)


def _load_exported(path: Path) -> Run:
    return torch.export.load(path).module()


def _write_torchscript(exportable: nn.Module, image: Tensor, multiple: int, path: Path) -> None:
    with warnings.catch_warnings(action="ignore"):  # tracing calls itself deprecated; sizes are checked below
        torch.jit.trace(exportable, (image,), check_trace=False).save(str(path))


def _load_torchscript(path: Path) -> Run:
    with warnings.catch_warnings(action="ignore"):
        return torch.jit.load(str(path))


def _needed(*names: str) -> list:
    try:
        return [import_module(name) for name in names]
    except ImportError:
        raise UserError("ONNX needs more packages: pip install onnx onnxscript onnxruntime") from None


# The choices of --format that are programs.
EXPORTERS: dict[str, Exporter] = {
    "onnx": Exporter(".onnx", _write_onnx, _load_onnx),
    "exported": Exporter(".pt2", _write_exported, _load_exported),
    "torchscript": Exporter(".pt", _write_torchscript, _load_torchscript),
}


CARD = "README.md"
# Paths of a machine are nobody else's business.
NOT_PUBLISHED = ("checkpoints_dir", "dataroot", "display_server", "display_env", "gpu_ids", "results_dir")

TEMPLATE = """---
library_name: pytorch
pipeline_tag: image-to-image
tags: [image-to-image, unpaired, contrastive-unpaired-translation]
---
# {name}

A generator that translates images, trained with {method} ([paper](https://arxiv.org/abs/2007.15651)) on unpaired images
of two domains{data}.

```python
from models import Translator
translator = Translator.from_checkpoint("path/to/this/folder")
translation = translator(image)  # a PIL image, an array or a tensor
```

It takes {input_nc} channels, gives {output_nc}, and takes images of any size. Its values are images in [-1, 1].

## Figures

{figures}

## What it was built and trained with

{options}
"""


def write_hub_folder(loaded: LoadedGenerator, folder: Path, name: str, figures: Mapping[str, float]) -> None:
    """Writes model.safetensors, config.json and the card README.md into `folder`.

    `figures` are the last scores and losses of the training, by name; there need not be any.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_safetensors(loaded.network, folder / HUB_WEIGHTS)
    options = {**_published(loaded.record), **vars(loaded.options)}
    (folder / HUB_OPTIONS).write_text(json.dumps(options, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    (folder / CARD).write_text(model_card(loaded, name, figures), encoding="utf-8")


def model_card(loaded: LoadedGenerator, name: str, figures: Mapping[str, float]) -> str:
    """What was trained, on what, with which options, and the last figures; in the hub's Markdown."""
    record = loaded.record
    options = {**_published(record), **vars(loaded.options)}
    data = Path(str(record["dataroot"])).name if "dataroot" in record else ""
    return TEMPLATE.format(
        name=name,
        method=str(record.get("CUT_mode") or record.get("model") or "contrastive unpaired translation"),
        data=f" ({data}, {record.get('direction', 'AtoB')})" if data else "",
        input_nc=loaded.options.input_nc,
        output_nc=loaded.options.output_nc,
        figures=_table("figure", {key: f"{value:.4g}" for key, value in figures.items()}) or "None were recorded.",
        options=_table("option", options),
    )


def latest_metrics(reports: list[dict[str, Any]]) -> dict[str, float]:
    """The latest value of each number in the groups of a training's reports, as "losses G_GAN"."""
    figures: dict[str, float] = {}
    for report in reports:
        for group, values in report.items():
            if isinstance(values, dict):
                numbers = {key: value for key, value in values.items() if isinstance(value, int | float)}
                figures |= {f"{group} {key}": float(value) for key, value in numbers.items()}
    return figures


def _published(record: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in NOT_PUBLISHED}


def _table(heading: str, rows: Mapping[str, Any]) -> str:
    if not rows:
        return ""
    lines = [f"| {heading} | value |", "|---|---|", *(f"| {key} | {rows[key]} |" for key in sorted(rows))]
    return "\n".join(lines)
