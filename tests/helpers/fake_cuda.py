"""Training steps on PyTorch's fake CUDA tensors, which have shape, strides and device but no values. No GPU is needed.

`fake_gpu` lets the project's own models be built and trained in its body. `StepCheck` fails if a step mixes devices, copies
tensors between CPU and GPU, or waits for the GPU, and counts the kernels it launches. Requires a CUDA build of PyTorch.
"""

import copy
import ctypes
import functools
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from models.networks import padding, patch_sampler, winograd
from models.networks.resampling import Resampler
from models.networks.winograd import Conv3x3

GPU = torch.device("cuda", 0)
Adam = torch.optim.Adam

# The program waits for the GPU, because a result or its size depends on values.
WAITS = {
    "_local_scalar_dense",
    "is_nonzero",
    "nonzero",
    "masked_select",
    "equal",
    "unique",
    "_unique2",
    "unique_dim",
    "item",
}
COPIES = {"_to_copy", "copy_", "lift_fresh"}
# Views and allocations, which launch no kernel.
WITHOUT_KERNEL = {
    *(
        "view",
        "_unsafe_view",
        "reshape",
        "_reshape_alias",
        "t",
        "transpose",
        "permute",
        "expand",
        "slice",
        "select",
        "split",
    ),
    *("split_with_sizes", "chunk", "unbind", "squeeze", "unsqueeze", "detach", "alias", "as_strided", "narrow", "unfold"),
    *("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "lift_fresh", "diagonal", "view_as_real"),
    *("device", "is_same_size", "_has_compatible_shallow_copy_type", "sym_size", "resize_", "set_", "_version"),
}

# Operations that launch more than one kernel: work on two gradients, a fill before an addition, a mean after its terms.
SEVERAL_KERNELS = {
    "convolution_backward": 2,
    "mse_loss": 2,
    "native_batch_norm": 3,
    "reflection_pad2d_backward": 2,
    "replication_pad2d_backward": 2,
}


# Operations whose results PyTorch cannot predict for fake tensors.
shapes_of_results = torch.library.Library("aten", "IMPL", "Meta")


def norm_stats(features: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return tensors like the mean and 1 / standard deviation of every channel."""
    dtype = torch.promote_types(features.dtype, torch.float32)
    return features.new_empty(features.shape[1], dtype=dtype), features.new_empty(features.shape[1], dtype=dtype)


shapes_of_results.impl("batch_norm_stats", norm_stats)
shapes_of_results.impl("batch_norm_elemt.out", lambda *_, out: out)


class GPUError(Exception):
    """An operation that fails on a GPU, or lets the program wait for it."""


class FakeGenerator(torch.Generator):
    """A generator that reports the device it was asked for."""

    devices: ClassVar[dict[int, torch.device]] = {}  # by address: an operation gets another object for the same generator

    def __new__(cls, device: Any = "cpu") -> "FakeGenerator":
        generator = super().__new__(cls)
        cls.devices[generator._cdata] = torch.device(device)
        return generator

    @property
    def device(self) -> torch.device:
        return self.devices[self._cdata]

    def __deepcopy__(self, memo: Any) -> "FakeGenerator":
        return self


class StepCheck(TorchDispatchMode):
    """Count the operations of a step on the GPU and their kernels, and raise GPUError for one that mixes devices or waits.

    While `placing_input` is True, images may be copied to the GPU, but not from pageable memory.
    """

    def __init__(self) -> None:
        super().__init__()
        self.placing_input = False
        self.counts: Counter[str] = Counter()

    @property
    def launches(self) -> int:
        """The number of kernels that the operations launch, as far as their names tell."""
        launching = {name: count for name, count in self.counts.items() if name not in WITHOUT_KERNEL}
        return sum(count * SEVERAL_KERNELS.get(name, 1) for name, count in launching.items())

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = function._schema.name.partition("::")[2]
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if name.rstrip("_") in WAITS and any(tensor.is_cuda for tensor in given):
            raise GPUError(f"{name} waits for the GPU")
        args = tuple(self._check_generator(name, arg, given, kwargs) for arg in args)
        if "generator" in kwargs:
            kwargs["generator"] = self._check_generator(name, kwargs["generator"], given, kwargs)
        if name == "_fused_adam_" and isinstance(kwargs.get("lr"), Tensor):
            self.counts[name] += 1
            return None  # in place; PyTorch has no fake implementation for a learning rate in a tensor

        result = function(*args, **kwargs)
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        devices = {tensor.device.type for tensor in (*given, *made)}
        if {"cpu", "cuda"} <= devices:
            self._check_mixed(name, given, made, non_blocking=bool(kwargs.get("non_blocking") or True in args[2:]))
        if "cuda" in devices:
            self.counts[name] += 1
        return result

    def _check_mixed(self, name: str, given: list[Tensor], made: list[Tensor], non_blocking: bool) -> None:
        if self.placing_input and name in COPIES:
            if not non_blocking and all(tensor.is_cuda for tensor in made):
                raise GPUError(f"{name}: images are copied to the GPU while the program waits")
            return
        scalars = all(tensor.is_cuda or tensor.dim() == 0 for tensor in given)
        if name in COPIES or not scalars or not all(tensor.is_cuda for tensor in made):
            raise GPUError(f"{name} mixes the CPU and the GPU: {[tuple(tensor.shape) for tensor in given]}")

    def _check_generator(self, name: str, value: Any, given: list[Tensor], kwargs: dict[str, Any]) -> Any:
        """Raise GPUError if `value` is a generator of another device; return None for a generator."""
        if not isinstance(value, torch.Generator):
            return value
        wanted = torch.device(kwargs.get("device") or (given[0].device if given else "cpu"))
        device = FakeGenerator.devices.get(value._cdata, value.device)
        if wanted.type != device.type:
            raise GPUError(f"{name} samples on {wanted.type} from a generator on {device.type}")
        return None


class RealCPUSamples(TorchFunctionMode):
    """Return numbers for samples on the CPU, because the branches of a step depend on them."""

    def __init__(self) -> None:
        super().__init__()
        self.rng = random.Random(0)

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        generator = (kwargs or {}).get("generator")
        if function in (torch.rand, torch.randint) and generator is not None and generator.device.type == "cpu":
            return self.rng.random() if function is torch.rand else self.rng.randrange(args[0])
        return function(*args, **(kwargs or {}))


class EagerBackend:
    """Replace CUDA graphs: a replay computes the step again."""

    def __init__(self, *_: Any) -> None: ...

    def warm_up(self, step: Callable[[], Any]) -> Any:
        return step()

    def capture(self, step: Callable[[], Any]) -> Callable[[], Any]:
        return step


def make_adam(parameters: Any, lr: Any, **settings: Any) -> torch.optim.Optimizer:
    """Create Adam, whose constructor would read the learning rate from a tensor."""
    optimizer = Adam(parameters, lr=1.0, **settings)
    for group in optimizer.param_groups:
        group["lr"] = lr
    return optimizer


def copy_network(network: nn.Module) -> nn.Module:
    """Copy a network of fake tensors, which `copy.deepcopy` cannot copy."""
    memo: dict[int, Any] = {id(buffer): buffer.clone() for buffer in network.buffers()}
    memo |= {id(p): nn.Parameter(p.detach().clone(), p.requires_grad) for p in network.parameters()}
    return copy.deepcopy(network, memo)


def move_network(network: nn.Module, device: torch.device) -> nn.Module:
    """Replace `Module.to`, which swaps tensors in place: fake tensors do not allow it."""
    for module in network.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = nn.Parameter(parameter.detach().to(device), parameter.requires_grad)
        for name, buffer in module._buffers.items():
            module._buffers[name] = buffer if buffer is None else buffer.to(device)
    return network


def refuse_on_gpu(what: str, is_used: Callable[..., bool] = lambda *_: True) -> Callable[..., Any]:
    """Return a method that raises GPUError if `is_used` returns True for a tensor on the GPU."""

    def method(layer: nn.Module, *arguments: Any) -> bool:
        used = is_used(layer, *arguments)
        if used and any(not isinstance(argument, Tensor) or argument.is_cuda for argument in arguments):
            raise GPUError(f"{what}: a layer for the CPU runs on the GPU")
        return used

    return method


@contextmanager
def fake_gpu() -> Iterator[None]:
    """Build and train models on a fake GPU in the body."""
    allow_backward_without_driver()
    with pytest.MonkeyPatch.context() as patch, torch.backends.cudnn.flags():
        patch.setattr(nn.Module, "to", move_network)
        patch.setattr("models.base_model.select_device", lambda gpu_ids: GPU)
        patch.setattr("models.networks.factory.dry_build_on_meta", lambda *_: lambda image: None)
        patch.setattr("models.training_step.CUDAGraphBackend", EagerBackend)
        patch.setattr("util.runtime.ema.copy", SimpleNamespace(deepcopy=copy_network))
        patch.setattr(torch, "Generator", FakeGenerator)
        patch.setattr(torch.optim, "Adam", make_adam)
        patch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
        patch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
        patch.setattr(Resampler, "_as_matrix", refuse_on_gpu("blur by matrix products"))
        patch.setattr(Conv3x3, "_can_use_winograd", refuse_on_gpu("Winograd convolution", Conv3x3._can_use_winograd))
        for module, name in ((padding, "_source_positions"), (patch_sampler, "_integers")):
            patch.setattr(module, name, functools.cache(getattr(module, name).__wrapped__))  # no fake tensor outlives this
        patch.setattr(winograd, "MIN_CHANNELS", 1)
        patch.setattr(winograd, "MIN_TILES", 1)
        with RealCPUSamples(), FakeTensorMode(), torch.autograd.set_multithreading_enabled(False):
            yield


_replaced_hooks: list[Any] = []  # objects that PyTorch refers to from now on


def allow_backward_without_driver() -> None:
    """Replace the C++ hook by which the autograd engine asks if a GPU has a context: it fails without a driver.

    FakeTensorMode pretends that there is a GPU. The table of virtual functions is that of PyTorch 2.11 to 2.14; the test is
    skipped for another one.
    """
    if _replaced_hooks:
        return
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
    get_hooks = library._ZN2at6detail12getCUDAHooksEv
    get_hooks.restype = ctypes.c_void_p
    hooks = get_hooks()
    table = ctypes.c_void_p.from_address(hooks).value or 0
    entries = (ctypes.c_void_p * 82)(*(ctypes.c_void_p * 82).from_address(table - 16))  # type information first
    predicate = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p)
    found = tuple(predicate(entries[slot])(hooks) for slot in (4, 5))
    if found != (torch.backends.cuda.is_built(), torch.cuda.is_available()):
        pytest.skip(f"the CUDA hooks of PyTorch {torch.__version__} have an unknown layout")
    has_context = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p, ctypes.c_int8)(lambda this, device: False)
    entries[6] = ctypes.cast(has_context, ctypes.c_void_p).value
    ctypes.c_void_p.from_address(hooks).value = ctypes.addressof(entries) + 16
    _replaced_hooks.extend((entries, has_context))
