"""Two folders of unpaired images: <dataroot>/<phase>A and <dataroot>/<phase>B, or --dataroot_A and --dataroot_B."""

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace

from data.base_dataset import BaseDataset, Sample, SampleIndex, list_paths
from data.domain_folder import domain_folder
from data.image_folder import ImageFolder, resolve_phase
from data.single_dataset import SingleDataset
from data.transforms import Transform
from util.errors import UserError


class UnalignedDataset(BaseDataset):
    """Training: max(|A|, |B|) samples per epoch, each image of A with a random image of B.

    Testing: each image of the source domain once, in order, with the images of the other domain in order.
    """

    def __init__(self, opt: Namespace) -> None:
        super().__init__(opt)
        phase = resolve_phase(opt.dataroot, opt.phase, "A")
        self.source_folder, target_folder = (domain_folder(opt, domain, phase) for domain in (self.source, self.target))
        paths = {self.source: list_paths(opt, self.source_folder)}
        if not self.is_train and not target_folder.is_dir():
            raise UserError(
                f"{target_folder}: not a folder, but --dataset_mode unaligned shows its images next to the results. "
                f"Use --dataset_mode single to translate {self.source_folder} only."
            )
        paths[self.target] = list_paths(opt, target_folder)
        self.images = {d: ImageFolder(paths[d], self.readers[d]) for d in "AB"}
        self.domains = self.images["A"], self.images["B"]
        self.has_random_partner = self.is_train and not opt.serial_batches
        if self.is_train:
            # While the learning rate decays, images are not enlarged and crops have no jitter, as published.
            self.n_epochs: int = opt.n_epochs
            self.decay_transforms = {d: replace(self.transforms[d], load_size=opt.crop_size) for d in "AB"}

    @classmethod
    def training_files(cls, opt: Namespace) -> dict[str, list[str]]:
        """Return the images of both folders."""
        return {domain: list_paths(opt, domain_folder(opt, domain, opt.phase)) for domain in "AB"}

    @classmethod
    def eval_source(cls, opt: Namespace) -> BaseDataset:
        """Return the source domain alone, since the partners are not used."""
        return SingleDataset(opt)

    def __len__(self) -> int:
        return max(map(len, self.domains)) if self.is_train else len(self.images[self.source])

    def __getitem__(self, index: SampleIndex) -> Sample | None:
        return self._training_pair(index) if self.is_train else self._test_pair(index)

    def transforms_for_epoch(self, epoch: int) -> Sequence[Transform]:
        transforms = self.decay_transforms if self.is_train and epoch > self.n_epochs else self.transforms
        return transforms["A"], transforms["B"]

    def _training_pair(self, index: SampleIndex) -> Sample:
        position, rng = index.position, self.rng_for(index)
        images_A, images_B = self.domains
        transform_A, transform_B = self.transforms_for_epoch(index.epoch)
        index_B = int(rng.integers(len(images_B))) if self.has_random_partner else position % len(images_B)
        A, path_A = images_A.load_or_skip(position % len(images_A), transform_A, rng)
        B, path_B = images_B.load_or_skip(index_B, transform_B, rng)
        return {"A": A, "B": B, "A_paths": path_A, "B_paths": path_B}

    def _test_pair(self, index: SampleIndex) -> Sample | None:
        rng = self.rng_for(index)
        source, target = self.images[self.source], self.images[self.target]
        loaded = source.load(index.position, self.transforms[self.source], rng)
        if loaded is None:
            return None
        partner = target.load_or_skip(index.position % len(target), self.transforms[self.target], rng)
        pair = {self.source: loaded, self.target: partner}
        return {"A": pair["A"][0], "B": pair["B"][0], "A_paths": pair["A"][1], "B_paths": pair["B"][1]}
