"""The computations that launch fewer kernels on a GPU, run on the CPU in float64: values and gradients do not change."""

import pytest
import torch
import torch.nn.functional as F
from conftest import OWN_GOLDEN, SHARED_GOLDEN
from golden_cases import Case, check_training_steps, find_cases
from gpu_paths import take_gpu_paths
from tiny_models import CUT, CYCLE_GAN, SINCUT, assert_same, count_passes, double_model, take_step
from torch import Tensor, nn

from models.networks import layers, patch_sampler
from models.networks.layers import InstanceNorm, conv_before_norm, fused_layers
from models.networks.padding import ReflectionPad, pad_with_skip
from models.networks.patch_sampler import gather_positions, largest_ids, sample_patch_ids_at_once
from models.networks.resnet import ResnetBlock
from models.networks.winograd import Conv3x3
from models.performance import fill_missing_gradients

STEPS = [case for case in find_cases([OWN_GOLDEN, SHARED_GOLDEN]) if case.info["kind"] == "training_steps"]


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    take_gpu_paths(monkeypatch)


def random_tensor(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.usefixtures("size_of_maps")
@pytest.mark.parametrize("case", STEPS, ids=[case.name for case in STEPS])
def test_golden_training_steps(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    check_training_steps(case, monkeypatch)


@pytest.mark.parametrize(
    "command",
    [
        f"{CUT} --num_patches 300",  # more than some layers have positions
        f"{CUT} --netF sample",
        f"{CUT} --netF reshape",
        f"{CUT} --nce_includes_all_negatives_from_minibatch true",
        f"{CUT} --gan_mode wgangp --lambda_gp 1",
        f"{CUT} --nce_layers 1,4,5,9",
        f"{CUT} --channels_last",
        f"{CUT} --grad_checkpoint",
        f"{CUT} --normG batch",
        CYCLE_GAN,
        SINCUT,
        f"{SINCUT} --num_patches 3",
    ],
)
def test_steps_equal_those_of_the_cpu(command: str, request: pytest.FixtureRequest) -> None:
    plain = double_model(command)
    take_step(plain, 2)
    request.getfixturevalue("as_on_a_gpu")
    model = double_model(command)
    take_step(model, 2)
    assert_same(model, plain)


def test_sincut_encodes_the_patches_of_both_outputs_at_once(request: pytest.FixtureRequest) -> None:
    passes = {}
    for path in ("cpu", "gpu"):
        if path == "gpu":
            request.getfixturevalue("as_on_a_gpu")
        model = double_model(SINCUT)
        counted = count_passes(model)
        take_step(model, 2)
        passes[path] = counted["F"]
    assert passes == {"cpu": 4, "gpu": 1}


@pytest.fixture(params=["one_kernel", "two_kernels"])
def size_of_maps(request: pytest.FixtureRequest, as_on_a_gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Normalize feature maps of any size as small or as large ones."""
    monkeypatch.setattr(layers, "MAX_LAYER_NORM_SIZE", 0 if request.param == "two_kernels" else 2**14)


@pytest.mark.usefixtures("size_of_maps")
class TestInstanceNorm:
    def test_equals_pytorch_and_can_be_differentiated_twice(self) -> None:
        image = (random_tensor(2, 3, 4, 5) * 4 + 2).requires_grad_()
        torch.testing.assert_close(InstanceNorm(3)(image), F.instance_norm(image))
        assert torch.autograd.gradcheck(InstanceNorm(3), image)
        assert torch.autograd.gradgradcheck(InstanceNorm(3), image)

    def test_output_can_be_overwritten(self) -> None:
        """A view would be copied by the in-place layer behind the norm."""
        image = random_tensor(2, 3, 4, 5).requires_grad_()
        output = InstanceNorm(3)(image)
        assert not output._is_view()
        torch.testing.assert_close(F.leaky_relu(output, 0.2, inplace=True), F.leaky_relu(F.instance_norm(image), 0.2))


@pytest.mark.usefixtures("size_of_maps")
@pytest.mark.parametrize("padding", [1, 2])
def test_norm_relu_and_padding_in_one_equal_the_layers(padding: int) -> None:
    separate = nn.Sequential(InstanceNorm(3), nn.ReLU(), ReflectionPad(padding))
    ((index, fused),) = fused_layers(separate, range(3))
    image = random_tensor(2, 3, 6, 5).requires_grad_()
    results = [fused(image), F.pad(F.relu(F.instance_norm(image)), (padding,) * 4, mode="reflect")]
    weight = random_tensor(*results[0].shape, seed=1)
    gradients = [torch.autograd.grad((result * weight).sum(), image)[0] for result in results]
    assert index == 2
    assert type(results[0].grad_fn).__name__ == "_GPUNormReLUPadBackward"
    torch.testing.assert_close(*results)
    torch.testing.assert_close(*gradients)


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("padding", [1, 2])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_padding_with_a_skip_connection(padding: int, memory_format: torch.memory_format) -> None:
    image = random_tensor(2, 3, 6, 5).contiguous(memory_format=memory_format).requires_grad_()
    pairs = [pad_with_skip(ReflectionPad(padding), image), (F.pad(image, (padding,) * 4, mode="reflect"), image)]
    kernel = random_tensor(3, 3, 2 * padding + 1, 2 * padding + 1, seed=2)
    sums = [F.conv2d(padded, kernel).sin() + skipped for padded, skipped in pairs]
    weight = random_tensor(*image.shape, seed=1)
    gradients = [torch.autograd.grad((total * weight).sum(), image)[0] for total in sums]
    assert type(pairs[0][0].grad_fn).__name__ == "_GPUPadWithSkipBackward"
    torch.testing.assert_close(*sums)
    torch.testing.assert_close(*gradients)


@pytest.mark.usefixtures("as_on_a_gpu")
def test_deterministic_runs_do_not_add_in_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    padded, _ = pad_with_skip(ReflectionPad(1), random_tensor(1, 2, 4, 4).requires_grad_())
    assert type(padded.grad_fn).__name__ == "ReflectBackward"


@pytest.mark.usefixtures("as_on_a_gpu")
class TestGradientsOfBlocks:
    """Others may hold the gradient of a block's output."""

    def test_can_be_read_at_several_blocks(self) -> None:
        generator = double_model(CUT).networks["G"]
        image = random_tensor(1, 3, 16, 16).requires_grad_()
        output, features = generator(image, [11, 12, 13, 14])
        loss = (output * random_tensor(*output.shape, seed=1)).sum()
        together = torch.autograd.grad(loss, [image, *features], retain_graph=True)
        one_by_one = [torch.autograd.grad(loss, tensor, retain_graph=True)[0] for tensor in (image, *features)]
        torch.testing.assert_close(together, tuple(one_by_one))

    def test_can_be_shared_by_two_blocks(self) -> None:
        first, second = (ResnetBlock(3, "instance", dropout=False).double() for _ in range(2))
        images = [random_tensor(2, 3, 6, 5, seed=seed).requires_grad_() for seed in range(2)]
        weight = random_tensor(2, 3, 6, 5, seed=2)
        together = torch.autograd.grad(((first(images[0]) + second(images[1])) * weight).sum(), images)
        alone = [
            torch.autograd.grad((block(image) * weight).sum(), image)[0]
            for block, image in zip((first, second), images, strict=True)
        ]
        torch.testing.assert_close(together, tuple(alone))


@pytest.mark.usefixtures("as_on_a_gpu")
class TestUnusedBiases:
    def test_are_not_added(self) -> None:
        conv, image = Conv3x3(2, 2, bias=True).double(), random_tensor(1, 2, 6, 6)
        torch.testing.assert_close(conv_before_norm(conv, image), F.conv2d(image, conv.weight))

    def test_have_zero_gradients_and_keep_their_value(self) -> None:
        model = double_model(CUT)
        before = {key: value.clone() for key, value in model.networks["G"].state_dict().items()}
        take_step(model)
        bias = model.networks["G"].model[1].bias
        assert torch.equal(bias.grad, torch.zeros_like(bias))
        assert torch.equal(bias, before["model.1.bias"])

    def test_are_added_if_patchnce_reads_the_convolution(self) -> None:
        model = double_model(f"{CUT} --nce_layers 1,4")
        take_step(model)
        assert model.networks["G"].model[1].bias.grad.any()


def test_missing_gradients_are_filled_with_the_same_zeros() -> None:
    parameters = [nn.Parameter(torch.ones(2)) for _ in range(2)]
    optimizer = torch.optim.Adam(parameters)
    fill_missing_gradients(optimizer)
    memory = set()
    for _ in range(2):
        optimizer.zero_grad()
        parameters[0].sum().backward()
        optimizer.step()
        memory.add(parameters[1].grad.data_ptr())
    assert len(memory) == 1
    assert torch.equal(parameters[1], torch.ones(2))


class TestPatchIds:
    @pytest.mark.parametrize("chunk", [64, 11])
    def test_are_distinct_and_cover_the_map(self, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(patch_sampler, "TOPK_CHUNK", chunk)
        rng = torch.Generator().manual_seed(0)
        seen: list[set[int]] = [set(), set(), set()]
        for _ in range(60):
            sampled = sample_patch_ids_at_once([64, 20, 5], 8, 2, rng)
            assert [ids.shape for ids in sampled] == [(2, 8), (2, 8), (2, 5)]
            for values, ids in zip(seen, sampled, strict=True):
                assert all(len(set(row)) == len(row) for row in ids.tolist())
                values.update(ids.flatten().tolist())
        assert seen == [set(range(64)), set(range(20)), set(range(5))]

    def test_are_those_of_the_largest_keys(self) -> None:
        keys = torch.randperm(2 * 3 * 40, generator=torch.Generator().manual_seed(0)).view(2, 3, 5, 8)
        found, expected = largest_ids(keys, 12), keys.flatten(2).topk(12).indices
        assert torch.equal(found.sort().values, expected.sort().values)

    def test_differ_between_sources_and_layers(self) -> None:
        first, second = sample_patch_ids_at_once([4096, 4096], 16, 2, torch.Generator().manual_seed(0))
        assert len({tuple(sorted(row)) for row in (*first.tolist(), *second.tolist())}) == 4


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_patches_of_several_sources_are_gathered_in_their_memory_format(memory_format: torch.memory_format) -> None:
    features = random_tensor(4, 3, 5, 6).contiguous(memory_format=memory_format).requires_grad_()
    ids = torch.tensor([[0, 7], [29, 3]])
    found = gather_positions(features, ids)
    expected = torch.cat([part.flatten(2)[:, :, row] for part, row in zip(features.chunk(2), ids, strict=True)])
    torch.testing.assert_close(found, expected)
    weight = random_tensor(*found.shape, seed=1)
    gradients = [torch.autograd.grad((patches * weight).sum(), features)[0] for patches in (found, expected)]
    torch.testing.assert_close(*gradients)
    assert gradients[0].is_contiguous(memory_format=memory_format)
