"""Paired pictures side by side in one file, A left and B right: <dataroot>/<phase>."""

from argparse import Namespace
from pathlib import Path

import torch
from PIL import Image

from data.base_dataset import BaseDataset, Position, Sample
from data.folders import list_pictures, phase_or_val
from data.images import PictureError
from data.picture_set import PictureSet


class AlignedDataset(BaseDataset):
    """Each file once in an epoch; crop and flip are the same for both halves."""

    def __init__(self, opt: Namespace) -> None:
        super().__init__(opt)
        self.source_folder = Path(opt.dataroot, phase_or_val(opt.dataroot, opt.phase))
        self.pairs = PictureSet(list_pictures(str(self.source_folder), self.limit))
        self.domains = (self.pairs,)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, position: Position) -> Sample | None:
        def halves(image: Image.Image) -> tuple[torch.Tensor, torch.Tensor]:
            # The halves have one size, so that equal generators draw the same crop and flip for both.
            left, right = split_pair(image)
            A = self.transforms["A"](left, self.draws_at(position))
            B = self.transforms["B"](right, self.draws_at(position))
            return A, B

        load = self.pairs.load_or_next if self.is_train else self.pairs.load
        loaded = load(position.index, halves)
        if loaded is None:
            return None
        (A, B), path = loaded
        return {"A": A, "B": B, "A_paths": path, "B_paths": path}


def split_pair(image: Image.Image) -> tuple[Image.Image, Image.Image]:
    """The left and the right half of `image`, equally large; the middle column of an odd width is in neither.

    Raises:
        PictureError: `image` is one pixel wide.
    """
    width, height = image.size
    if width < 2:
        raise PictureError("one pixel wide, which makes no pair")
    return image.crop((0, 0, width // 2, height)), image.crop((width - width // 2, 0, width, height))
