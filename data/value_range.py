"""Mapping between the sample values of image files and [-1, 1]."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

# Number of values, over all images, that a percentile is computed from.
PERCENTILE_SAMPLES = 1 << 22


@dataclass(frozen=True)
class ValueRange:
    """`lo` maps to -1 and `hi` to 1; values outside are clipped.

    Raises:
        ValueError: not two finite numbers with lo < hi.
    """

    lo: float
    hi: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.lo) and math.isfinite(self.hi) and math.isfinite(self.hi - self.lo)):
            raise ValueError(f"{self}: must be two finite numbers")
        if not self.lo < self.hi:
            raise ValueError(f"{self}: the first number must be smaller than the second")

    def __str__(self) -> str:
        return f"{_shortest(self.lo)},{_shortest(self.hi)}"

    @classmethod
    def parse(cls, text: str) -> "ValueRange":
        """Return the range of `"LO,HI"`. Raises ValueError."""
        return cls(*_two_numbers(text, "LO,HI"))

    @classmethod
    def of_dtype(cls, dtype: np.dtype) -> "ValueRange | None":
        """Return the full range of uint8 or uint16; None for other types, which have no defined white."""
        return cls(0, float(np.iinfo(dtype).max)) if np.dtype(dtype) in (np.uint8, np.uint16) else None

    def normalize(self, pixels: np.ndarray) -> np.ndarray:
        """Return float32 values in [-1, 1], in C order.

        The full range of uint8 and uint16 takes the published order of operations in float32, which settles the last
        bit. Other ranges are computed in float64 and rounded once.
        """
        if self == ValueRange.of_dtype(pixels.dtype):
            values = np.ascontiguousarray(pixels).astype(np.float32)
            values /= np.float32(self.hi)
            values -= np.float32(0.5)
            values *= np.float32(2)
            return values
        scaled = np.ascontiguousarray(pixels).astype(np.float64)
        np.clip(scaled, self.lo, self.hi, out=scaled)
        scaled -= self.lo
        scaled /= self.hi - self.lo
        scaled *= 2
        scaled -= 1
        return scaled.astype(np.float32)

    def denormalize(self, values: np.ndarray, dtype: np.dtype | type) -> np.ndarray:
        """Return samples of `dtype` from float32 `values` in [-1, 1]; values outside are clipped.

        With `normalize` before it, this is exact for integers of up to 16 bits. For floats the error is at most one
        float32 ulp of hi - lo.
        """
        dtype = np.dtype(dtype)
        # Both ends exact: lo + (hi - lo) need not be hi.
        share = (np.clip(values.astype(np.float64), -1, 1) + 1) / 2
        result = self.lo * (1 - share) + self.hi * share
        if dtype.kind == "f":
            return result.astype(dtype)
        limits = np.iinfo(dtype)
        # The largest 64-bit integers are no float64: clip below them.
        highest = np.nextafter(np.float64(limits.max), 0) if dtype.itemsize == 8 else limits.max
        return np.clip(np.rint(result), max(limits.min, math.ceil(self.lo)), min(highest, self.hi)).astype(dtype)

    def clipped_share(self, pixels: np.ndarray) -> float:
        """Return the share of values outside the range, 0 to 1."""
        return np.count_nonzero((pixels < self.lo) | (pixels > self.hi)) / max(1, pixels.size)


@dataclass(frozen=True)
class Percentiles:
    """A range to be computed from the training data: `low` and `high` are percentiles, 0 to 100.

    Raises:
        ValueError: not 0 <= low < high <= 100.
    """

    low: float
    high: float

    PREFIX = "percentile:"

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high <= 100:
            raise ValueError(f"{self}: must be two percentiles from 0 to 100, the smaller one first")

    def __str__(self) -> str:
        return f"{self.PREFIX}{_shortest(self.low)},{_shortest(self.high)}"

    def compute(self, images: Iterable[np.ndarray], count: int) -> ValueRange:
        """Return the range between the percentiles of all samples of `images`.

        Up to PERCENTILE_SAMPLES values are used, as many of each image, chosen at random with a fixed seed. Memory does
        not grow with the dataset.

        Args:
            count: number of images, or an upper bound.

        Raises:
            ValueError: no images, or the percentiles are equal.
        """
        per_image, rng = max(1, PERCENTILE_SAMPLES // max(1, count)), np.random.default_rng(0)
        chosen = []
        for pixels in images:
            values = pixels.reshape(-1)
            if values.size > per_image:
                values = values[rng.integers(values.size, size=per_image)]
            chosen.append(values.astype(np.float64))
        if not chosen:
            raise ValueError(f"{self}: there are no images to compute it from")
        lo, hi = (float(value) for value in np.percentile(np.concatenate(chosen), (self.low, self.high)))
        if lo == hi:
            raise ValueError(f"{self}: both are {_shortest(lo)}. Use LO,HI")
        return ValueRange(lo, hi)


def parse_value_range(text: str) -> ValueRange | Percentiles:
    """Return what `--value_range` says: `"LO,HI"` or `"percentile:LOW,HIGH"`. Raises ValueError."""
    if text.startswith(Percentiles.PREFIX):
        return Percentiles(*_two_numbers(text.removeprefix(Percentiles.PREFIX), "percentile:LOW,HIGH"))
    return ValueRange.parse(text)


def is_percentile(text: str | None) -> bool:
    """Return True if a value of `--value_range` is still to be computed."""
    return text is not None and text.startswith(Percentiles.PREFIX)


def found_range(images: Iterable[np.ndarray]) -> ValueRange:
    """Return the range from the smallest to the largest sample of `images`, to propose it; one wide if they are equal.

    Raises:
        ValueError: no images.
    """
    extremes = [(float(pixels.min()), float(pixels.max())) for pixels in images]
    if not extremes:
        raise ValueError("there are no images to find a range in")
    lo, hi = min(low for low, _ in extremes), max(high for _, high in extremes)
    return ValueRange(lo, hi if hi > lo else lo + max(1.0, abs(lo)))


def _two_numbers(text: str, form: str) -> tuple[float, float]:
    parts = text.split(",")
    try:
        first, second = (float(part) for part in parts)
    except ValueError:
        raise ValueError(f"{text!r}: must be {form}") from None
    return first, second


def _shortest(value: float) -> str:
    """Return the shortest text that parses to `value`, without `.0`."""
    return repr(float(value)).removesuffix(".0")
