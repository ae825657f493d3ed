"""Files of pretrained weights: where they are kept, and their hash, by which a figure says what it was taken with."""

import hashlib
import os
import socket
from pathlib import Path
from urllib.error import URLError

import torch
from torch import Tensor

from util.errors import UserError

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
