"""Detection of failing runs: losses and weights that are not finite, and symptoms of known failures of the method."""

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from util.errors import DivergedError

CHECK_INTERVAL_GPU = 16  # steps; each check waits for the GPU, so checking every step would slow training down


class _Step(NamedTuple):
    values: Tensor
    names: Sequence[str]
    position: str
    paths: Sequence[str]


class DivergenceMonitor:
    """Check that losses are finite: on the CPU after each step, on a GPU every 16 steps for all of them."""

    def __init__(self, device: torch.device) -> None:
        self.check_interval = 1 if device.type == "cpu" else CHECK_INTERVAL_GPU
        self.steps: list[_Step] = []

    def update(self, losses: Mapping[str, Tensor], position: str, paths: Sequence[str]) -> None:
        """Store the losses of a step, and call `check` if it is due.

        Args:
            losses: scalar tensors; empty if the batch waits for others of its step.
            position: text for the error message, such as "in epoch 1, after 2 of its images".
            paths: files of the step's images, for the error message.

        Raises:
            DivergedError: as `check`.
        """
        if not losses:
            return
        values = torch.stack([loss.detach().float() for loss in losses.values()])
        self.steps.append(_Step(values, tuple(losses), position, paths))
        if len(self.steps) >= self.check_interval:
            self.check()

    def check(self) -> None:
        """Check the losses stored since the last check.

        Raises DivergedError for the first one that is not finite, and again in every later call.
        """
        if not self.steps:
            return
        for step, values in zip(self.steps, torch.stack([step.values for step in self.steps]).tolist(), strict=True):
            for name, value in zip(step.names, values, strict=True):
                if not math.isfinite(value):
                    images = ", ".join(map(repr, step.paths))
                    raise DivergedError(
                        f"the run has diverged: loss {name} is {value} {step.position}, on {images}. "
                        "Lower --lr or check these images. If there is a checkpoint, resume from it with --continue_train."
                    )
        self.steps.clear()


