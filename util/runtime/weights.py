"""Weights on disk: plain state dicts, written atomically, readable on any device, without executable code."""

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
from util.runtime.missing_weights import suggest_weights
from util.version import format_version, program_version

NO_SYNC = (errno.EINVAL, errno.ENOTSUP)
NUMBERED = re.compile(r"\d+|iter_\d+")
# Prefixes that DataParallel, DDP and torch.compile add to every key.
WRAPPER_PREFIXES = ("module.", "_orig_mod.")
# Keys of instance norms without parameters, in checkpoints of old PyTorch releases.
NORM_LEFTOVERS = ("running_mean", "running_var", "num_batches_tracked")
# First keys of the networks beside the generators.
OTHER_NETWORKS = {"model.0.": "a discriminator", "net.0.": "a discriminator", "convs.0.": "a discriminator", "mlp_0.": "F"}


def cpu_state_dict(network: nn.Module) -> dict[str, Tensor]:
    """Return the network's state dict, on the CPU and without wrapper prefixes."""
    return {_without_prefixes(key): tensor.detach().cpu() for key, tensor in network.state_dict().items()}


def save_weights(network: nn.Module, path: Path) -> None:
    """Write the network's state dict atomically."""
    write_files({path: cpu_state_dict(network)})


def write_files(contents: Mapping[Path, Any]) -> None:
    """Write one file for torch.load per path.

    All are written to temporary files and synced to the disk. Then they are renamed, the last one first. Each file is
    complete or unchanged, and if one cannot be written, all are unchanged. Raises OSError.
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
        if not renaming:  # otherwise they tell `has_partial_file` that the files do not belong together
            for partial in partials.values():
                partial.unlink(missing_ok=True)
    for folder in {path.parent for path in contents}:
        _sync_folder(folder)
    remove_stale_temp_files((part for path in contents for part in temp_paths_of(path)), alone=False)


def _write(content: Any, path: Path) -> None:
    """Write a file for torch.load and sync it to the disk. Raise OSError with the path."""
    try:
        with path.open("wb") as file:
            torch.save(content, file)
            file.flush()
            _sync(file.fileno())
    except RuntimeError as error:  # raised by torch's writer after an OSError
        cause = error.__context__
        if not isinstance(cause, OSError):
            raise
        raise OSError(cause.errno, cause.strerror, str(path)) from None
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def _sync(descriptor: int) -> None:
    """Sync a file to the disk. Raise OSError, but not if the file system has no sync."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NO_SYNC:
            raise


def _sync_folder(folder: Path) -> None:
    """Sync the names of a folder's files to the disk, so that renames persist after a power failure.

    The contents are synced already. Errors are ignored, as databases do: network shares fail in many ways, and Windows
    cannot open a folder.
    """
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def has_partial_file(path: Path) -> bool:
    """Return True if a save was interrupted before it renamed the file."""
    return bool(temp_paths_of(path))


def file_matches(path: Path, state: Mapping[str, Tensor]) -> bool:
    """Return True if a file holds exactly this state dict, without prefixes. Raise UserError as `load_weights`."""
    found = read_state(path)
    return found.keys() == state.keys() and all(torch.equal(found[key], tensor) for key, tensor in state.items())


def prunable_checkpoints(run_dir: Path, keep: int) -> list[Path]:
    """Return the files of all numbered checkpoints except the `keep` newest.

    Numbered checkpoints are <epoch>_net_*.pth and iter_<images>_net_*.pth.
    """
    files: dict[str, list[Path]] = defaultdict(list)
    for path in run_dir.glob("*_net_*.pth"):
        label, _, _ = path.name.partition("_net_")
        if NUMBERED.fullmatch(label):
            files[label].append(path)
    by_age = sorted(files.values(), key=lambda paths: max(path.stat().st_mtime_ns for path in paths))
    return [path for paths in by_age[: max(0, len(by_age) - keep)] for path in paths]


def load_weights(network: nn.Module, path: Path) -> None:
    """Load a state dict written by `save_weights` or the published code, with strict keys and shapes.

    Raises UserError if the file is missing, is not a state dict, or belongs to another architecture.
    """
    load_state(network, read_state(path), path)


