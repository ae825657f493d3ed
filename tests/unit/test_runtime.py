"""Runtime basics: device, seeds, image counter, output folder, learning rate schedules, image pool."""

import math
from pathlib import Path

import pytest
import torch

from models import create_model
from models.image_pool import ImagePool
from models.lr_schedules import SCHEDULES, EpochPlan
from options import TrainOptions
from util.errors import UserError
from util.files import prepare_output_dir
from util.runtime.device import describe_device, parse_gpu_ids, select_device, usable_gpu_memory
from util.runtime.image_counter import ImageCounter
from util.runtime.rng import fork_rng_seeded


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch):
    """Make PyTorch report this many GPUs. Return a list of the devices that become the current one."""
    current: list[torch.device] = []

    def make(cuda: int = 0, apple: bool = False) -> list[torch.device]:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
        monkeypatch.setattr(torch.cuda, "set_device", current.append)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: apple)
        return current

    return make


def test_auto_is_a_gpu_if_there_is_one(machine) -> None:
    machine(cuda=2)
    assert select_device("auto") == torch.device("cuda", 0)
    machine(cuda=1, apple=True)
    assert select_device("auto") == torch.device("cuda", 0)
    machine(apple=True)
    assert select_device("auto") == torch.device("mps")
    machine()
    assert select_device("auto") == torch.device("cpu")


def test_a_number_is_that_gpu_and_minus_one_the_cpu(machine) -> None:
    machine(cuda=10)
    assert select_device("0") == torch.device("cuda", 0)
    assert select_device("9") == torch.device("cuda", 9)
    assert select_device("-1") == torch.device("cpu")
    assert select_device("0,") == torch.device("cuda", 0)


def test_the_chosen_gpu_becomes_the_current_device(machine, monkeypatch: pytest.MonkeyPatch) -> None:
    current = machine(cuda=4)
    select_device("-1")
    assert current == []
    select_device("3")
    select_device("auto")
    assert current == [torch.device("cuda", 3), torch.device("cuda", 0)]
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    select_device("0,2")
    assert current[2:] == [torch.device("cuda", 2)]


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_a_model_on_another_gpu_leaves_gpu_0_alone() -> None:
    """Streams and memory belong to the current device unless another one is named."""
    with torch.cuda.device(0):  # the current device again afterwards
        before = torch.cuda.memory_reserved(0)
        model = create_model(TrainOptions().parse(["--gpu_ids", "1", "--cuda_graphs", "--ngf", "2", "--ndf", "2"]))
        assert torch.cuda.current_stream().device == model.device == torch.device("cuda", 1)
        assert torch.cuda.memory_reserved(0) == before


def test_memory_that_the_caching_allocator_holds_unused_is_free() -> None:
    gib = 2**30
    after_an_image = usable_gpu_memory(free=10 * gib, reserved=65 * gib, allocated=5 * gib)
    assert after_an_image == usable_gpu_memory(free=70 * gib, reserved=5 * gib, allocated=5 * gib)
    assert 5 * gib < after_an_image < 70 * gib


@pytest.mark.parametrize(
    ("gpu_ids", "cuda", "reason"),
    [
        ("0", 0, "--gpu_ids 0: PyTorch finds no CUDA GPU. Use --gpu_ids -1 for the CPU."),
        ("9", 0, "--gpu_ids 9: PyTorch finds no CUDA GPU. Use --gpu_ids -1 for the CPU."),
        ("9", 2, "--gpu_ids 9: PyTorch finds 2 CUDA GPUs. Use --gpu_ids -1 for the CPU."),
        ("2", 2, "--gpu_ids 2: PyTorch finds 2 CUDA GPUs. Use --gpu_ids -1 for the CPU."),
        ("0,1", 2, "--gpu_ids 0,1: only train.py uses several GPUs. Name one of them."),
        ("garbage", 2, "--gpu_ids garbage: must be a GPU number such as 0. Use -1 for the CPU."),
        ("1.5", 2, "--gpu_ids 1.5: must be a GPU number such as 0. Use -1 for the CPU."),
        ("", 2, "--gpu_ids : must be a GPU number such as 0. Use -1 for the CPU."),
        ("cpu", 0, "--gpu_ids cpu: must be a GPU number such as 0. Use -1 for the CPU."),
    ],
)
def test_a_device_that_is_not_there_is_refused(machine, gpu_ids: str, cuda: int, reason: str) -> None:
    machine(cuda=cuda)
    with pytest.raises(UserError) as refused:
        select_device(gpu_ids)
    assert str(refused.value) == reason


