"""From files to batches: datasets, transforms and the data loader."""

from argparse import Namespace

import torch

from data.aligned_dataset import AlignedDataset
from data.base_dataset import BaseDataset
from data.dataset_check import prepare_options
from data.domain_folder import check_data_folders, describe_roots
from data.loader import EpochBatchSampler, ImageDataLoader
from data.single_dataset import SingleDataset
from data.singleimage_dataset import SingleImageDataset
from data.unaligned_dataset import UnalignedDataset
from util.errors import UserError
from util.runtime.device import CPU
from util.runtime.distributed import check_batch_size

# Choices of --dataset_mode. To add one, write its file and add a line here (docs/extending.md).
DATASETS: dict[str, type[BaseDataset]] = {
    "unaligned": UnalignedDataset,
    "single": SingleDataset,
    "singleimage": SingleImageDataset,
    "aligned": AlignedDataset,
}


def create_dataset(opt: Namespace) -> ImageDataLoader:
    """Create the data loader of --dataset_mode.

    It yields batches {"A", "B", "A_paths", "B_paths"}: (N, C, H, W) float32 tensors in [-1, 1], and lists of paths.
    --direction is applied by the model, not here. With --dataset_mode single there is no B. `set_epoch` selects the epoch.

    In training, options that were left to the images are set in `opt`, see `data.dataset_check.prepare_options`.

    Raises:
        UserError: a folder is missing or empty, no image can be read, the batch is larger than the dataset, or the
            batch size is not a multiple of the number of processes.
    """
    check_batch_size(opt.batch_size)
    dataset_class = DATASETS[opt.dataset_mode]
    description = ""
    if opt.isTrain:
        check_data_folders(opt, dataset_class.folder_domains(opt))
        description = prepare_options(opt, dataset_class.training_files(opt))
    dataset = dataset_class(opt)
    steps_per_epoch = opt.steps_per_epoch if opt.isTrain else None
    if opt.isTrain and steps_per_epoch is None and len(dataset) < opt.batch_size:
        raise UserError(
            f"--batch_size {opt.batch_size}: larger than the dataset, {describe_roots(opt)} has {len(dataset)} samples per "
            f"epoch. Lower --batch_size, add images, set --steps_per_epoch, or raise --max_dataset_size if it is set."
        )
    batches = EpochBatchSampler(
        len(dataset),
        opt.batch_size,
        shuffle=opt.isTrain and dataset.is_shuffled and not opt.serial_batches,
        drop_last=opt.isTrain,
        seed=opt.seed,
        batches_per_epoch=None if steps_per_epoch is None else steps_per_epoch * opt.accumulate,
    )
    return ImageDataLoader(
        dataset,
        batches,
        min(opt.num_threads, len(batches)),
        min(opt.prefetch_factor, max(1, len(batches))),
        opt.cache if opt.isTrain else None,
        to_gpu=opt.gpu_ids != CPU and torch.cuda.is_available(),
        description=description,
    )
