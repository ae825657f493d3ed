"""What a model is: networks, their optimizers, one training step, and what there is to show of it."""

from abc import ABC, abstractmethod
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.losses.gradient_penalty import wgan_gp_penalty
from models.lr_schedules import EpochPlan, LRScheduler
from models.machinery import configure_backend, make_optimizer, wrap_network, wrap_step
from models.networks.base import Generator
from models.performance import resolve_performance_config
from models.training_step import SingleBatch
from util.errors import ImageSizeError, UserError, is_out_of_memory
from util.runtime.checkpoint import Checkpointer, OptimizerState, Stateful
from util.runtime.cuda_graph import Inputs, Outputs
from util.runtime.device import select_device
from util.runtime.distributed import all_reduce_mean
from util.runtime.ema import SUFFIX, Averages, ModelEMA, NoEMA
from util.runtime.rng import StepRNG, step_seed

# Pixels; in the midst of a network PyTorch may refuse to pad, or to normalize, what smaller images have become there.
MIN_SAFE_SIZE = 16


class BaseModel(ABC):
    """A method: it owns its networks and knows how one step of its training goes.

    A subclass fills `networks` (and, for training, `optimizers`) in its constructor, and implements `forward` and, unless
    it is for testing alone, `training_step`. Images are (N, C, H, W) tensors in [-1, 1].
    """

    #: Attributes that hold an image, in the order they are shown.
    visual_names: tuple[str, ...]
    #: The losses that a step leaves in `losses`, in the order they are reported.
    loss_names: tuple[str, ...]

    def __init__(self, opt: Namespace) -> None:
        self.opt = opt
        self.is_train: bool = opt.isTrain
        self.device = select_device(opt.gpu_ids)
        self.speed = resolve_performance_config(opt, self.device)
        configure_backend(self.device, self.speed)
        #: Source of every random sample of a step.
        self.rng = StepRNG(self.device, opt.seed)

        self.networks: dict[str, nn.Module] = {}
        #: Moving averages of the generators, saved beside them.
        self.averages: Averages = NoEMA()
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        #: What a run that goes on needs besides the weights. Whoever remembers something from step to step adds it.
        self.stateful: dict[str, Stateful] = {}
        if self.is_train:
            run = EpochPlan(opt.epoch_count, opt.n_epochs, opt.n_epochs_decay, opt.lr_decay_iters, opt.published_cosine)
            self.rate = LRScheduler(opt.lr, opt.lr_policy, run)
            self.stateful["learning_rate"] = self.rate

        #: How a step is computed from its images: as it is written, or by machinery with the same result.
        self.step_executor: Callable[[Inputs], Outputs] = self.compute_step
        self.accumulation = SingleBatch(self)
        wrap_step(self)
        self.steps_done = 0
        #: Whether the last step was completed: in its midst D may have moved and G not.
        self.is_between_steps = True

        self.losses: dict[str, Tensor] = {}
        self.image_paths: list[str] = []
        self.real_A: Tensor
        self.real_B: Tensor

    @staticmethod
    def modify_commandline_options(parser: ArgumentParser, is_train: bool) -> ArgumentParser:
        """Declares the model's own options and sets its defaults for the shared ones."""
        return parser

    @staticmethod
    def dependent_defaults(opt: Namespace) -> Mapping[str, Any]:
        """Defaults that follow from the value of another option, such as FastCUT's from --CUT_mode."""
        return {}

    def add_network(self, name: str, network: nn.Module, in_bf16: bool = True) -> nn.Module:
        """Takes the network into `networks`, on the model's device; noise that it injects follows from the seed.

        Returns what a training step shall call in its place. With --precision bf16 that computes in bfloat16, unless
        `in_bf16` is False.
        """
        if isinstance(network, Generator):
            network.set_rng(self.rng.device_rng)
        self.networks[name] = network.to(self.device)
        return wrap_network(network, self.speed, in_bf16)

    def add_optimizer(self, name: str, parameters: Iterable[nn.Parameter], beta2: float | None = None) -> None:
        """An Adam with the options' rates, on the model's schedule; nothing where there is nothing to learn."""
        parameters = list(parameters)
        if not parameters:
            return
        betas = (self.opt.beta1, self.opt.beta2 if beta2 is None else beta2)
        optimizer = make_optimizer(parameters, self.opt.lr, betas, self.device, self.speed)
        self.rate.rule(optimizer)
        self.optimizers[name] = optimizer
        self.stateful[f"optimizer_{name}"] = OptimizerState(optimizer)

    def enable_ema(self, decay: float) -> None:
        """Keeps moving averages of the generators from the next step on."""
        averages = ModelEMA(self.generators, decay)
        self.averages = self.stateful["averages"] = averages

    @property
    def generators(self) -> dict[str, nn.Module]:
        """The networks that translate: G, or G_A from A to B and G_B back."""
        return {name: network for name, network in self.networks.items() if name.startswith("G")}

    def describe(self, layer_by_layer: bool) -> str:
        """The networks and their sizes, for people."""
        lines = []
        for name, network in self.networks.items():
            millions = sum(parameter.numel() for parameter in network.parameters()) / 1e6
            lines += [str(network)] if layer_by_layer else []
            lines.append(f"[Network {name}] Total number of parameters : {millions:.3f} M")
        return "\n".join(lines)

    def set_input(self, batch: Mapping[str, Any]) -> None:
        """Places a batch {"A", "B", "A_paths", "B_paths"} on the device; --direction BtoA swaps the domains.

        At test time the target domain may be missing.
        """
        source, target = ("A", "B") if self.opt.direction == "AtoB" else ("B", "A")
        self.real_A = self.to_device(batch[source])
        self.real_B = self.to_device(batch.get(target))
        self.image_paths = batch[f"{source}_paths"]

    def to_device(self, images: Any) -> Any:
        """The images on the model's device; None where there are none."""
        return None if images is None else images.to(self.device, non_blocking=True)

    def optimize_parameters(self) -> None:
        """One training step on the input that `set_input` placed.

        Its random draws follow from the seed and the number of steps before it alone.
        """
        self.is_between_steps = False
        self.step_seed = step_seed(self.opt.seed, self.steps_done)
        self.reseed(self.step_seed)
        outputs = self.step_executor({"real_A": self.real_A, "real_B": self.real_B})
        vars(self).update(outputs)
        if outputs:  # none where the batch waits for others of its step
            self.averages.update()
        self.steps_done += 1
        self.is_between_steps = True

    def reseed(self, seed: int) -> None:
        """What is drawn from here on follows from `seed`."""
        self.rng.reseed(seed)

    def compute_step(self, inputs: Inputs) -> Outputs:
        """A step on images {"real_A", "real_B"}, as the method has it: updates the networks, and returns the attributes
        that it leaves to be looked at."""
        vars(self).update(inputs)
        self.losses = {}
        self.training_step()
        return {"losses": self.losses, **self.get_current_visuals()}

    def training_step(self) -> None:
        """The method: what a step computes, and in which order it updates the networks."""
        raise NotImplementedError(f"{type(self).__name__} is for testing alone")

    @abstractmethod
    def forward(self) -> None:
        """Computes the outputs from the input that `set_input` placed."""

    def translate(self) -> None:
        """What a training step begins with: `forward`, for every batch that is part of it."""
        self.accumulation.translate()

    def optimize(self, loss: Callable[[], Tensor], *names: str, through: Sequence[nn.Module] = ()) -> None:
        """One step of the named optimizers down the gradient of `loss()`; the gradients stay for whoever looks.

        The networks in `through` pass the gradient on and learn nothing from it.
        """
        optimizers = [self.optimizers[name] for name in names if name in self.optimizers]
        for optimizer in optimizers:
            optimizer.zero_grad()
        for network in through:
            network.requires_grad_(False)
        self.accumulation.backward(loss, with_generator_grad="G" in names)
        for network in through:
            network.requires_grad_(True)
        for optimizer in optimizers:
            optimizer.step()

    def gradient_penalty(self, discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        """lambda_gp times WGAN-GP's penalty; zero for the other --gan_mode."""
        if self.opt.gan_mode != "wgangp" or self.opt.lambda_gp == 0:
            return real.new_zeros(())
        if real.shape != fake.shape:
            raise ImageSizeError("--lambda_gp needs real and translated images of one size: crop them to one")
        return wgan_gp_penalty(discriminator, real, fake, self.rng.device_rng) * self.opt.lambda_gp

    def update_learning_rate(self) -> None:
        """To be called at the end of every epoch."""
        self.rate.end_epoch()

    @property
    def learning_rate(self) -> float:
        """The rate that the next step is taken with."""
        return self.rate.value

    def get_current_losses(self) -> dict[str, float]:
        """The losses of the last step by their published names, for the whole batch; waits for the device once. Where
        several processes train together, each has to ask."""
        if not self.losses:
            return {}
        values = all_reduce_mean(torch.stack([self.losses[name].detach().float() for name in self.loss_names]))
        return dict(zip(self.loss_names, values.tolist(), strict=True))

    def get_current_visuals(self) -> dict[str, Tensor]:
        """The images of the last step by their published names, (N, C, H, W) in [-1, 1]."""
        images = {name: getattr(self, name, None) for name in self.visual_names}
        return {name: image.detach() for name, image in images.items() if image is not None}

    def visuals_for_display(self) -> dict[str, Tensor]:
        """As `get_current_visuals`, for people: what the step has mirrored is turned back."""
        return self.get_current_visuals()

    def test(self) -> None:
        """The outputs alone, without gradients. Raises UserError for images that the network cannot take."""
        try:
            with torch.inference_mode():
                self.forward()
        except ImageSizeError as error:
            raise UserError(f"{', '.join(self.image_paths)}: {error}") from None
        except (ValueError, RuntimeError) as error:
            height, width = self.real_A.shape[2:]
            if min(height, width) >= MIN_SAFE_SIZE or is_out_of_memory(error):
                raise
            raise UserError(f"{', '.join(self.image_paths)}: {width}x{height} pixels are too few ({error})") from None

    def eval(self) -> None:
        """Evaluation mode: running statistics for batch norm, no dropout. Published tests run without it."""
        for network in self.networks.values():
            network.eval()

    def save_networks(self, label: str, *names: str) -> None:
        """Writes `<label>_net_<name>.pth` for every network and average, or those named, into the run's folder; the main
        process alone does.

        Raises DivergedError and OSError as `save_run`.
        """
        networks = self.networks | self.averages.networks
        self._files().save_networks(label, {name: networks[name] for name in names or networks})

    def load_networks(self, label: str, run: str | None = None) -> None:
        """Reads what `save_networks` wrote, from another run's folder where `run` names one; safetensors of the same name
        where they lie there in its place. A test with --ema reads the generators' averages.

        Raises UserError where a file is missing or belongs to another architecture.
        """
        averaged = self.generators if not self.is_train and self.opt.ema else {}
        networks = {name + SUFFIX if name in averaged else name: network for name, network in self.networks.items()}
        self._files(run).load_networks(label, networks)

    def save_run(self, *labels: str) -> None:
        """Writes networks and averages under each label, as `save_networks` does, and what `resume` needs to go on.

        Raises DivergedError where a weight is not finite, and OSError where the files cannot be written; those of before
        are then as they were.
        """
        averages, kept = self.averages.networks, self.opt.keep_checkpoints
        self._files().save_run(labels, self.networks, averages, self.stateful, self.steps_done, kept)

    def resume(self) -> bool:
        """Goes on from where `save_run` was last called in the run's folder; False where it never was.

        Raises UserError where what it left is damaged, belongs to other networks, or is not what lies there under the same
        label.
        """
        steps_done = self._files().resume(self.networks, self.averages.networks, self.stateful)
        if steps_done is None:
            return False
        self.steps_done = steps_done
        return True

    def _files(self, run: str | None = None) -> Checkpointer:
        return Checkpointer(Path(self.opt.checkpoints_dir) / (run or self.opt.name))
