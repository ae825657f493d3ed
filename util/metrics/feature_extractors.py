"""Networks that turn images into the features whose distributions are compared, each read from a file.

torchvision and torch-fidelity are imported where they are needed: they take seconds, and few runs need them.
"""

import hashlib
import os
import socket
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from util.errors import UserError
from util.images import to_rgb


def clean(image: np.ndarray, side: int) -> Tensor:
    """Antialiased: PIL's bicubic on every channel, in floating point, clipped but not rounded, as in clean-fid.

    Args:
        image: uint8 (H, W, 3).
    Returns:
        (3, side, side) float32, 0 to 255.
    """
    planes = [Image.fromarray(image[:, :, channel].astype(np.float32)) for channel in range(3)]
    resized = [np.asarray(plane.resize((side, side), Image.Resampling.BICUBIC)) for plane in planes]
    return torch.from_numpy(np.stack(resized).clip(0, 255))


def legacy(image: np.ndarray, side: int) -> Tensor:
    """Aliased: bilinear between the four nearest pixels, as in pytorch-fid, which the published figures were taken with.

    Takes and gives the same as `clean`.
    """
    planes = torch.from_numpy(image.transpose(2, 0, 1).astype(np.float32))
    return F.interpolate(planes[None], size=(side, side), mode="bilinear", align_corners=False)[0]


Resize = Callable[[np.ndarray, int], Tensor]
RESIZES: dict[str, Resize] = {"clean": clean, "legacy": legacy}


DOWNLOAD_TIMEOUT = 10.0  # a server that says nothing for so long counts as absent


class WeightsAbsentError(UserError):
    """Pretrained weights that are neither on this machine nor to be had from the network."""


def require_file(path: Path) -> Path:
    """`path`, where there is such a file. Raises WeightsAbsentError where there is none."""
    if not path.is_file():
        raise WeightsAbsentError(f"there is no file {path}")
    return path


def cached_download(url: str) -> Path:
    """The file of `url` in torch's own cache, fetched into it where it is not there yet.

    Raises WeightsAbsentError where it is not there and cannot be fetched.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if path.is_file():
        return path
    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, os.fspath(path), progress=False)
    except (URLError, OSError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise WeightsAbsentError(f"{path} is not there, and {url} cannot be fetched ({reason})") from None
    finally:
        socket.setdefaulttimeout(patience)
    return path


def read_weights(path: Path) -> dict[str, Tensor]:
    """The state dict in the file. Raises UserError where it holds anything else; code in it is never run."""
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # torch's reader trips over damage in every way, and its messages advise to run what it refused
        weights = None
    if not isinstance(weights, dict) or not all(isinstance(tensor, Tensor) for tensor in weights.values()):
        raise UserError(f"{path} holds no plain weights: it is something else, cut short, or damaged")
    return weights


def sha256(path: Path) -> str:
    """The file's SHA-256, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


INCEPTION = "inception"
NATIVE_RESIZE = "its own"  # of a program, which takes images of any size
CAFFE_MEAN = (104.0, 117.0, 123.0)  # blue, green, red
INCEPTION_SIDE, SQUEEZENET_SIDE = 299, 227


@dataclass(frozen=True)
class FeatureExtractor:
    """A network (N, 3, H, W) -> (N, D) features, what it is called, and what it is fed.

    `resizes` are the ways in which images may come to its size, the preferred one first. `fed` makes an image, uint8
    (H, W, 3), what the network takes, (3, H', W'). The network computes on `device`.
    """

    name: str
    weights_sha256: str
    resizes: tuple[str, ...]
    network: nn.Module
    fed: Callable[[np.ndarray, str], Tensor]
    device: torch.device

    def features(self, images: Iterable[np.ndarray], resize: str, batch_size: int = 16) -> Tensor:
        """The features of uint8 images (H, W, 3) or (H, W), (N, D) in float64 on the CPU. Raises UserError where the
        network cannot take them."""
        inputs = (self.fed(to_rgb(image), resize) for image in images)
        try:
            with torch.inference_mode():
                parts = [self.network(batch.to(self.device)).double().cpu() for batch in _batches(inputs, batch_size)]
        except Exception as error:  # a program from outside fails in any way
            if isinstance(error, UserError | torch.OutOfMemoryError):
                raise
            reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
            raise UserError(f"the feature network {self.name} cannot take these images: {reason[0]}") from None
        features = torch.cat(parts)
        if features.ndim != 2:
            raise UserError(f"the feature network {self.name} gives {tuple(features.shape)}, not a row for every image")
        return features


