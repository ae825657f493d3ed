"""Weights on disk: plain state dicts, written atomically, that load on any device and never run code."""

import errno
import os
import re
import warnings
import zipfile
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from util.errors import UserError
from util.files import atomic_write, remove_stale_temp_files, replace, temp_path, temp_paths_of

NO_SYNC = (errno.EINVAL, errno.ENOTSUP)
NUMBERED = re.compile(r"\d+|iter_\d+")
# What DataParallel, DDP and torch.compile put in front of every key.
WRAPPER_PREFIXES = ("module.", "_orig_mod.")
# What instance norms without parameters left in the checkpoints of old PyTorch releases.
NORM_LEFTOVERS = ("running_mean", "running_var", "num_batches_tracked")


def cpu_state_dict(network: nn.Module) -> dict[str, Tensor]:
    """The network's state dict, on the CPU and without wrapper prefixes."""
    return {_without_prefixes(key): tensor.detach().cpu() for key, tensor in network.state_dict().items()}


def save_weights(network: nn.Module, path: Path) -> None:
    """Writes the network's state dict; the file is complete or as it was before."""
    write_files({path: cpu_state_dict(network)})


def write_files(contents: Mapping[Path, Any]) -> None:
    """Writes what torch.load shall read from each path.

    All are written beside their places and brought to the disk before the first is renamed to its place, the last of them
    first: a file is complete or as it was, and where one cannot be written all are as they were. Raises OSError.
    """
    partials = {path: temp_path(path) for path in contents}
    renaming = False
    try:
        for path, content in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(content, partials[path])
        for path, partial in reversed(partials.items()):
            replace(partial, path)
            renaming = True
    finally:
        if not renaming:  # else those that are left tell `has_partial_file` that the files do not belong together
            for partial in partials.values():
                partial.unlink(missing_ok=True)
    for folder in {path.parent for path in contents}:
        _sync_folder(folder)
    remove_stale_temp_files((part for path in contents for part in temp_paths_of(path)), alone=False)


def _write(content: Any, path: Path) -> None:
    """Brings a file for torch.load to the disk. Raises OSError, with the path, where it does not get there."""
    try:
        with path.open("wb") as file:
            torch.save(content, file)
            file.flush()
            _sync(file.fileno())
    except RuntimeError as error:  # torch's writer trips over what it finds unwritten, after the disk has refused it
        refused = error.__context__
        if not isinstance(refused, OSError):
            raise
        raise OSError(refused.errno, refused.strerror, str(path)) from None
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def _sync(descriptor: int) -> None:
    """Bring a file to the disk. Raise OSError, but not if the file system does not offer this at all."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NO_SYNC:
            raise


def _sync_folder(folder: Path) -> None:
    """Bring the names of a folder's files to the disk, so that a renaming outlasts a loss of power.

    The files themselves are on the disk already. Network shares refuse to sync a folder in many ways, and Windows does not
    open one, so an error is passed over, as databases do.
    """
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def has_partial_file(path: Path) -> bool:
    """Whether a save was broken off before the file that it had written took its place."""
    return bool(temp_paths_of(path))


def holds(path: Path, state: Mapping[str, Tensor]) -> bool:
    """Whether a file holds this state dict without prefixes, bit for bit. Raises UserError as `load_weights`."""
    found = read_state(path)
    return found.keys() == state.keys() and all(torch.equal(found[key], tensor) for key, tensor in state.items())


def prunable_checkpoints(run_dir: Path, kept: int) -> list[Path]:
    """The files of all numbered checkpoints, <epoch>_net_*.pth and iter_<images>_net_*.pth, but the `kept` newest."""
    files: dict[str, list[Path]] = defaultdict(list)
    for path in run_dir.glob("*_net_*.pth"):
        label, _, _ = path.name.partition("_net_")
        if NUMBERED.fullmatch(label):
            files[label].append(path)
    by_age = sorted(files.values(), key=lambda paths: max(path.stat().st_mtime_ns for path in paths))
    return [path for paths in by_age[: max(0, len(by_age) - kept)] for path in paths]


def load_weights(network: nn.Module, path: Path) -> None:
    """Loads a state dict that `save_weights` or the published code wrote, strictly.

    Raises UserError where the file is missing, is no state dict, or belongs to a network of another shape.
    """
    load_state(network, read_state(path), path)


def load_state(network: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Loads a state dict without prefixes, strictly. Raises UserError, with its `path`, where it does not fit."""
    expected = {_without_prefixes(key): tensor for key, tensor in network.state_dict().items()}
    state = _without_leftovers(state, expected)
    difference = _difference(expected, state)
    if difference:
        raise UserError(
            f"{path} holds the weights of another network: {difference}. Give the architecture options that it was "
            "trained with (--netG, --ngf, --input_nc, --no_antialias ...; train_opt.txt beside it lists them)"
        )
    unfit = [key for key, tensor in expected.items() if not torch.isfinite(state[key].to(tensor.dtype)).all()]
    if unfit:
        raise UserError(
            f"{path} holds numbers that are not finite, in {unfit[0]}: the run that wrote it had diverged; choose an "
            "earlier one with --epoch"
        )
    network.load_state_dict({key: state[_without_prefixes(key)] for key in network.state_dict()})


