"""Export generators to other runtimes, with a check against the original."""

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from models.inference.noise import ZeroNoise
from models.inference.raw_format import TOLERANCE, RawFormat
from models.networks.base import Generator
from util.errors import UserError
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
