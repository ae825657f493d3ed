"""The loader and the order of an epoch, apart from what is loaded."""

from pathlib import Path

import pytest
import torch
from image_factory import options, two_domains

from data import DATASETS, create_dataset
from data.base_dataset import Position
from data.loader import EpochBatchSampler


def sampler(n_samples: int = 10, batch_size: int = 4, *, shuffle: bool = True, drop_last: bool = False) -> EpochBatchSampler:
    return EpochBatchSampler(n_samples, batch_size, shuffle=shuffle, drop_last=drop_last, seed=3)


@pytest.mark.parametrize("n_samples", [8, 10])
@pytest.mark.parametrize("drop_last", [False, True])
def test_batches_cover_the_epoch(n_samples: int, drop_last: bool) -> None:
    batches = sampler(n_samples, drop_last=drop_last)
    chosen = list(batches)
    assert len(chosen) == len(batches)
    indices = [position.index for batch in chosen for position in batch]
    assert len(set(indices)) == len(indices) == (8 if drop_last else n_samples)


def test_order_without_shuffling() -> None:
    assert list(sampler(3, 2, shuffle=False)) == [[Position(1, 0), Position(1, 1)], [Position(1, 2)]]


def test_positions_carry_the_epoch_of_their_iteration() -> None:
    batches = sampler()
    batches.epoch = 7
    running = iter(batches)
    first = next(running)
    batches.epoch = 8
    assert {position.epoch for position in first + next(running)} == {7}


def test_global_random_state_is_left_alone(tmp_path: Path) -> None:
    root = two_domains(tmp_path)
    before = torch.get_rng_state()
    for num_threads in (0, 1):
        list(create_dataset(options(root, num_threads=num_threads)))
    assert torch.get_rng_state().equal(before)


def test_no_more_is_read_ahead_than_there_is(tmp_path: Path) -> None:
    loader = create_dataset(options(two_domains(tmp_path), num_threads=1, prefetch_factor=10**12))
    assert len(list(loader)) == loader.n_images


def test_an_epoch_that_is_broken_off_does_not_leak_into_the_next(tmp_path: Path) -> None:
    loader = create_dataset(options(two_domains(tmp_path, n_A=12), num_threads=2))
    whole = [batch["A_paths"] for batch in loader]
    next(iter(loader))
    loader.set_epoch(2)
    assert [batch["A_paths"] for batch in loader] != whole
    loader.set_epoch(1)
    assert [batch["A_paths"] for batch in loader] == whole


def test_registry_names() -> None:
    assert set(DATASETS) == {"unaligned", "single", "singleimage", "aligned"}
