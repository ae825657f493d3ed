"""What a model is: networks, their optimisers, one training step, and what there is to show of it."""

from abc import ABC, abstractmethod
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.accumulation import OneBatch, SeveralBatches
from models.losses.gradient_penalty import wgan_gp_penalty
from models.networks.stylegan2_generator import StyleGAN2Generator
from models.networks.stylegan2_upsampling import NoiseInjection
from models.networks.taps import TappedGenerator
from models.schedules import Epochs, LearningRate
from models.speed import chosen_speed
from util.errors import PictureSizeError, UserError
from util.runtime.checkpoints import (
    holds,
    is_unfinished,
    load_plain_state,
    load_weights,
    old_checkpoints,
    plain_state,
    write_files,
)
from util.runtime.device import choose_device
from util.runtime.distributed import is_main, mean_over_processes, parallel
from util.runtime.draws import Draws, KeptDraws
from util.runtime.ema import SUFFIX, Averages, NoAverages, WeightAverages
from util.runtime.host_memory import keep_freed_memory
from util.runtime.loss_watch import check_weights
from util.runtime.network_calls import HowToCompute, allow_tf32, as_called
from util.runtime.recorded_steps import CudaGraphs, Inputs, Outputs, RecordedSteps
from util.runtime.run_state import (
    FILE_NAME,
    Moments,
    Stateful,
    file_label,
    not_this_runs,
    read_run_state,
    whole_number,
)
from util.runtime.safetensors_file import SAFETENSORS, read_safetensors
from util.runtime.seeding import step_seed

MAY_BEGIN_LATER = ("accumulation", "averages", "evaluation")  # what a run may be asked for only when it goes on


