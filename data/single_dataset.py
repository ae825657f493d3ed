"""One domain without a partner, for testing: a folder of images, or one image."""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from data.base_dataset import BaseDataset, Sample, SampleIndex, list_paths, source_and_target
from data.domain_folder import domain_folder, has_own_folders
from data.image_folder import ImageFolder, resolve_phase
from data.transforms import Transform
from util.errors import UserError


class SingleDataset(BaseDataset):
    """Each image once, in order, as the source domain.

    --dataroot is a folder of images, an image, or a dataset, of which <phase>A (with BtoA: <phase>B) is read. Or
    --dataroot_A (with BtoA: --dataroot_B) is the folder.
    """

    def __init__(self, opt: Namespace) -> None:
        super().__init__(opt)
        if self.is_train:
            raise UserError("--dataset_mode single: has one domain only, for testing. Train with --dataset_mode unaligned.")
        if has_own_folders(opt):
            self.source_folder = domain_folder(opt, self.source)
            self.images = ImageFolder(list_paths(opt, self.source_folder), self.readers[self.source])
        elif Path(opt.dataroot).is_file():
            self.source_folder = Path(opt.dataroot).parent
            self.images = ImageFolder([opt.dataroot], self.readers[self.source])
        else:
            self.source_folder = _find_source_folder(opt.dataroot, opt.phase, self.source)
            self.images = ImageFolder(list_paths(opt, self.source_folder), self.readers[self.source])
        self.domains = (self.images,)

    @classmethod
    def folder_domains(cls, opt: Namespace) -> str:
        """Return the source domain."""
        return source_and_target(opt)[0]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: SampleIndex) -> Sample | None:
        loaded = self.images.load(index.position, self.transforms[self.source], self.rng_for(index))
        return None if loaded is None else {self.source: loaded[0], f"{self.source}_paths": loaded[1]}

    def transforms_for_epoch(self, epoch: int) -> Sequence[Transform]:
        return (self.transforms[self.source],)


def _find_source_folder(dataroot: str, phase: str, domain: str) -> Path:
    """Return the folder of `domain` if `dataroot` is a dataset, or `dataroot` itself if it is a plain folder of images."""
    folder = Path(dataroot, resolve_phase(dataroot, phase, domain) + domain)
    # If a dataset lacks this phase, reading all folders below its root would mix the domains of the other phases.
    is_dataset = any(Path(dataroot, known + d).is_dir() for known in ("train", "val", "test") for d in "AB")
    return folder if folder.is_dir() or is_dataset else Path(dataroot)
