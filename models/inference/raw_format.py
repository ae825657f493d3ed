"""Samples as files have them, as input and output of exported programs."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from data.value_range import ValueRange
from models.inference.checkpoint import HUB_INPUT_RANGE, HUB_OUTPUT_RANGE
from models.inference.image_io import result_dtype
from util.errors import UserError

TOLERANCE = 1e-3  # of a check, in [-1, 1]; an eighth of a gray level
RAW_DTYPES = {"uint8": torch.uint8, "uint16": torch.uint16, "float32": torch.float32}


@dataclass(frozen=True)
class RawFormat:
    """Samples as files have them: their dtype, and the ranges that map to [-1, 1]."""

    dtype: torch.dtype
    input_range: ValueRange
    output_range: ValueRange

    @classmethod
    def create(cls, name: str, input_range: ValueRange | None, output_range: ValueRange | None) -> Self:
        """Return the format of a dtype in RAW_DTYPES; None is the full range of the dtype.

        Raises:
            UserError: floating-point samples without a range, or a range outside the dtype or with too few levels in it.
        """
        full = ValueRange.of_dtype(np.dtype(name))
        ranges = input_range or full, output_range or full
        if None in ranges:
            raise UserError(f"--raw_io {name}: the range of the samples is unknown. Set --value_range=LO,HI.")
        for found in ranges:
            if full is not None and result_dtype(np.dtype(name), found, ranges[0]) != name:
                raise UserError(f"--raw_io {name}: the value range {found} does not fit this type. Use --raw_io float32.")
        return cls(RAW_DTYPES[name], *ranges)  # type: ignore[arg-type]

    def normalize(self, image: Tensor) -> Tensor:
        """Return (N, C, H, W) in [-1, 1] of samples (N, H, W, C)."""
        lo, hi = self.input_range.lo, self.input_range.hi
        return ((image.permute(0, 3, 1, 2).float() - lo) / (hi - lo) * 2 - 1).clamp(-1, 1)

    def denormalize(self, output: Tensor) -> Tensor:
        """Return samples (N, H, W, C') of (N, C', H, W) in [-1, 1]; integers are rounded."""
        lo, hi = self.output_range.lo, self.output_range.hi
        samples = (output.float().clamp(-1, 1) + 1) / 2 * (hi - lo) + lo
        if not self.dtype.is_floating_point:
            samples = samples.round().clamp(0, int(torch.iinfo(self.dtype).max))
        return samples.to(self.dtype).permute(0, 2, 3, 1)

    @property
    def tolerance(self) -> float:
        """Largest difference from the original that a check accepts, in sample values."""
        span = self.output_range.hi - self.output_range.lo
        return max(TOLERANCE / 2 * span, 0 if self.dtype.is_floating_point else 1)


def range_metadata(input_range: ValueRange | None, output_range: ValueRange | None) -> dict[str, str]:
    """Return what an exported file says about the sample values that -1 and 1 stand for."""
    texts = {HUB_INPUT_RANGE: input_range, HUB_OUTPUT_RANGE: output_range}
    return {name: "full range of uint8 or uint16" if found is None else str(found) for name, found in texts.items()}
