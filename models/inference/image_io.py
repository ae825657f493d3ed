"""Images as arrays of 8 or 16 bits with their alpha, and the tensors in [-1, 1] that networks take."""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

from data.image_io import check_bit_depth, is_16_bit, to_gray16

# ITU-R 601-2 luma, in the fixed-point form of Pillow's convert("L").
LUMA = np.array([19595, 38470, 7471])
ORIENTATION = ExifTags.Base.Orientation


@dataclass(frozen=True)
class ImageArray:
    """An image: `color` (H, W, 1 or 3) and `alpha` (H, W) or None, both uint8 or both uint16."""

    color: np.ndarray
    alpha: np.ndarray | None = None
    icc_profile: bytes | None = None  # the meaning of the colors, handed on as it is

    @property
    def white(self) -> int:
        """The largest value of a sample: 255 or 65535."""
        return int(np.iinfo(self.color.dtype).max)


def from_pil(image: Image.Image) -> ImageArray:
    """The samples of a PIL image, upright by its EXIF orientation.

    Raises:
        ImageError: they are 32-bit samples, whose white is not defined.
    """
    profile = image.info.get("icc_profile") if image.mode in ("RGB", "RGBA", "L", "LA") else None
    if is_16_bit(image):
        # Turned afterwards: a turned copy has lost what the file says of its samples.
        gray = Image.fromarray(to_gray16(image).astype(np.uint16))
        gray.getexif()[ORIENTATION] = image.getexif().get(ORIENTATION, 1)
        return ImageArray(np.asarray(ImageOps.exif_transpose(gray))[:, :, None])
    check_bit_depth(image)
    image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        pixels = np.asarray(image.convert("RGBA"))
        return ImageArray(pixels[:, :, :3], pixels[:, :, 3], profile)
    pixels = np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB"))
    return ImageArray(pixels.reshape(*pixels.shape[:2], -1), None, profile)


def to_pil(samples: ImageArray) -> Image.Image:
    """A PIL image: RGB, RGBA, L, LA, or I;16 for 16-bit gray. 16-bit color, which Pillow does not have, becomes 8-bit."""
    color, alpha = samples.color, samples.alpha
    if color.dtype == np.uint16 and (color.shape[2] == 3 or alpha is not None):
        color, alpha = _to_8_bit(color), None if alpha is None else _to_8_bit(alpha)
    image = Image.fromarray(np.ascontiguousarray(color[:, :, 0] if color.shape[2] == 1 else color))
    if alpha is not None:
        image.putalpha(Image.fromarray(np.ascontiguousarray(alpha)))
    if samples.icc_profile is not None:
        image.info["icc_profile"] = samples.icc_profile
    return image


def to_tensor_from_array(samples: ImageArray, channels: int) -> Tensor:
    """The (channels, H, W) float32 tensor in [-1, 1] that a network with as many input channels takes.

    What alpha hides altogether is white, as in the images that networks are trained on; what shows through keeps its
    color, since the translation gets the same alpha.
    """
    color = samples.color
    if samples.alpha is not None:
        color = np.where(samples.alpha[:, :, None] == 0, color.dtype.type(samples.white), color)
    if channels == 1 and color.shape[2] == 3:
        luma = (color.astype(np.int64) @ LUMA + 2**15) >> 16
        color = luma.astype(color.dtype)[:, :, None]
    values = np.ascontiguousarray(color.transpose(2, 0, 1)).astype(np.float32)
    values /= samples.white
    values -= 0.5
    values /= 0.5
    tensor = torch.from_numpy(values)
    return tensor.expand(channels, -1, -1) if tensor.shape[0] == 1 else tensor


def from_output(translation: Tensor, source: ImageArray) -> ImageArray:
    """The translation (C, H, W) in [-1, 1] as samples of the source's depth, with its alpha and its color profile.

    Values are truncated, not rounded, as test.py and the published code do. Alpha is resized where the translation has
    another size than the source.
    """
    scaled = ((translation.float() + 1) / 2 * source.white).clamp(0, source.white)
    color = scaled.permute(1, 2, 0).cpu().numpy().astype(source.color.dtype)
    alpha = source.alpha
    if alpha is not None and alpha.shape != color.shape[:2]:
        plane = torch.from_numpy(alpha.astype(np.float32))[None, None]
        resized = resize(plane, *color.shape[:2]).clamp(0, source.white).round()
        alpha = resized[0, 0].numpy().astype(alpha.dtype)
    profile = source.icc_profile if color.shape[2] == source.color.shape[2] else None
    return ImageArray(color, alpha, profile)


def resize(batch: Tensor, height: int, width: int) -> Tensor:
    """(N, C, H, W) at another size, bicubic, antialiased where it shrinks."""
    return torch.nn.functional.interpolate(batch, (height, width), mode="bicubic", antialias=True)


def _to_8_bit(samples: np.ndarray) -> np.ndarray:
    return ((samples.astype(np.uint32) + 128) // 257).astype(np.uint8)
