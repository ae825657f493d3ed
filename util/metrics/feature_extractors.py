"""Pretrained feature extractors of the distribution metrics, loaded from files.

torchvision and torch-fidelity are imported when a network needs them: this takes seconds, and few runs need them.
"""

import os
import socket
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.error import URLError

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from util.errors import UserError
from util.files import sha256
from util.images import to_rgb
from util.metrics.feature_map import LastFeatureMap
from util.runtime.weights import read_values


def clean(image: np.ndarray, side: int) -> Tensor:
    """Resize with antialiasing, as clean-fid does: PIL's bicubic filter in floating point, clipped, not rounded.

    Args:
        image: uint8 (H, W, 3).
    Returns:
        (3, side, side) float32, 0 to 255.
    """
    planes = [Image.fromarray(image[:, :, channel].astype(np.float32)) for channel in range(3)]
    resized = [np.asarray(plane.resize((side, side), Image.Resampling.BICUBIC)) for plane in planes]
    return torch.from_numpy(np.stack(resized).clip(0, 255))


def legacy(image: np.ndarray, side: int) -> Tensor:
    """Resize without antialiasing, as pytorch-fid and the published results do: bilinear between the four nearest pixels.

    Arguments and result are those of `clean`.
    """
    planes = torch.from_numpy(image.transpose(2, 0, 1).astype(np.float32))
    return F.interpolate(planes[None], size=(side, side), mode="bilinear", align_corners=False)[0]


Resize = Callable[[np.ndarray, int], Tensor]
RESIZES: dict[str, Resize] = {"clean": clean, "legacy": legacy}


DOWNLOAD_TIMEOUT = 10.0  # seconds without an answer from the server


class WeightsAbsentError(UserError):
    """Pretrained weights are not on this machine and cannot be downloaded."""


def require_file(path: Path) -> Path:
    """Return `path`. Raise WeightsAbsentError if there is no such file."""
    if not path.is_file():
        raise WeightsAbsentError(f"{path}: no such file. Give the path of the weights.")
    return path


def cached_download(url: str) -> Path:
    """Return the file of `url` in torch's cache; download it if it is missing.

    Raise WeightsAbsentError if the download fails.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if path.is_file():
        return path
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, os.fspath(path), progress=False)
    except (URLError, OSError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise WeightsAbsentError(f"{path}: missing, and the download of {url} failed ({reason}). Copy it there.") from None
    finally:
        socket.setdefaulttimeout(timeout)
    return path


def read_weights(path: Path) -> dict[str, Tensor]:
    """Load a state dict without running code from the file. Raise UserError if it contains anything else."""
    try:
        weights = read_values(path)
    except Exception:  # any type if the file is damaged; torch's messages advise running its code
        weights = None
    if not isinstance(weights, dict) or not all(isinstance(tensor, Tensor) for tensor in weights.values()):
        raise UserError(f"{path}: not a state dict, or damaged. Download the file again.")
    return weights


INCEPTION = "inception"
NATIVE_RESIZE = "its own"  # a program takes images of any size; this name is stored in JSON
CAFFE_MEAN = (104.0, 117.0, 123.0)  # blue, green, red
INCEPTION_SIDE, SQUEEZENET_SIDE = 299, 227
# Layers whose feature maps are compared by position: 17x17 positions of 768 channels, and 14x14 of 512.
INCEPTION_MAP, SQUEEZENET_MAP = "Mixed_6e", "fire9"


@dataclass(frozen=True)
class FeatureExtractor:
    """A feature network with its preprocessing.

    Attributes:
        name: stored with the results.
        weights_sha256: SHA-256 of its file.
        resize_modes: names of the supported resize modes, the preferred one first.
        network: maps (N, 3, H, W) to features (N, D).
        preprocess: maps a uint8 image (H, W, 3) and a resize mode to the network's input (3, H', W').
        device: where the network is computed.
        map_network: maps the same input to the feature map (N, C, h, w) of `map_layer`; None: it cannot be read.
        map_layer: layer before the pooling whose output is compared by position; stored with the results.
    """

    name: str
    weights_sha256: str
    resize_modes: tuple[str, ...]
    network: nn.Module
    preprocess: Callable[[np.ndarray, str], Tensor]
    device: torch.device
    map_network: nn.Module | None = None
    map_layer: str = ""

    def features(self, images: Iterable[np.ndarray], resize: str, batch_size: int = 16) -> Tensor:
        """Return the features (N, D) of uint8 images (H, W, 3) or (H, W), in float64 on the CPU.

        Raise UserError if there are none, or if the network cannot process them.
        """
        parts = list(self._compute(self.network, images, resize, batch_size))
        if not parts:
            raise UserError(f"feature network {self.name}: no image can be read. Check the files.")
        features = torch.cat(parts)
        if features.ndim != 2:
            raise UserError(
                f"feature network {self.name}: expected output (N, D), got {tuple(features.shape)}. "
                "Export it with this output."
            )
        return features

    def feature_maps(self, images: Iterable[np.ndarray], resize: str, batch_size: int = 16) -> Iterator[Tensor]:
        """Yield the feature map (C, h, w) of each image, in float64 on the CPU. Images and errors as for `features`."""
        assert self.map_network is not None
        for batch in self._compute(self.map_network, images, resize, batch_size):
            yield from batch

    def _compute(self, network: nn.Module, images: Iterable[np.ndarray], resize: str, batch_size: int) -> Iterator[Tensor]:
        """Yield the output of `network` for each batch, in float64 on the CPU."""
        inputs = (self.preprocess(to_rgb(image), resize) for image in images)
        for batch in _batches(inputs, batch_size):
            try:
                with torch.inference_mode():
                    output = network(batch.to(self.device)).double().cpu()
            except Exception as error:  # a user's program can raise anything
                if isinstance(error, UserError | torch.OutOfMemoryError):
                    raise
                reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
                raise UserError(
                    f"feature network {self.name}: cannot process these images: {reason[0]}. Use another network."
                ) from None
            yield output


class Images(Protocol):
    """Images as they are saved, uint8 (H, W, 3) or (H, W). They may be read from disk again on each iteration."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[np.ndarray]: ...