def read_values(path: Path) -> Any:
    """What torch.save wrote: tensors, on the CPU, and plain values; code is never run.

    Raises OSError where there is no file to be read, and exceptions of all kinds where it is damaged or holds code.
    """
    _check_intact(path)
    with warnings.catch_warnings(action="ignore"):  # whatever torch has to say of a damaged file, it is refused
        return torch.load(path, map_location="cpu", weights_only=True)


def _check_intact(path: Path) -> None:
    """Raises OSError where the file is none that can be read to an end, and ValueError where one in torch's format has
    changed since it was written: torch itself reads over changed numbers."""
    size, mode = path.stat().st_size, path.stat().st_mode
    if not (S_ISREG(mode) or S_ISDIR(mode)):  # opening a pipe would wait for ever
        raise OSError(errno.EINVAL, "not a regular file")
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > size:
            raise ValueError("more is announced than there is")
        if changed := archive.testzip():
            raise ValueError(f"{changed} has changed")


def read_state(path: Path) -> dict[str, Tensor]:
    """The state dict in a file, on the CPU, without wrapper prefixes. Raises UserError where there is none."""
    try:
        state = read_values(path)
    except FileNotFoundError:
        raise UserError(f"there is no {path}; {_what_is_there(path)}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from None
    except Exception:  # torch's reader trips over damage in every way, and its messages advise to run what it refused
        raise UserError(
            f"{path} is not a checkpoint of plain weights: it is cut short, damaged, or holds code, which is never run; "
            "fetch it again"
        ) from None
    if not isinstance(state, Mapping) or not all(isinstance(k, str) and _is_plain(v) for k, v in state.items()):
        raise UserError(f"{path} is not a state dict: expected names of weights with a tensor each")
    return {_without_prefixes(key): value for key, value in state.items()}


def _is_plain(value: Any) -> bool:
    """Whether it is a tensor of real numbers that lies in memory in the usual way."""
    return (
        isinstance(value, Tensor)
        and value.device.type == "cpu"
        and value.layout is torch.strided
        and not (value.is_quantized or value.is_complex())
    )


def _what_is_there(path: Path) -> str:
    names = sorted(file.name for file in path.parent.glob("*.pth")) if path.parent.is_dir() else []
    if names:
        return f"{path.parent} holds {', '.join(names)}; --epoch picks one"
    return "check --name and --checkpoints_dir, or train first"


def _without_prefixes(key: str) -> str:
    while key.startswith(WRAPPER_PREFIXES):
        key = key.partition(".")[2]
    return key


def _without_leftovers(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if key in expected or key.rpartition(".")[2] not in NORM_LEFTOVERS}


def _difference(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """The first thing that keeps `found` from loading, in words; empty where it fits."""
    for key, tensor in expected.items():
        if key not in found:
            return f"{key} is missing"
        if found[key].shape != tensor.shape:
            return f"{key} is {_by(found[key])}, expected {_by(tensor)}"
    surplus = [key for key in found if key not in expected]
    return f"{surplus[0]} has no place in it" if surplus else ""


def _by(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a single number"


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
