"""Weights as safetensors, a format that other programs read and that cannot hold code. The library is optional."""

from importlib import import_module
from pathlib import Path
from types import ModuleType

from torch import Tensor, nn

from util.errors import UserError
from util.files import atomic_write
from util.runtime.weights import cpu_state_dict

SAFETENSORS = ".safetensors"


def write_safetensors(network: nn.Module, path: Path) -> None:
    """Writes the network's state dict, without wrapper prefixes; the file is complete or not there."""
    state = {key: tensor.contiguous() for key, tensor in cpu_state_dict(network).items()}
    with atomic_write(path) as unfinished:
        unfinished.write_bytes(_library().save(state))


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The state dict in a file, on the CPU. Raises UserError where it is missing or damaged."""
    library = _library()
    try:
        return library.load_file(path)
    except FileNotFoundError:
        raise UserError(f"there is no {path}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from None
    except Exception as error:  # the library's own kinds of damage
        raise UserError(f"{path} is damaged ({error}); fetch it again") from None


def _library() -> ModuleType:
    try:
        return import_module("safetensors.torch")
    except ImportError:
        raise UserError("files of safetensors need one more package: pip install safetensors") from None
