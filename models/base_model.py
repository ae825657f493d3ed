"""Base class of the methods: networks, optimizers, one training step, and the images and losses to show."""

from abc import ABC, abstractmethod
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.losses.diff_augment import DiffAugment
from models.losses.gan import GAN_LOSSES, GENERATOR_LOSSES, batch_mean
from models.losses.gradient_penalty import wgan_gp_penalty
from models.losses.lecam import LeCam
from models.lr_schedules import EpochPlan, LRScheduler
from models.networks.base import Generator
from models.networks.spectral_norm import SpectralNormState, add_spectral_norm
from models.performance import configure_backend, make_optimizer, resolve_performance_config, wrap_network
from models.training_step import Outputs, create_rng, create_step
from util.errors import ImageSizeError, UserError, is_out_of_memory
from util.runtime.checkpoint import OptimizerState, Stateful, load_networks, save_networks, weights_file
from util.runtime.device import select_device
from util.runtime.distributed import all_reduce_mean
from util.runtime.ema import EMA_SUFFIX, ModelEMA
from util.runtime.monitor import LossScales
from util.runtime.rng import step_seed

# Pixels. For smaller images PyTorch may refuse to pad or to normalize inside the network.
MIN_SAFE_SIZE = 16


class BaseModel(ABC):
    """A method: it owns its networks and defines one step of their training.

    A subclass fills `networks` (and, for training, `optimizers`) in its constructor. It implements `forward` and, unless it
    is for testing only, `training_step`. Images are (N, C, H, W) tensors in [-1, 1].
    """

    #: Attributes that hold images, in the order they are shown.
    visual_names: tuple[str, ...]
    #: Keys of `losses` after a step, in the order they are logged.
    loss_names: tuple[str, ...]
    #: Which of them the training diagnostics check.
    loss_scales = LossScales()

    def __init__(self, opt: Namespace) -> None:
        self.opt = opt
        self.is_train: bool = opt.isTrain
        self.device = select_device(opt.gpu_ids)
        self.performance = resolve_performance_config(opt, self.device, self.cuda_graph_blocker)
        configure_backend(self.device, self.performance, self.is_train)
        #: Source of every random sample of a step.
        self.rng = create_rng(self.device, opt.seed, self.performance)

        #: The plain networks, by the name in their file: <label>_net_<name>.pth.
        self.networks: dict[str, nn.Module] = {}
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        #: Those of them that update a generator.
        self.generator_optimizers: set[torch.optim.Optimizer] = set()
        #: Moving averages of the generators, if --ema asks for them.
        self.ema: ModelEMA | None = None

        self.step = create_step(self, self.performance)
        self.steps_done = 0
        self.images_done = 0  # not a multiple of the steps: --batch_size may change when a run is resumed
        #: True from the start of a step to its end: between updates, D may have moved and G not.
        self.step_in_progress = False
        #: What a resumed run needs besides the weights, by its name in the training state.
        self.checkpoint_items: dict[str, Stateful] = self.step.checkpoint_items()
        if self.is_train:
            plan = EpochPlan(opt.epoch_count, opt.n_epochs, opt.n_epochs_decay, opt.lr_decay_iters, opt.published_cosine)
            self.lr_scheduler = LRScheduler(opt.lr, opt.lr_policy, plan)
            self.checkpoint_items["learning_rate"] = self.lr_scheduler
            self.criterionGAN = GAN_LOSSES[opt.gan_mode]
            self.criterionGAN_G = GENERATOR_LOSSES.get(opt.gan_mode, self.criterionGAN)
            self.augment = DiffAugment(list(filter(None, opt.diffaugment.split(","))), self.rng.device_rng)
            self.lecam: LeCam | None = None
            #: The logits of an image do not depend on the rest of its batch, so that several batches can share a pass.
            self.can_batch_D = False

        self.losses: dict[str, Tensor] = {}
        self.image_paths: list[str] = []
        self.real_A: Tensor
        self.real_B: Tensor

    @staticmethod
    def modify_commandline_options(parser: ArgumentParser, is_train: bool) -> ArgumentParser:
        """Add the options of the method, and set its defaults for the shared ones."""
        return parser

    @staticmethod
    def dependent_defaults(opt: Namespace) -> Mapping[str, Any]:
        """Return defaults that follow from another option, such as FastCUT's from --CUT_mode."""
        return {}

    @staticmethod
    def cuda_graph_blocker(opt: Namespace) -> str | None:
        """Return why CUDA graphs cannot capture a step of the method with these options, or None."""
        return None

    def add_network(self, name: str, network: nn.Module, in_bf16: bool = True) -> nn.Module:
        """Add a network on the model's device, and return the module that a training step calls in its place.

        With --precision bf16 it is computed in bfloat16, unless `in_bf16` is False.
        """
        if isinstance(network, Generator):
            network.set_rng(self.rng.device_rng)
        if name.startswith("D") and self.opt.spectral_norm_D:
            add_spectral_norm(network, "--spectral_norm_D")
        self.networks[name] = network.to(self.device)
        if name.startswith("D"):
            self._add_discriminator_state()
        return wrap_network(network, self.performance, in_bf16)

    def _add_discriminator_state(self) -> None:
        """Make the state that the regularization of the discriminators needs part of the run."""
        discriminators = {name: network for name, network in self.networks.items() if name.startswith("D")}
        if self.opt.lambda_lecam > 0:
            self.lecam = self.checkpoint_items["lecam"] = LeCam(discriminators, self.device)
        if self.opt.spectral_norm_D:
            self.checkpoint_items["spectral_norm"] = SpectralNormState(discriminators)

    def add_optimizer(self, name: str, parameters: Iterable[nn.Parameter], beta2: float | None = None) -> None:
        """Add an Adam optimizer that follows the learning-rate schedule; none if there are no parameters."""
        parameters = list(parameters)
        if not parameters:
            return
        betas = (self.opt.beta1, self.opt.beta2 if beta2 is None else beta2)
        optimizer = make_optimizer(parameters, self.opt.lr, betas, self.device, self.performance)
        self.lr_scheduler.attach(optimizer)
        self.optimizers[name] = optimizer
        generator_parameters = {id(p) for network in self.generators.values() for p in network.parameters()}
        if any(id(parameter) in generator_parameters for parameter in parameters):
            self.generator_optimizers.add(optimizer)
        self.checkpoint_items[f"optimizer_{name}"] = OptimizerState(optimizer)

    def enable_ema(self, decay: float) -> None:
        """Maintain moving averages of the generators from the next step on."""
        self.ema = self.checkpoint_items["averages"] = ModelEMA(self.generators, decay)

    @property
    def generators(self) -> dict[str, nn.Module]:
        """The networks that translate: G, or G_A from A to B and G_B back."""
        return {name: network for name, network in self.networks.items() if name.startswith("G")}

    @property
    def saved_networks(self) -> dict[str, nn.Module]:
        """All networks that have a weights file: the trained ones and the moving averages."""
        return self.networks | (self.ema.networks if self.ema else {})

    def describe(self) -> str:
        """Return the number of parameters of each network, such as "G 11.378 M, D 2.765 M parameters"."""
        sizes = {name: sum(map(Tensor.numel, network.parameters())) / 1e6 for name, network in self.networks.items()}
        return ", ".join(f"{name} {millions:.3f} M" for name, millions in sizes.items()) + " parameters"

    def set_input(self, batch: Mapping[str, Any]) -> None:
        """Copy a batch {"A", "B", "A_paths", "B_paths"} to the device. --direction BtoA swaps the domains.

        The target domain may be missing at test time.
        """
        source, target = ("A", "B") if self.opt.direction == "AtoB" else ("B", "A")
        for name, domain in (("real_A", source), ("real_B", target)):
            images = batch.get(domain)
            setattr(self, name, None if images is None else images.to(self.device, non_blocking=True))
        self.image_paths = batch[f"{source}_paths"]

    def optimize_parameters(self) -> None:
        """Take one training step on the current input. Its random samples depend only on the seed and the step number."""
        self.step_in_progress = True
        if self.opt.lr_warm_up > 0:
            self.lr_scheduler.set_warm_up(min(1.0, (self.images_done + self.opt.batch_size) / self.opt.lr_warm_up))
        seed = step_seed(self.opt.seed, self.steps_done)
        self.rng.reseed(seed)
        outputs = self.step({"real_A": self.real_A, "real_B": self.real_B}, seed)
        if outputs:  # with --accumulate, none until the step is complete
            self.load_step_outputs(outputs)
            if self.ema:
                self.ema.update()
        self.steps_done += 1
        self.images_done += self.opt.batch_size
        self.step_in_progress = False

    def training_step(self) -> None:
        """Compute one step of the method: which losses, and in which order the networks are updated."""
        raise NotImplementedError(f"{type(self).__name__} is for testing only")

    @abstractmethod
    def forward(self) -> None:
        """Compute the outputs of the current input."""

    def optimize(self, loss_fn: Callable[[], Tensor], *names: str, frozen: Sequence[nn.Module] = ()) -> None:
        """Back-propagate `loss_fn()` and step the named optimizers. Gradients are left in place.

        `frozen` networks pass the gradient on, and get none for their own parameters. During --warm_up_D, only the optimizer
        "D" steps: the other losses are computed to be logged.
        """
        optimizers = [self.optimizers[name] for name in names if name in self.optimizers]
        for optimizer in optimizers:
            optimizer.zero_grad()
        for network in frozen:
            network.requires_grad_(False)
        self.step.backward(loss_fn, with_generator_grad=not self.generator_optimizers.isdisjoint(optimizers))
        for network in frozen:
            network.requires_grad_(True)
        if names != ("D",) and self.opt.warm_up_D > 0 and self.rng.coin_flip(self._is_warm_up_D):
            return
        for optimizer in optimizers:
            optimizer.step()

    def _is_warm_up_D(self, _: torch.Generator) -> bool:
        """Return True in the first --warm_up_D images. A branch of the step like a coin flip, but not a random one."""
        return self.images_done < self.opt.warm_up_D

    def discriminate(self, discriminator: nn.Module, *batches: Tensor) -> Sequence[Tensor]:
        """Return the logits for each batch of images, after --diffaugment. All share one pass if that is exact."""
        images = [self.augment(batch) for batch in batches]
        if len(images) > 1 and self.can_batch_D and len({batch.shape for batch in images}) == 1:
            return discriminator(torch.cat(images)).chunk(len(images))
        return [discriminator(batch) for batch in images]

    def generator_gan_loss(self, discriminator: nn.Module, fake: Tensor) -> Tensor:
        """Return the GAN loss of the generator that made `fake`."""
        (pred,) = self.discriminate(discriminator, fake)
        return batch_mean(self.criterionGAN_G(pred, True))

    def regularize_D(
        self, loss_D: Tensor, name: str, pred_fake: Tensor, pred_real: Tensor, fake: Tensor, real: Tensor
    ) -> Tensor:
        """Return the loss of a discriminator plus the penalties of --lambda_gp and --lambda_lecam, if they are set.

        Args:
            loss_D: the GAN loss.
            name: name of the discriminator, such as "D_A".
            pred_fake, pred_real: its logits.
            fake, real: the images, (N, C, H, W).
        """
        if self.opt.gan_mode == "wgangp" and self.opt.lambda_gp > 0:
            loss_D = loss_D + self.gradient_penalty(self.networks[name], real, fake) * self.opt.lambda_gp
        if self.lecam is not None:
            loss_D = loss_D + self.lecam(name, pred_real, pred_fake) * self.opt.lambda_lecam
        return loss_D

    def gradient_penalty(self, discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        """Return the WGAN-GP penalty at augmented images."""
        if real.shape != fake.shape:
            raise ImageSizeError("--lambda_gp: needs real and translated images of one size. Crop them to one size.")
        return wgan_gp_penalty(discriminator, self.augment(real), self.augment(fake), self.rng.device_rng)

    @property
    def learning_rate(self) -> float:
        """The learning rate of the current epoch."""
        return self.lr_scheduler.lr

    def update_learning_rate(self) -> None:
        """Advance the learning-rate schedule by one epoch."""
        self.lr_scheduler.end_epoch()

    def get_current_losses(self) -> dict[str, float]:
        """Return the losses of the last step by their published names. Waits for the device once.

        With several processes, all of them must call it: the values are means over the processes.
        """
        if not self.losses:
            return {}
        values = all_reduce_mean(torch.stack([self.losses[name].detach().float() for name in self.loss_names]))
        return dict(zip(self.loss_names, values.tolist(), strict=True))

    def get_current_visuals(self) -> dict[str, Tensor]:
        """Return the images of the last step by their published names, (N, C, H, W) in [-1, 1]."""
        images = {name: getattr(self, name, None) for name in self.visual_names}
        return {name: image.detach() for name, image in images.items() if image is not None}

    def visuals_for_display(self) -> dict[str, Tensor]:
        """Return the current visuals as people expect them: images that the step flipped are flipped back."""
        return self.get_current_visuals()

    def set_visuals(self, images: Mapping[str, Tensor]) -> None:
        """Make these the current images, by attribute name. The inverse of `get_current_visuals`."""
        for name, image in images.items():
            setattr(self, name, image)

    def step_outputs(self) -> Outputs:
        """Return what a step leaves behind: its losses and its images."""
        return {"losses": self.losses, **self.get_current_visuals()}

    def load_step_outputs(self, outputs: Outputs) -> None:
        """Take over the outputs of a step. A replayed CUDA graph sets no attributes by itself."""
        self.losses = outputs["losses"]
        self.set_visuals({name: outputs[name] for name in self.visual_names if name in outputs})

    def test(self) -> None:
        """Compute the outputs without gradients. Raises UserError if the network cannot take images of this size."""
        try:
            with torch.inference_mode():
                self.forward()
        except ImageSizeError as error:
            raise UserError(f"{', '.join(self.image_paths)}: {error}. Resize or crop the images (--preprocess).") from None
        except (ValueError, RuntimeError) as error:
            height, width = self.real_A.shape[2:]
            if min(height, width) >= MIN_SAFE_SIZE or is_out_of_memory(error):
                raise
            raise UserError(
                f"{', '.join(self.image_paths)}: {width}x{height} pixels are too few ({error}). Use larger images."
            ) from None

    def eval(self) -> None:
        """Use running statistics in batch norm, and no dropout. Published tests run without it."""
        for network in self.networks.values():
            network.eval()

    def save_networks(self, label: str, *names: str) -> None:
        """Write `<label>_net_<name>.pth` for all networks and moving averages, or for those named. Only rank 0 writes.

        Raises DivergedError if a weight is not finite, and OSError if a file cannot be written.
        """
        networks = self.saved_networks
        save_networks(self._run_dir(), label, {name: networks[name] for name in names or networks})

    def load_networks(self, label: str, run: str | None = None) -> Collection[str]:
        """Load what `save_networks` wrote, or the weights of another `run`. With test.py --ema, load moving averages.

        The released weights are generators alone. Therefore another run may lack the networks that train a generator:
        return their names.

        Raises UserError if a file is missing or belongs to another architecture.
        """
        networks = self._networks_to_load()
        others = networks.keys() - self.generators.keys() if run is not None else set()
        missing = {name for name in others if not weights_file(self._run_dir(run), label, name).exists()}
        load_networks(self._run_dir(run), label, {name: networks[name] for name in networks if name not in missing})
        return missing

    def weights_files(self, label: str) -> dict[str, Path]:
        """Return the files that `load_networks` reads, by the names of their networks."""
        return {name: weights_file(self._run_dir(), label, name) for name in self._networks_to_load()}

    def _networks_to_load(self) -> dict[str, nn.Module]:
        averaged = self.generators if not self.is_train and self.opt.ema else {}
        return {name + EMA_SUFFIX if name in averaged else name: network for name, network in self.networks.items()}

    def _run_dir(self, run: str | None = None) -> Path:
        return Path(self.opt.checkpoints_dir) / (run or self.opt.name)