def test_of_several_processes_each_gets_a_gpu_of_its_own(machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(cuda=4)
    assert parse_gpu_ids("auto") == parse_gpu_ids("-1") == []
    assert parse_gpu_ids("2,0,2") == [2, 0]
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert select_device("auto") == torch.device("cuda", 1)
    assert select_device("2,0") == torch.device("cuda", 0)
    assert select_device("-1") == torch.device("cpu")
    with pytest.raises(UserError, match=r"^--gpu_ids: process 1 of this machine has no GPU of its own \(1 available\)\."):
        select_device("3")
    monkeypatch.setenv("LOCAL_RANK", "4")
    with pytest.raises(UserError, match=r"^--gpu_ids: process 4 of this machine has no GPU of its own \(4 available\)\."):
        select_device("auto")


def test_several_gpus_that_are_not_there_are_refused(machine) -> None:
    with pytest.raises(UserError, match=r"^--gpu_ids 0,1: PyTorch finds no CUDA GPU. Use --gpu_ids -1 for the CPU.$"):
        parse_gpu_ids("0,1")
    machine(cuda=1)
    with pytest.raises(UserError, match=r"^--gpu_ids 0,1: PyTorch finds 1 CUDA GPU\."):
        parse_gpu_ids("0,1")


def test_devices_have_names_for_people() -> None:
    assert describe_device(torch.device("cpu")).startswith(f"the CPU ({torch.get_num_threads()} thread")
    assert describe_device(torch.device("mps")) == "the Apple GPU"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_is_described_by_its_name() -> None:
    assert describe_device(select_device("0")) == f"GPU 0 ({torch.cuda.get_device_name(0)})"


def test_draws_follow_from_the_seed_and_leave_the_others_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    drawn = []
    for seed in (1, 1, 2):
        with fork_rng_seeded(seed):
            drawn.append(torch.rand(4))
    assert torch.equal(torch.rand(4), expected)
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


def test_the_others_draws_are_left_alone_after_a_failure() -> None:
    before = torch.get_rng_state()
    with pytest.raises(ZeroDivisionError), fork_rng_seeded(1):
        torch.rand(4)
        raise ZeroDivisionError
    assert torch.equal(torch.get_rng_state(), before)


def test_generators_of_gpus_are_not_seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(seed: int) -> None:
        raise AssertionError("the GPUs' generators were seeded, and nobody puts them back")

    monkeypatch.setattr(torch.cuda, "manual_seed_all", forbidden)
    with fork_rng_seeded(1):
        torch.rand(4)


@pytest.mark.parametrize("model", ["cut", "cycle_gan", "sincut"])
def test_first_weights_follow_from_the_seed(model: str) -> None:
    tiny = ["--model", model, "--gpu_ids", "-1", "--ngf", "1", "--ndf", "1", "--load_size", "64", "--crop_size", "64"]

    def weights(seed: str) -> list[torch.Tensor]:
        networks = create_model(TrainOptions().parse([*tiny, "--seed", seed])).networks.values()
        return [weight for network in networks for weight in network.parameters()]

    before = torch.get_rng_state()
    first, again, other = weights("1"), weights("1"), weights("2")
    assert torch.equal(torch.get_rng_state(), before)
    assert all(map(torch.equal, first, again))
    assert not all(map(torch.equal, first, other))


def crossings(images_per_step: int, every: int, steps: int) -> list[int]:
    """After which numbers of images a multiple of `every` counts as crossed."""
    counter, crossed = ImageCounter(), []
    for _ in range(steps):
        counter.advance(images_per_step)
        if counter.crossed(every):
            crossed.append(counter.total_images)
    return crossed


def test_every_multiple_is_crossed_once_whatever_a_step_takes() -> None:
    assert crossings(1, 5, 15) == [5, 10, 15]
    assert crossings(3, 5, 10) == [6, 12, 15, 21, 27, 30]
    assert crossings(5, 5, 3) == [5, 10, 15]
    assert crossings(16, 5, 3) == [16, 32, 48]
    assert crossings(3, 100, 10) == []


def test_nothing_is_crossed_before_the_first_image_or_between_steps() -> None:
    counter = ImageCounter()
    assert not counter.crossed(1)
    counter.advance(5)
    assert counter.crossed(5) and counter.crossed(5) and counter.crossed(2) and not counter.crossed(6)
    counter.advance(0)
    assert not counter.crossed(5)
    assert counter.total_images == 5


def test_a_folder_is_made_and_left_empty(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    for _ in range(2):
        prepare_output_dir(folder, "--name")
        assert list(folder.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_refused_with_the_flags(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError) as refused:
            prepare_output_dir(folder, "--checkpoints_dir and --name")
        assert str(refused.value).startswith(f"{folder}: no file can be created (")
        assert str(refused.value).endswith(" Check --checkpoints_dir and --name.")


def rates(name: str, run: EpochPlan) -> list[float]:
    """Return the learning rate factors of all epochs."""
    return [SCHEDULES[name](epoch, run) for epoch in range(run.first, run.constant + run.decay + 1)]


def test_linear_ends_above_zero() -> None:
    assert rates("linear", EpochPlan(1, 3, 4, 50)) == pytest.approx([1, 1, 1, 0.8, 0.6, 0.4, 0.2])
    assert rates("linear", EpochPlan(1, 200, 200, 50))[-1] == pytest.approx(1 / 201)
    assert rates("linear", EpochPlan(5, 3, 4, 50)) == pytest.approx([0.6, 0.4, 0.2])
    assert rates("linear", EpochPlan(1, 3, 0, 50)) == [1, 1, 1]


def test_step_takes_a_tenth_per_stair() -> None:
    assert rates("step", EpochPlan(1, 4, 3, 3)) == pytest.approx([1, 1, 1, 0.1, 0.1, 0.1, 0.01])


def test_cosine_falls_once_over_the_whole_run() -> None:
    factors = rates("cosine", EpochPlan(1, 3, 5, 50))
    assert factors == sorted(factors, reverse=True)
    assert len(set(factors)) == 8
    assert (factors[0], factors[4]) == (1, pytest.approx(0.5))
    assert 0 < factors[-1] < 0.05


def test_cosine_as_published_climbs_back() -> None:
    factors = rates("cosine", EpochPlan(1, 4, 5, 50, cosine_restarts=True))
    assert factors[::2] == pytest.approx([1, 0.5, 0, 0.5, 1])


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_can_be_chosen_starts_at_the_full_rate_and_stays_between(name: str) -> None:
    assert TrainOptions().parse(["--lr_policy", name]).lr_policy == name
    for run in (EpochPlan(1, 5, 5, 2), EpochPlan(1, 1, 0, 1), EpochPlan(1, 5, 5, 2, cosine_restarts=True)):
        assert rates(name, run)[0] == 1
        assert all(0 <= factor <= 1 and math.isfinite(factor) for factor in rates(name, run))
    assert rates(name, EpochPlan(1, 0, 0, 1)) == []
    assert math.isfinite(SCHEDULES[name](1, EpochPlan(1, 0, 0, 1, cosine_restarts=True)))  # the scheduler asks all the same


def images(first: int, count: int) -> torch.Tensor:
    """(count, 1, 1, 1) images that can be told apart: first, first + 1 …"""
    return torch.arange(first, first + count, dtype=torch.float32).reshape(-1, 1, 1, 1)


def pool(size: int, seed: int = 0) -> ImagePool:
    return ImagePool(size, torch.Generator().manual_seed(seed))


def test_a_pool_of_nothing_keeps_nothing() -> None:
    empty = pool(0)
    assert torch.equal(empty.query(images(0, 3)), images(0, 3))
    assert empty.images == []


def test_a_pool_answers_with_what_it_is_asked_until_it_is_full() -> None:
    filling = pool(50)
    for first in range(0, 50, 5):
        assert torch.equal(filling.query(images(first, 5)), images(first, 5))
    assert [image.item() for image in filling.images] == list(range(50))


def test_a_full_pool_exchanges_half_of_the_images_and_loses_none() -> None:
    full = pool(50)
    full.query(images(0, 50))
    answers = full.query(images(50, 1000))
    assert answers.shape == (1000, 1, 1, 1)
    kept = [image.item() for image in full.images]
    assert sorted([*answers.flatten().tolist(), *kept]) == list(range(1050))
    older = (answers != images(50, 1000)).sum().item()
    assert 440 < older < 560  # about a half: four standard deviations
    assert len(kept) == 50


def test_every_place_of_a_pool_is_used() -> None:
    full = pool(10)
    full.query(images(0, 10))
    full.query(images(10, 400))
    assert min(image.item() for image in full.images) >= 10


def test_a_pool_follows_from_its_generator_alone() -> None:
    def answers(seed: int) -> list[float]:
        shown = pool(5, seed)
        return torch.cat([shown.query(images(first, 4)) for first in range(0, 80, 4)]).flatten().tolist()

    torch.manual_seed(0)
    before = torch.get_rng_state()
    assert answers(1) == answers(1) != answers(2)
    assert torch.equal(torch.get_rng_state(), before)
