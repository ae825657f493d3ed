"""Two folders of unpaired images: <dataroot>/<phase>A and <dataroot>/<phase>B."""

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from data.base_dataset import BaseDataset, Position, Sample
from data.image_folder import ImageFolder, list_images, resolve_phase
from data.transforms import Transform
from util.errors import UserError


class UnalignedDataset(BaseDataset):
    """Training: an epoch of max(|A|, |B|) samples, each image of A with a random one of B.

    Testing: each image of the source domain once, in order, with the other domain's in order.
    """

    def __init__(self, opt: Namespace) -> None:
        super().__init__(opt)
        phase = resolve_phase(opt.dataroot, opt.phase, "A")
        self.source_folder, target_folder = (Path(opt.dataroot, phase + domain) for domain in (self.source, self.target))
        paths = {self.source: list_images(str(self.source_folder), self.limit)}
        if not self.is_train and not target_folder.is_dir():
            raise UserError(
                f"{target_folder} is not a folder, but --dataset_mode unaligned shows its images beside the results; "
                f"--dataset_mode single translates {self.source_folder} alone"
            )
        paths[self.target] = list_images(str(target_folder), self.limit)
        self.images = {d: ImageFolder(paths[d]) for d in "AB"}
        self.domains = self.images["A"], self.images["B"]
        self.draws_partner = self.is_train and not opt.serial_batches
        if self.is_train:
            # While the learning rate decays there is no enlargement, and thus no jitter of the crop, as published.
            self.n_epochs: int = opt.n_epochs
            self.decay_transforms = {d: replace(self.transforms[d], load_size=opt.crop_size) for d in "AB"}

    def __len__(self) -> int:
        return max(map(len, self.domains)) if self.is_train else len(self.images[self.source])

    def __getitem__(self, position: Position) -> Sample | None:
        return self._training_pair(position) if self.is_train else self._test_pair(position)

    def transforms_for_epoch(self, epoch: int) -> Sequence[Transform]:
        transforms = self.decay_transforms if self.is_train and epoch > self.n_epochs else self.transforms
        return transforms["A"], transforms["B"]

    def _training_pair(self, position: Position) -> Sample:
        index, rng = position.index, self.rng_for(position)
        set_A, set_B = self.domains
        transform_A, transform_B = self.transforms_for_epoch(position.epoch)
        index_B = int(rng.integers(len(set_B))) if self.draws_partner else index % len(set_B)
        A, path_A = set_A.load_or_skip(index % len(set_A), transform_A, rng)
        B, path_B = set_B.load_or_skip(index_B, transform_B, rng)
        return {"A": A, "B": B, "A_paths": path_A, "B_paths": path_B}

    def _test_pair(self, position: Position) -> Sample | None:
        rng = self.rng_for(position)
        source, target = self.images[self.source], self.images[self.target]
        loaded = source.load(position.index, self.transforms[self.source], rng)
        if loaded is None:
            return None
        partner = target.load_or_skip(position.index % len(target), self.transforms[self.target], rng)
        pair = {self.source: loaded, self.target: partner}
        return {"A": pair["A"][0], "B": pair["B"][0], "A_paths": pair["A"][1], "B_paths": pair["B"][1]}