class ReferenceSet:
    """Real images of the target domain, whose features are computed once per feature extractor and resize mode."""

    def __init__(self, images: Images) -> None:
        self.images = images
        self._features: dict[tuple[FeatureExtractor, str], Tensor] = {}

    def __len__(self) -> int:
        return len(self.images)

    def features(self, extractor: FeatureExtractor, resize: str) -> Tensor:
        """Return (N, D) in float64."""
        if (extractor, resize) not in self._features:
            self._features[extractor, resize] = extractor.features(self.images, resize)
        return self._features[extractor, resize]


def load_inception(path: Path | None, device: torch.device) -> FeatureExtractor:
    """Load FID's Inception with the TensorFlow weights of 2015 that torch-fidelity and pytorch-fid distribute.

    Args:
        path: weights file; None: from torch's cache, downloaded if missing.
        device: where the network is computed.
    Raises:
        WeightsAbsentError: the file is missing, and cannot be downloaded.
        UserError: the file contains something else.
    """
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3

    path = cached_download(URL_INCEPTION_V3) if path is None else require_file(path)
    if read_weights(path).get("fc.weight", torch.empty(0)).shape != (1008, 2048):
        raise UserError(
            f"{path}: not FID's Inception, which has 1008 classes (torchvision's has 1000). "
            "Use weights-inception-2015-12-05-6726825d.pth."
        )
    try:
        extractor = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=str(path))
    except RuntimeError:
        raise UserError(f"{path}: weight names differ from torch-fidelity's. Download the file again.") from None
    layers = {name: layer for name, layer in extractor.named_children() if name != "fc"}
    trunk = nn.Sequential(*layers.values(), nn.Flatten()).eval().to(device)
    to_map = trunk[: list(layers).index(INCEPTION_MAP) + 1]

    def preprocess(image: np.ndarray, resize: str) -> Tensor:
        values = RESIZES[resize](image, INCEPTION_SIDE)
        # As clean-fid and pytorch-fid scale; they differ by half a gray level.
        return (values - 128) / 128 if resize == "clean" else values / 255 * 2 - 1

    return FeatureExtractor(INCEPTION, sha256(path), tuple(RESIZES), trunk, preprocess, device, to_map, INCEPTION_MAP)


def load_features(path: Path, device: torch.device) -> FeatureExtractor:
    """Load another feature network.

    Args:
        path: the features of SqueezeNet 1.1 as a state dict, or a TorchScript or torch.export program that maps uint8 RGB
            images (N, 3, H, W) of any size to features (N, D).
        device: where the network is computed.
    Raises:
        WeightsAbsentError: there is no such file.
        UserError: the file contains neither.
    """
    from torch.export.passes import move_to_device_pass

    contents = _archived_names(require_file(path))
    if any(name.endswith("archive_format") for name in contents):
        return _program(path, device, lambda: move_to_device_pass(torch.export.load(path), device).module())
    if any("/code/" in name for name in contents):
        return _program(path, device, lambda: torch.jit.load(path, map_location=device).eval())
    return _squeezenet(path, device)


def _squeezenet(path: Path, device: torch.device) -> FeatureExtractor:
    """Load SqueezeNet 1.1 with its authors' weights. They were trained in Caffe and expect BGR input."""
    from torchvision.models import squeezenet1_1

    features = squeezenet1_1(weights=None).features
    try:
        features.load_state_dict(read_weights(path))
    except RuntimeError:
        raise UserError(
            f"{path}: not a feature network. Use the features of SqueezeNet 1.1 (torchvision's names, without the "
            "classifier), or a TorchScript or torch.export program."
        ) from None
    network = nn.Sequential(features, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval().to(device)
    mean = torch.tensor(CAFFE_MEAN)[:, None, None]

    def preprocess(image: np.ndarray, resize: str) -> Tensor:
        return RESIZES[resize](image, SQUEEZENET_SIDE).flip(0) - mean

    modes = tuple(RESIZES)
    return FeatureExtractor("squeezenet1_1", sha256(path), modes, network, preprocess, device, network[0], SQUEEZENET_MAP)


def _program(path: Path, device: torch.device, load: Callable[[], nn.Module]) -> FeatureExtractor:
    try:
        with warnings.catch_warnings(action="ignore"):  # torch.jit.load is deprecated, but such files are still in use
            network = load()
    except Exception as error:  # a damaged or unknown archive
        raise UserError(f"{path}: cannot be loaded as a program ({str(error).splitlines()[0]}). Export it again.") from None

    def preprocess(image: np.ndarray, resize: str) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))

    to_map = LastFeatureMap.find(network)
    layer = to_map.layer if to_map else ""
    return FeatureExtractor(path.stem, sha256(path), (NATIVE_RESIZE,), network, preprocess, device, to_map, layer)


def _archived_names(path: Path) -> Sequence[str]:
    """Return the names inside the archive; none if the file is not an archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return ()


def _batches(inputs: Iterable[Tensor], size: int) -> Iterator[Tensor]:
    """Stack consecutive inputs of the same shape into batches of at most `size`."""
    batch: list[Tensor] = []
    for each in inputs:
        if batch and (len(batch) == size or each.shape != batch[0].shape):
            yield torch.stack(batch)
            batch = []
        batch.append(each)
    if batch:
        yield torch.stack(batch)
