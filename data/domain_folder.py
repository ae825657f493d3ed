"""Folders of the two domains: <dataroot>/<phase>A and <dataroot>/<phase>B, or --dataroot_A and --dataroot_B."""

from argparse import Namespace
from pathlib import Path

from data.image_folder import DATAROOT_UNSET, check_dataroot, resolve_phase
from util.errors import UserError

DATAROOT_FLAGS = ("dataroot", "dataroot_A", "dataroot_B")


def has_own_folders(opt: Namespace) -> bool:
    """Return True if --dataroot_A or --dataroot_B is set."""
    return opt.dataroot_A is not None or opt.dataroot_B is not None


def domain_folder(opt: Namespace, domain: str, phase: str | None = None) -> Path:
    """Return the folder of the images of domain "A" or "B".

    Args:
        phase: split of --dataroot; by default --phase, or val if the dataset has no test images of the domain.
    """
    if has_own_folders(opt):
        return Path(getattr(opt, f"dataroot_{domain}"))
    return Path(opt.dataroot, (resolve_phase(opt.dataroot, opt.phase, domain) if phase is None else phase) + domain)


def domain_root(opt: Namespace, domain: str) -> str:
    """Return the folder that the image paths of the domain are saved relative to."""
    return getattr(opt, f"dataroot_{domain}") if has_own_folders(opt) else opt.dataroot


def describe_roots(opt: Namespace) -> str:
    """Return the folder of the dataset, or both folders of its domains, for messages."""
    return f"{opt.dataroot_A} with {opt.dataroot_B}" if has_own_folders(opt) else opt.dataroot


def check_data_folders(opt: Namespace, domains: str) -> None:
    """Raise UserError unless --dataroot, or a folder for each of these domains, is set and exists."""
    if not has_own_folders(opt):
        check_dataroot(opt.dataroot)
        return
    if opt.dataroot != DATAROOT_UNSET:
        raise UserError("--dataroot: incompatible with --dataroot_A and --dataroot_B. Use one or the others.")
    if not domains:
        raise UserError(f"--dataroot_A, --dataroot_B: incompatible with --dataset_mode {opt.dataset_mode}. Use --dataroot.")
    for domain in domains:
        folder = getattr(opt, f"dataroot_{domain}")
        if folder is None:
            raise UserError(f"--dataroot_{domain}: missing. Give the folder of the images of domain {domain}.")
        if not Path(folder).is_dir():
            raise UserError(f"--dataroot_{domain} {folder}: no such folder. Check the path.")
