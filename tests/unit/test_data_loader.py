"""The data loader, the order of the samples of an epoch, and the datasets in the registry."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

import pytest
import torch
from image_factory import fill, options, two_domains

from data import DATASETS, create_dataset
from data.base_dataset import SampleIndex
from data.eval_data import EvalDataset
from data.loader import EpochBatchSampler
from data.unaligned_dataset import UnalignedDataset
from options import TestOptions, TrainOptions
from util.errors import UserError


def sampler(n_samples: int = 10, batch_size: int = 4, *, shuffle: bool = True, drop_last: bool = False) -> EpochBatchSampler:
    return EpochBatchSampler(n_samples, batch_size, shuffle=shuffle, drop_last=drop_last, seed=3)


@pytest.mark.parametrize("n_samples", [8, 10])
@pytest.mark.parametrize("drop_last", [False, True])
def test_batches_cover_the_epoch(n_samples: int, drop_last: bool) -> None:
    batches = sampler(n_samples, drop_last=drop_last)
    sampled = list(batches)
    assert len(sampled) == len(batches)
    positions = [index.position for batch in sampled for index in batch]
    assert len(set(positions)) == len(positions) == (8 if drop_last else n_samples)


def test_order_without_shuffling() -> None:
    assert list(sampler(3, 2, shuffle=False)) == [[SampleIndex(1, 0), SampleIndex(1, 1)], [SampleIndex(1, 2)]]


def test_sample_indices_include_the_epoch() -> None:
    batches = sampler()
    batches.epoch = 7
    running = iter(batches)
    first = next(running)
    batches.epoch = 8
    assert {index.epoch for index in first + next(running)} == {7}


def test_global_rng_state_is_unchanged(tmp_path: Path) -> None:
    root = two_domains(tmp_path)
    before = torch.get_rng_state()
    for num_threads in (0, 1):
        list(create_dataset(options(root, num_threads=num_threads)))
    assert torch.get_rng_state().equal(before)


def test_prefetch_factor_may_exceed_the_dataset(tmp_path: Path) -> None:
    loader = create_dataset(options(two_domains(tmp_path), num_threads=1, prefetch_factor=10**12))
    assert len(list(loader)) == loader.n_images


def test_an_epoch_stopped_early_does_not_affect_the_next(tmp_path: Path) -> None:
    loader = create_dataset(options(two_domains(tmp_path, n_A=12), num_threads=2))
    whole = [batch["A_paths"] for batch in loader]
    next(iter(loader))
    loader.set_epoch(2)
    assert [batch["A_paths"] for batch in loader] != whole
    loader.set_epoch(1)
    assert [batch["A_paths"] for batch in loader] == whole


TRAINED = [name for name in DATASETS if name != "single"]  # which is for testing


@pytest.fixture
def dataroot(tmp_path: Path) -> Path:
    """Create a folder that every dataset mode can read in training and testing."""
    for phase in ("train", "test"):
        two_domains(tmp_path, phase, n_A=1, n_B=1)
        fill(tmp_path / phase, 1, (40, 16))
    return tmp_path


def parse(dataroot: Path, name: str, *, is_train: bool) -> Namespace:
    arguments = ["--dataroot", str(dataroot), "--dataset_mode", name, "--load_size", "20", "--crop_size", "16"]
    arguments += ["--num_threads", "0", "--gpu_ids", "-1"]
    return TrainOptions().parse([*arguments, "--max_dataset_size", "2"]) if is_train else TestOptions().parse(arguments)


@pytest.mark.parametrize(("name", "is_train"), [*((n, True) for n in TRAINED), *((n, False) for n in DATASETS)])
def test_every_dataset_loads_batches(name: str, is_train: bool, dataroot: Path) -> None:
    loader = create_dataset(parse(dataroot, name, is_train=is_train))
    batch = next(iter(loader))
    for domain in [key for key in ("A", "B") if key in batch]:
        assert batch[domain].shape[:2] == (1, 3)
        assert batch[domain].abs().max() <= 1
        assert Path(batch[f"{domain}_paths"][0]).is_file()
    assert "A" in batch
    assert len(list(loader)) == len(loader)
    loader.load_state_dict(loader.state_dict())
    assert loader.source_folder.is_dir()


@pytest.mark.parametrize("name", TRAINED)
def test_every_dataset_can_be_evaluated_or_says_that_it_cannot(name: str, dataroot: Path) -> None:
    opt = parse(dataroot, name, is_train=True)
    if name == "singleimage":
        with pytest.raises(UserError, match="cannot be evaluated"):
            EvalDataset(opt)
        return
    images = EvalDataset(opt)
    inputs = list(images.inputs())
    assert [image.shape for image, _ in inputs] == [(1, 3, 16, 16)]
    assert len(images.real_images((16, 16))) == 1
    assert [image.shape for image in images.targets([name for _, name in inputs], (16, 16))] == [(16, 16, 3)]


class OwnDataset(UnalignedDataset):
    """A dataset with its own option."""

    @staticmethod
    def modify_commandline_options(parser: ArgumentParser, is_train: bool) -> ArgumentParser:
        parser.add_argument("--own_option", action="store_true")
        return parser


def test_a_new_dataset_needs_one_registry_line(dataroot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DATASETS, "own", OwnDataset)
    opt = parse(dataroot, "own", is_train=True)
    assert opt.own_option is False
    assert next(iter(create_dataset(opt)))["A"].shape == (1, 3, 16, 16)
    assert [name for _, name in EvalDataset(opt).inputs()] == ["00.png"]


def fixed(n_samples: int, batch_size: int, batches: int) -> EpochBatchSampler:
    return EpochBatchSampler(n_samples, batch_size, shuffle=True, drop_last=True, seed=3, batches_per_epoch=batches)


def epochs(batches: EpochBatchSampler, count: int) -> list[list[list[SampleIndex]]]:
    found = []
    for epoch in range(1, count + 1):
        batches.epoch = epoch
        found.append(list(batches))
    return found


@pytest.mark.parametrize(("n_samples", "batch_size", "length"), [(10, 2, 3), (10, 4, 7), (3, 8, 2)])
def test_epochs_of_a_fixed_length_go_through_the_dataset_again_and_again(
    n_samples: int, batch_size: int, length: int
) -> None:
    """Whatever the epochs, the samples of the run are complete passes, one after the other."""
    batches = fixed(n_samples, batch_size, length)
    run = epochs(batches, 6)
    assert {len(epoch) for epoch in run} == {length} == {len(batches)}
    samples = [sample for epoch in run for batch in epoch for sample in batch]
    assert [sample.epoch for sample in samples] == [epoch for epoch in range(1, 7) for _ in range(length * batch_size)]
    assert len({sample.random_key for sample in samples}) == len(samples)
    for number in range(len(samples) // n_samples):
        one_pass = samples[number * n_samples : (number + 1) * n_samples]
        assert {sample.data_pass for sample in one_pass} == {number + 1}
        assert sorted(sample.position for sample in one_pass) == list(range(n_samples))


def test_the_first_pass_has_the_order_of_the_first_epoch() -> None:
    first = [sample.position for batch in fixed(8, 2, 4) for sample in batch]
    assert first == [sample.position for batch in sampler(8, 2) for sample in batch]


def test_an_epoch_of_a_fixed_length_resumes_within() -> None:
    batches = fixed(10, 4, 7)
    whole = epochs(batches, 2)[1]
    batches.start_sample = 3 * 4
    assert list(batches) == whole[3:]
    assert len(batches) == 4


def test_the_processes_of_a_group_share_each_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = epochs(fixed(10, 4, 7), 2)
    shards = []
    for number in range(2):
        monkeypatch.setattr("data.loader.local_shard", lambda batch, number=number: batch[number::2])
        shards.append(epochs(fixed(10, 4, 7), 2))
    together = [
        [[*zip(*pair, strict=True)] for pair in zip(*of_epoch, strict=True)] for of_epoch in zip(*shards, strict=True)
    ]
    assert [[[s for both in batch for s in both] for batch in epoch] for epoch in together] == alone