def load_state(network: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Load a state dict without prefixes, with strict keys and shapes.

    Raises UserError, which names `path`, if the network has another architecture or a value is not finite.
    """
    expected = {_without_prefixes(key): tensor for key, tensor in network.state_dict().items()}
    state = _without_leftovers(state, expected)
    difference = _difference(expected, state)
    if difference:
        if describe_other(expected) != describe_other(state):
            check_is_generator(state, path)
        raise UserError(
            f"{path}: weights of another network: {difference}. Use the architecture options that it was trained with "
            "(--netG, --ngf, --input_nc, --no_antialias ...; see train_opt.txt beside it)."
        )
    not_finite = [key for key, tensor in expected.items() if not torch.isfinite(state[key].to(tensor.dtype)).all()]
    if not_finite:
        raise UserError(
            f"{path}: {not_finite[0]} is not finite, because the run that wrote it had diverged. Select an earlier "
            "checkpoint with --epoch."
        )
    network.load_state_dict({key: state[_without_prefixes(key)] for key in network.state_dict()})


def check_is_generator(state: Mapping[str, Tensor], path: Path) -> None:
    """Raise UserError, which names `path`, if the keys are those of a discriminator or of F."""
    if kind := describe_other(state):
        raise UserError(f"{path}: the file holds {kind}, not a generator. Give a generator, such as latest_net_G.pth.")


def describe_other(state: Mapping[str, Tensor]) -> str | None:
    """Return which network has these keys, "a discriminator" or "F"; None: a generator, or unknown."""
    return next((kind for prefix, kind in OTHER_NETWORKS.items() if next(iter(state), "").startswith(prefix)), None)


def read_values(path: Path) -> Any:
    """Read a file of torch.save that holds tensors and plain values, to the CPU. Code is never run.

    Raises OSError if there is no readable file, and exceptions of any type if it is damaged or holds code.
    """
    _check_intact(path)
    try:
        with warnings.catch_warnings(action="ignore"):  # about damaged files, which raise anyway
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        if error.errno == errno.EINVAL:  # torch looks for the end of a zip file before the start of a truncated one
            raise ValueError("truncated") from error
        raise


def _check_intact(path: Path) -> None:
    """Raise OSError if the file is not a regular file, and ValueError if a checksum of torch's zip format is wrong.

    torch.load itself does not verify the checksums of tensors.
    """
    size, mode = path.stat().st_size, path.stat().st_mode
    if not (S_ISREG(mode) or S_ISDIR(mode)):  # opening a pipe would block
        raise OSError(errno.EINVAL, "not a regular file")
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > size:
            raise ValueError("entries are larger than the file")
        if changed := archive.testzip():
            raise ValueError(f"{changed} has a wrong checksum")


def read_state(path: Path) -> dict[str, Tensor]:
    """Return the state dict in a file, on the CPU, without wrapper prefixes. Raise UserError if there is none."""
    try:
        state = read_values(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file. {suggest_weights(path)}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}). Check the path and its permissions.") from None
    except Exception:  # any type if the file is damaged; torch's messages advise running its code
        raise UserError(
            f"{path}: not a checkpoint of plain weights. It is truncated, damaged, or holds code, which is never run. "
            "Download or copy it again."
        ) from None
    if not isinstance(state, Mapping) or not all(isinstance(k, str) and _is_plain(v) for k, v in state.items()):
        raise UserError(f"{path}: not a state dict, which maps names to tensors. Use weights such as latest_net_G.pth.")
    return {_without_prefixes(key): value for key, value in state.items()}


def _is_plain(value: Any) -> bool:
    """Return True if the value is a dense tensor of real numbers on the CPU."""
    return (
        isinstance(value, Tensor)
        and value.device.type == "cpu"
        and value.layout is torch.strided
        and not (value.is_quantized or value.is_complex())
    )


def _without_prefixes(key: str) -> str:
    while key.startswith(WRAPPER_PREFIXES):
        key = key.partition(".")[2]
    return key


def _without_leftovers(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if key in expected or key.rpartition(".")[2] not in NORM_LEFTOVERS}


def _difference(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """Describe the first difference between two state dicts in names or shapes; empty if there is none."""
    for key, tensor in expected.items():
        if key not in found:
            return f"{key} is missing"
        if found[key].shape != tensor.shape:
            return f"{key} is {_shape_text(found[key])}, expected {_shape_text(tensor)}"
    unexpected = [key for key in found if key not in expected]
    return f"{unexpected[0]} is unexpected" if unexpected else ""


def _shape_text(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a scalar"


SAFETENSORS = ".safetensors"


def write_safetensors(network: nn.Module, path: Path) -> None:
    """Write the network's state dict atomically, without wrapper prefixes. The metadata has the program's version."""
    state = {key: tensor.contiguous() for key, tensor in cpu_state_dict(network).items()}
    metadata = {"format": "pt", "program": format_version(program_version())}
    with atomic_write(path) as tmp_path:
        tmp_path.write_bytes(_import_safetensors().save(state, metadata))


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Return the state dict in a file, on the CPU, without wrapper prefixes. Raise UserError if there is none."""
    library = _import_safetensors()
    try:
        return {_without_prefixes(key): value for key, value in library.load_file(path).items()}
    except FileNotFoundError:
        raise UserError(f"{path}: no such file. Check the path.") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}). Check the path and its permissions.") from None
    except Exception as error:  # types of the library
        raise UserError(f"{path}: damaged ({error}). Download or copy it again.") from None


def _import_safetensors() -> ModuleType:
    try:
        return import_module("safetensors.torch")
    except ImportError:
        raise UserError("safetensors: not installed. Install it with `pip install safetensors`.") from None