class BaseModel(ABC):
    """A method: it owns its networks and knows how one step of its training goes.

    A subclass fills `networks` (and, for training, `optimizers`) in its constructor, and implements `forward` and, unless
    it is for testing alone, `training_step`. Pictures are (N, C, H, W) tensors in [-1, 1].
    """

    #: Attributes that hold a picture, in the order they are shown.
    visual_names: tuple[str, ...]
    #: The losses that a step leaves in `losses`, in the order they are reported.
    loss_names: tuple[str, ...]

    def __init__(self, opt: Namespace) -> None:
        self.opt = opt
        self.is_train: bool = opt.isTrain
        self.device = choose_device(opt.gpu_ids)
        if self.device.type == "cpu":
            keep_freed_memory()
        #: Every random draw of a step comes from here, or from `host_generator` where the program itself needs the outcome.
        self.generator = torch.Generator(self.device).manual_seed(opt.seed)
        self.host_generator = torch.Generator().manual_seed(opt.seed)
        self.draws = Draws(self.generator, self.host_generator)
        self.accumulation = OneBatch(self)
        #: How a step is computed from its pictures: as it is written, or by machinery with the same result.
        self.run_step: Callable[[Inputs], Outputs] = self.compute_step
        self.speed = chosen_speed(opt, self.device)
        self.networks: dict[str, nn.Module] = {}
        #: Moving averages of the generators, saved beside them.
        self.averages: Averages = NoAverages()
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        #: What a run that goes on needs besides the weights. Whoever remembers something from step to step adds it.
        self.stateful: dict[str, Stateful] = {}
        self.steps_done = 0
        #: Whether the last step was completed: in its midst D may have moved and G not.
        self.is_between_steps = True
        if self.is_train:
            run = Epochs(opt.epoch_count, opt.n_epochs, opt.n_epochs_decay, opt.lr_decay_iters, opt.published_cosine)
            self.rate = LearningRate(opt.lr, opt.lr_policy, run)
            self.stateful["learning_rate"] = self.rate
        self._set_up_speed()
        self.losses: dict[str, Tensor] = {}
        self.image_paths: list[str] = []
        self.real_A: Tensor
        self.real_B: Tensor

    @staticmethod
    def modify_commandline_options(parser: ArgumentParser, is_train: bool) -> ArgumentParser:
        """Declares the model's own options and sets its defaults for the shared ones."""
        return parser

    @staticmethod
    def mode_defaults(opt: Namespace) -> Mapping[str, Any]:
        """Defaults that follow from the value of another option, such as FastCUT's from --CUT_mode."""
        return {}

    @abstractmethod
    def forward(self) -> None:
        """Computes the outputs from the input that `set_input` placed."""

    def optimize_parameters(self) -> None:
        """One training step on the input that `set_input` placed.

        Its random draws follow from the seed and the number of steps before it alone.
        """
        self.is_between_steps = False
        self.step_seed = step_seed(self.opt.seed, self.steps_done)
        self.seed_draws(self.step_seed)
        outputs = self.run_step({"real_A": self.real_A, "real_B": self.real_B})
        vars(self).update(outputs)
        if outputs:  # none where the batch waits for others of its step
            self.averages.update()
        self.steps_done += 1
        self.is_between_steps = True

    def seed_draws(self, seed: int) -> None:
        """What is drawn from here on follows from `seed`."""
        self.generator.manual_seed(seed)
        self.host_generator.manual_seed(seed)

    def compute_step(self, inputs: Inputs) -> Outputs:
        """A step on pictures {"real_A", "real_B"}, as the method has it: updates the networks, and returns the attributes
        that it leaves to be looked at."""
        vars(self).update(inputs)
        self.losses = {}
        self.training_step()
        return {"losses": self.losses, **self.get_current_visuals()}

    def training_step(self) -> None:
        """The method: what a step computes, and in which order it updates the networks."""
        raise NotImplementedError(f"{type(self).__name__} is for testing alone")

    @property
    def generators(self) -> dict[str, nn.Module]:
        """The networks that translate: G, or G_A from A to B and G_B back."""
        return {name: network for name, network in self.networks.items() if name.startswith("G")}

    def keep_averages(self, decay: float) -> None:
        """Keeps moving averages of the generators from the next step on."""
        averages = WeightAverages(self.generators, decay)
        self.averages = self.stateful["averages"] = averages

    def set_input(self, batch: Mapping[str, Any]) -> None:
        """Places a batch {"A", "B", "A_paths", "B_paths"} on the device; --direction BtoA swaps the domains.

        At test time the target domain may be missing.
        """
        source, target = ("A", "B") if self.opt.direction == "AtoB" else ("B", "A")
        self.real_A = self.placed(batch[source])
        self.real_B = self.placed(batch.get(target))
        self.image_paths = batch[f"{source}_paths"]

    def placed(self, images: Any) -> Any:
        """The pictures on the model's device; None where there are none."""
        return None if images is None else images.to(self.device, non_blocking=True)

    def test(self) -> None:
        """The outputs alone, without gradients. Raises UserError for pictures that the network cannot take."""
        try:
            with torch.inference_mode():
                self.forward()
        except ValueError as error:
            raise UserError(f"{', '.join(self.image_paths)}: {error}") from None

    def eval(self) -> None:
        """Evaluation mode: running statistics for batch norm, no dropout. Published tests run without it."""
        for network in self.networks.values():
            network.eval()

    def check_batch_at_test(self, batch_size: int) -> None:
        """Raises UserError where a test of `batch_size` pictures at a time would not give each what it gets alone."""
        layers = [layer for network in self.networks.values() for layer in network.modules()] if batch_size > 1 else []
        for layer in layers:
            if (isinstance(layer, (nn.BatchNorm2d, nn.Dropout)) and layer.training) or isinstance(layer, NoiseInjection):
                raise UserError(
                    f"--batch_size {batch_size}: this generator has a {type(layer).__name__}, so that what becomes of a "
                    "picture depends on the others of its batch; leave out --batch_size"
                )

    def gradient_penalty(self, discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        """lambda_gp times WGAN-GP's penalty; zero for the other --gan_mode."""
        if self.opt.gan_mode != "wgangp" or self.opt.lambda_gp == 0:
            return real.new_zeros(())
        if real.shape != fake.shape:
            raise PictureSizeError("--lambda_gp needs real and translated pictures of one size: crop them to one")
        return wgan_gp_penalty(discriminator, real, fake, self.generator) * self.opt.lambda_gp

    def translate(self) -> None:
        """What a training step begins with: `forward`, for every batch that is part of it."""
        self.accumulation.translate()

    def minimise(self, loss: Callable[[], Tensor], *names: str, through: Sequence[nn.Module] = ()) -> None:
        """One step of the named optimisers down the gradient of `loss()`; the gradients stay for whoever looks.

        The networks in `through` pass the gradient on and learn nothing from it.
        """
        optimizers = [self.optimizers[name] for name in names if name in self.optimizers]
        for optimizer in optimizers:
            optimizer.zero_grad()
        for network in through:
            network.requires_grad_(False)
        self.accumulation.backward(loss, through_translations="G" in names)
        for network in through:
            network.requires_grad_(True)
        for optimizer in optimizers:
            optimizer.step()

    def get_current_losses(self) -> dict[str, float]:
        """The losses of the last step by their published names, for the whole batch; waits for the device once. Where
        several processes train together, each has to ask."""
        if not self.losses:
            return {}
        values = mean_over_processes(torch.stack([self.losses[name].detach().float() for name in self.loss_names]))
        return dict(zip(self.loss_names, values.tolist(), strict=True))

    def get_current_visuals(self) -> dict[str, Tensor]:
        """The pictures of the last step by their published names, (N, C, H, W) in [-1, 1]."""
        images = {name: getattr(self, name, None) for name in self.visual_names}
        return {name: image.detach() for name, image in images.items() if image is not None}

    def upright_visuals(self) -> dict[str, Tensor]:
        """As `get_current_visuals`, for people: what the step has mirrored is turned back."""
        return self.get_current_visuals()

    def update_learning_rate(self) -> None:
        """To be called at the end of every epoch."""
        self.rate.epoch += 1
        self.rate.set_in(self.optimizers.values())

    @property
    def learning_rate(self) -> float:
        """The rate that the next step is taken with."""
        return self.rate.value

    def save_networks(self, label: str, *names: str) -> None:
        """Writes `<label>_net_<name>.pth` for every network and average, or those named, into the run's folder; the main
        process alone does.

        Raises DivergedError and OSError as `save_run`.
        """
        if not is_main():
            return
        networks = self.networks | self.averages.networks
        weights = {name: plain_state(networks[name]) for name in names or networks}
        check_weights(weights)
        write_files({self._weights_path(self.opt.name, label, name): state for name, state in weights.items()})

    def load_networks(self, label: str, run: str | None = None) -> None:
        """Reads what `save_networks` wrote, from another run's folder where `run` names one; safetensors of the same name
        where they lie there in its place. A test with --ema reads the generators' averages.

        Raises UserError where a file is missing or belongs to another architecture.
        """
        averaged = self.generators if not self.is_train and self.opt.ema else {}
        for name, network in self.networks.items():
            file_name = name + SUFFIX if name in averaged else name
            path = self._weights_path(run or self.opt.name, label, file_name)
            safetensors = path.with_suffix(SAFETENSORS)
            if safetensors.exists() and not path.exists():
                load_plain_state(network, read_safetensors(safetensors), safetensors)
            else:
                load_weights(network, path)

    def save_run(self, *labels: str) -> None:
        """Writes networks and averages under each label, as `save_networks` does, and what `resume` needs to go on.

        All files are complete on the disk before the first takes its place, that of `resume` before the others. The main
        process alone writes.

        Raises DivergedError where a weight is not finite, and OSError where the files cannot be written; those of before
        are then as they were.
        """
        if not is_main():
            return
        weights = {name: plain_state(network) for name, network in self.networks.items()}
        state = {
            "labels": list(labels),
            "steps_done": self.steps_done,
            "networks": dict(weights),
            "stateful": {name: thing.state_dict() for name, thing in self.stateful.items()},
        }
        weights |= {name: plain_state(network) for name, network in self.averages.networks.items()}
        check_weights(weights)
        exports = {self._weights_path(self.opt.name, label, name): weights[name] for label in labels for name in weights}
        write_files({**exports, self._state_path: state})
        if self.opt.keep_checkpoints is not None:
            for path in old_checkpoints(self._state_path.parent, self.opt.keep_checkpoints):
                path.unlink(missing_ok=True)

    def resume(self) -> bool:
        """Goes on from where `save_run` was last called in the run's folder; False where it never was.

        Raises UserError where what it left is damaged, belongs to other networks, or is not what lies there under the same
        label.
        """
        state = read_run_state(self._state_path)
        if state is None:
            return False
        try:
            for name, network in self.networks.items():
                load_plain_state(network, state["networks"][name], self._state_path)
            for name, thing in self.stateful.items():
                if name in state["stateful"] or name not in MAY_BEGIN_LATER:
                    thing.load_state_dict(state["stateful"][name])
            self.rate.set_in(self.optimizers.values())
            self.steps_done = whole_number(state["steps_done"])
            weights = {name: state["networks"][name] for name in self.networks}
            if "averages" in state["stateful"]:
                weights |= {name: plain_state(network) for name, network in self.averages.networks.items()}
            exports = {
                self._weights_path(self.opt.name, file_label(label), name): weights[name]
                for label in state["labels"]
                for name in weights
            }
        except UserError:
            raise
        except Exception as error:  # whatever takes its state back may trip over what is damaged, in ways of its own
            raise not_this_runs(self._state_path, error) from None
        self._finish_exports(exports)
        return True

    def _finish_exports(self, exports: Mapping[Path, Mapping[str, Tensor]]) -> None:
        """Completes a save that was broken off after the state had taken its place, and before all weights had.

        Raises UserError where weights differ from the state's for another reason: somebody put them there.
        """
        if not is_main():
            return
        differing = [path for path, weights in exports.items() if path.exists() and not holds(path, weights)]
        if differing and not any(map(is_unfinished, exports)):
            raise UserError(
                f"{differing[0]} is not what the run saved there together with {self._state_path}. To start from it, with "
                "new optimisers, remove the latter; to go on with the run, remove the former"
            )
        if differing:
            write_files(exports)

    def describe(self, layer_by_layer: bool) -> str:
        """The networks and their sizes, for people."""
        lines = []
        for name, network in self.networks.items():
            millions = sum(parameter.numel() for parameter in network.parameters()) / 1e6
            lines += [str(network)] if layer_by_layer else []
            lines.append(f"[Network {name}] Total number of parameters : {millions:.3f} M")
        return "\n".join(lines)

    @property
    def _state_path(self) -> Path:
        return Path(self.opt.checkpoints_dir) / self.opt.name / FILE_NAME

    def _weights_path(self, run: str, label: str, name: str) -> Path:
        return Path(self.opt.checkpoints_dir) / run / f"{label}_net_{name}.pth"

    def add_network(self, name: str, network: nn.Module, in_bf16: bool = True) -> nn.Module:
        """Takes the network into `networks`, on the model's device; noise that it injects follows from the seed.

        Returns what a training step shall call in its place. With --precision bf16 that computes in bfloat16, unless
        `in_bf16` is False.
        """
        if isinstance(network, StyleGAN2Generator):
            network.noise_source.generator = self.generator
        if isinstance(network, TappedGenerator):
            network.recomputes = self.speed.grad_checkpoint
        self.networks[name] = network.to(self.device)
        how = HowToCompute(self.speed.precision == "bf16", self.speed.compile, self.speed.channels_last)
        return parallel(as_called(network, how, in_bf16))

    def add_optimizer(self, name: str, parameters: Iterable[nn.Parameter], beta2: float | None = None) -> None:
        """An Adam with the options' rates, on the model's schedule; nothing where there is nothing to learn."""
        parameters = list(parameters)
        if not parameters:
            return
        opt = self.opt
        betas = (opt.beta1, opt.beta2 if beta2 is None else beta2)
        recorded = self.speed.cuda_graphs
        rate = torch.tensor(opt.lr, device=self.device) if recorded else opt.lr  # a recording reads it from its place
        optimizer = torch.optim.Adam(parameters, lr=rate, betas=betas, fused=True, capturable=recorded)
        self.rate.set_in([optimizer])
        self.optimizers[name] = optimizer
        self.stateful[f"optimizer_{name}"] = Moments(optimizer)

    def _set_up_speed(self) -> None:
        if self.speed.precision == "tf32":
            allow_tf32()
        if self.speed.accumulate > 1:
            self.run_step = self.accumulation = SeveralBatches(self, self.speed.accumulate)
            self.stateful["accumulation"] = self.accumulation
        if self.speed.cuda_graphs:
            self.draws = KeptDraws(self.generator, self.host_generator)
            self.run_step = RecordedSteps(self.compute_step, self.draws, CudaGraphs(self.device, self.generator))