def check_finite(weights: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Raise DivergedError if one of the networks' state dicts holds a value that is not finite."""
    for name, state in weights.items():
        for key, tensor in state.items():
            if not torch.isfinite(tensor).all():
                raise DivergedError(
                    f"the run has diverged: {key} of network {name} is not finite. This state is not saved. Lower --lr. "
                    "If there is a checkpoint, resume from it with --continue_train."
                )


WARMUP_IMAGES = 5000  # images without checks: at first PatchNCE is at chance level, and G or D may be far ahead
MIN_DURATION = 2000  # images during which a symptom must be present
MIN_OBSERVATIONS = 5  # in this time
TRIGGER_RATIO, RESET_RATIO = 0.9, 0.2  # fractions of the observations that have the symptom

NEARLY_EQUAL = 0.04  # mean absolute difference of images in [-1, 1]: five gray levels of 255
AT_CHANCE = (0.98, 1.03)  # times the chance level; a higher loss means wrong features, not dead ones
# --gan_mode: (upper limit of D's mean losses, lower limit of G's) once D dominates. A WGAN critic has no such scale.
D_WINS_THRESHOLDS = {"lsgan": (0.05, 0.8), "vanilla": (0.05, 3.0), "nonsaturating": (0.05, 3.0)}


class Symptom:
    """A symptom that single observations show or not. Losses are those of single steps, so they need not all agree."""

    def __init__(self) -> None:
        self.observations: deque[tuple[int, bool]] = deque()
        self.reported = False

    def update(self, images: int, present: bool) -> bool:
        """Add an observation after `images` training images. Return True if the symptom must be reported now.

        It is reported once, if most recent observations have it. After it has disappeared, it may be reported again.
        """
        self.observations.append((images, present))
        while len(self.observations) > MIN_OBSERVATIONS and self.observations[1][0] <= images - MIN_DURATION:
            self.observations.popleft()
        ratio = sum(present for _, present in self.observations) / len(self.observations)
        is_long_enough = len(self.observations) >= MIN_OBSERVATIONS and images - self.observations[0][0] >= MIN_DURATION
        is_new = is_long_enough and ratio >= TRIGGER_RATIO and not self.reported
        self.reported = (self.reported or is_new) and ratio > RESET_RATIO
        return is_new


@dataclass(frozen=True)
class LossScales:
    """Names and scales of a method's losses, for the diagnostics. By default they check none.

    Attributes:
        gan_losses: names of the discriminator's losses, by that of the generator's adversarial loss.
        gan_weight: weight that the generator's adversarial loss is reported with, such as --lambda_GAN.
        nce_at_chance: the loss "NCE" of features that do not tell positions apart; 0 for a method without PatchNCE.
    """

    gan_losses: Mapping[str, Sequence[str]] = field(default_factory=dict)
    gan_weight: float = 1.0
    nce_at_chance: float = 0.0


class TrainingDiagnostics:
    """Symptoms of known failures: identity mapping, a dominating discriminator, PatchNCE at chance level.

    Args:
        scales: those of the method.
        gan_mode: adversarial loss, a key of GAN_LOSSES.
        warm_up_D: number of images on which only the discriminator is trained; it may then dominate.
    """

    def __init__(self, scales: LossScales, gan_mode: str, warm_up_D: int = 0) -> None:
        self.scales = scales
        self.thresholds = D_WINS_THRESHOLDS.get(gan_mode) if scales.gan_weight > 0 else None
        self.first_check = WARMUP_IMAGES + warm_up_D
        self.identity, self.chance_level = Symptom(), Symptom()
        self.d_wins = {generator: Symptom() for generator in scales.gan_losses}

    def check(self, images: int, losses: Mapping[str, float], visuals: Mapping[str, Tensor]) -> Iterator[str]:
        """Yield the warnings that are due.

        Args:
            images: number of images trained on so far.
            losses: losses of the last step by their published names.
            visuals: (N, C, H, W) images in [-1, 1]; real_A and fake_B are used.
        """
        if images < self.first_check:
            return
        yield from self._identity_mapping(images, visuals)
        yield from self._discriminator_dominates(images, losses)
        yield from self._nce_at_chance_level(images, losses)

    def _identity_mapping(self, images: int, visuals: Mapping[str, Tensor]) -> Iterator[str]:
        source, output = visuals.get("real_A"), visuals.get("fake_B")
        if source is None or output is None or source.shape != output.shape:
            return
        # FastCUT's fake_B may be the output for the flipped input.
        difference = min(float((output - other).abs().float().mean()) for other in (source, source.flip(3)))
        if self.identity.update(images, difference < NEARLY_EQUAL):
            yield (
                f"warning: the outputs equal the inputs (mean difference {difference * 127.5:.1f} of 255 gray levels). "
                "The run may have collapsed to the identity, which FastCUT is prone to. Lower --lambda_NCE (CycleGAN: "
                "--lambda_identity), or train with --CUT_mode CUT."
            )

    def _discriminator_dominates(self, images: int, losses: Mapping[str, float]) -> Iterator[str]:
        if self.thresholds is None:
            return
        d_limit, g_limit = self.thresholds
        for generator, discriminator in self.scales.gan_losses.items():
            if not {generator, *discriminator} <= losses.keys():  # a method derived from CUT may log others
                continue
            is_fooled = any(losses[name] >= d_limit for name in discriminator)
            is_beaten = losses[generator] > g_limit * self.scales.gan_weight
            if self.d_wins[generator].update(images, not is_fooled and is_beaten):
                values = ", ".join(f"{name} {losses[name]:.3f}" for name in (*discriminator, generator))
                yield (
                    f"warning: the discriminator dominates ({values}), so the generator gets little gradient. Restart "
                    "from an earlier checkpoint or from scratch, with --diffaugment, --lambda_lecam 0.1, a smaller --lr, or "
                    "more images."
                )

    def _nce_at_chance_level(self, images: int, losses: Mapping[str, float]) -> Iterator[str]:
        nce, chance = losses.get("NCE"), self.scales.nce_at_chance
        if nce is None or chance <= 0:
            return
        low, high = (factor * chance for factor in AT_CHANCE)
        if self.chance_level.update(images, low < nce < high):
            yield (
                f"warning: PatchNCE is at chance level (NCE {nce:.3f}, chance {chance:.3f}), so the outputs "
                "need not keep the content of the inputs. Check --nce_T (default 0.07), --nce_layers and --lr, or restart "
                "from an earlier checkpoint or from scratch."
            )
