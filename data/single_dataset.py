"""One domain without a partner, for testing: any folder of pictures, or one picture."""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from data.base_dataset import BaseDataset, Position, Sample
from data.image_folder import PictureSet, list_pictures, phase_or_val
from data.transforms import Transform
from util.errors import UserError


class SingleDataset(BaseDataset):
    """Each picture once, in order, as the source domain alone.

    --dataroot is a folder of pictures, a picture, or a data set, of which <phase>A (with BtoA: <phase>B) is taken.
    """

    def __init__(self, opt: Namespace) -> None:
        super().__init__(opt)
        if self.is_train:
            raise UserError("--dataset_mode single has one domain and is for testing; train with unaligned")
        if Path(opt.dataroot).is_file():
            self.source_folder = Path(opt.dataroot).parent
            self.pictures = PictureSet([opt.dataroot])
        else:
            self.source_folder = _folder(opt.dataroot, opt.phase, self.source)
            self.pictures = PictureSet(list_pictures(str(self.source_folder), self.limit))
        self.domains = (self.pictures,)

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, position: Position) -> Sample | None:
        loaded = self.pictures.load(position.index, self.transforms[self.source], self.draws_at(position))
        return None if loaded is None else {self.source: loaded[0], f"{self.source}_paths": loaded[1]}

    def transforms_at(self, epoch: int) -> Sequence[Transform]:
        return (self.transforms[self.source],)


def _folder(dataroot: str, phase: str, domain: str) -> Path:
    """The folder of `domain` in a data set; `dataroot` itself where that is a plain folder of pictures."""
    folder = Path(dataroot, phase_or_val(dataroot, phase, domain) + domain)
    # Where a data set lacks this phase, a walk from its root would mix the domains of the others.
    is_data_set = any(Path(dataroot, known + d).is_dir() for known in ("train", "val", "test") for d in "AB")
    return folder if folder.is_dir() or is_data_set else Path(dataroot)