def load_inception(path: Path | None, device: torch.device) -> FeatureExtractor:
    """FID's Inception, with the weights of TensorFlow's 2015 release that torch-fidelity and pytorch-fid distribute.

    Args:
        path: their file; None takes them from torch's cache, or fetches them into it.
        device: where it shall compute.
    Raises:
        WeightsAbsentError: the file is not there, and cannot be fetched.
        UserError: it holds something else.
    """
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3

    path = cached_download(URL_INCEPTION_V3) if path is None else require_file(path)
    if read_weights(path).get("fc.weight", torch.empty(0)).shape != (1008, 2048):
        raise UserError(
            f"{path} does not hold FID's Inception, which tells 1008 classes apart; torchvision's, for 1000, is another"
        )
    try:
        extractor = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=str(path))
    except RuntimeError:
        raise UserError(f"{path} does not hold FID's Inception under the names that torch-fidelity gives") from None
    trunk = nn.Sequential(*(layer for name, layer in extractor.named_children() if name != "fc"), nn.Flatten())

    def fed(image: np.ndarray, resize: str) -> Tensor:
        values = RESIZES[resize](image, INCEPTION_SIDE)
        # As in the programs that the two ways come from; they differ by half a gray level.
        return (values - 128) / 128 if resize == "clean" else values / 255 * 2 - 1

    return FeatureExtractor(INCEPTION, sha256(path), tuple(RESIZES), trunk.eval().to(device), fed, device)


def load_features(path: Path, device: torch.device) -> FeatureExtractor:
    """Another feature network: SqueezeNet 1.1's features as a state dict, or a program of torch.jit or torch.export that
    takes uint8 images (N, 3, H, W), red first, of any size, and gives a row of features for each.

    Raises:
        WeightsAbsentError: there is no such file.
        UserError: it is none of these.
    """
    from torch.export.passes import move_to_device_pass

    contents = _archived_names(require_file(path))
    if any(name.endswith("archive_format") for name in contents):
        return _program(path, device, lambda: move_to_device_pass(torch.export.load(path), device).module())
    if any("/code/" in name for name in contents):
        return _program(path, device, lambda: torch.jit.load(path, map_location=device).eval())
    return _squeezenet(path, device)


def _squeezenet(path: Path, device: torch.device) -> FeatureExtractor:
    """SqueezeNet 1.1 with the weights of its authors, which were trained in Caffe: it sees blue, green, red."""
    from torchvision.models import squeezenet1_1

    features = squeezenet1_1(weights=None).features
    try:
        features.load_state_dict(read_weights(path))
    except RuntimeError:
        raise UserError(
            f"{path} holds neither the features of SqueezeNet 1.1 (torchvision's names, without the classifier) nor a "
            "program of torch.jit or torch.export"
        ) from None
    network = nn.Sequential(features, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval().to(device)
    mean = torch.tensor(CAFFE_MEAN)[:, None, None]

    def fed(image: np.ndarray, resize: str) -> Tensor:
        return RESIZES[resize](image, SQUEEZENET_SIDE).flip(0) - mean

    return FeatureExtractor("squeezenet1_1", sha256(path), tuple(RESIZES), network, fed, device)


def _program(path: Path, device: torch.device, load: Callable[[], nn.Module]) -> FeatureExtractor:
    try:
        with warnings.catch_warnings(action="ignore"):  # torch.jit.load is deprecated, but its files are about
            network = load()
    except Exception as error:  # of a damaged or foreign archive
        raise UserError(f"{path} cannot be loaded as a program ({str(error).splitlines()[0]})") from None

    def fed(image: np.ndarray, resize: str) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))

    return FeatureExtractor(path.stem, sha256(path), (NATIVE_RESIZE,), network, fed, device)


def _archived_names(path: Path) -> Sequence[str]:
    """What torch put into the file; nothing where it is no archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return ()


def _batches(inputs: Iterable[Tensor], size: int) -> Iterator[Tensor]:
    """Stacks neighbors of one shape, at most `size` of them."""
    waiting: list[Tensor] = []
    for each in inputs:
        if waiting and (len(waiting) == size or each.shape != waiting[0].shape):
            yield torch.stack(waiting)
            waiting = []
        waiting.append(each)
    if waiting:
        yield torch.stack(waiting)
