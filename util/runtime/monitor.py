"""Notices that a run has diverged, before what it has become is saved."""

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from util.errors import DivergedError

# Steps between looks at the losses of a GPU, which has to be waited for: one wait in so many steps costs nothing.
CHECK_INTERVAL_GPU = 16


class _Step(NamedTuple):
    values: Tensor
    names: Sequence[str]
    place: str
    paths: Sequence[str]


class DivergenceMonitor:
    """Looks whether losses are finite: on the CPU after each step, on a GPU after every sixteenth, for all of them."""

    def __init__(self, device: torch.device) -> None:
        self.check_interval = 1 if device.type == "cpu" else CHECK_INTERVAL_GPU
        self.steps: list[_Step] = []

    def note(self, losses: Mapping[str, Tensor], place: str, paths: Sequence[str]) -> None:
        """Takes note of the losses of a step, of where in the run it was taken, and of the images it was taken on.

        Raises DivergedError where it is time to look, and a loss is infinite or no number.
        """
        if not losses:  # the batch waits for others of its step
            return
        values = torch.stack([loss.detach().float() for loss in losses.values()])
        self.steps.append(_Step(values, tuple(losses), place, paths))
        if len(self.steps) >= self.check_interval:
            self.look()

    def look(self) -> None:
        """Looks at what was noted since the last look. Raises DivergedError for the first loss that is not finite, and
        again whenever it is asked to look."""
        if not self.steps:
            return
        for step, values in zip(self.steps, torch.stack([step.values for step in self.steps]).tolist(), strict=True):
            for name, value in zip(step.names, values, strict=True):
                if not math.isfinite(value):
                    raise DivergedError(
                        f"the loss {name} is {value} {step.place}, on {', '.join(map(repr, step.paths))}: the run has "
                        "diverged. Its last checkpoint is kept; lower --lr, or look at these images, and go on from it "
                        "with --continue_train"
                    )
        self.steps.clear()


def check_finite(weights: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Raises DivergedError where one of the networks' state dicts holds what is no number."""
    for name, state in weights.items():
        for key, tensor in state.items():
            if not torch.isfinite(tensor).all():
                raise DivergedError(
                    f"{key} of network {name} is not finite any more: the run has diverged, and is not saved. Its last "
                    "checkpoint is kept; lower --lr, and go on from it with --continue_train"
                )


WARMUP_IMAGES = 5000  # images until a run is looked at: at first the contrast is at chance, and either side may be far ahead
MIN_DURATION = 2000  # images that a sign has to last
MIN_OBSERVATIONS = 5  # and reports that it takes
TRIGGER_RATIO, RESET_RATIO = 0.9, 0.2  # shares of these reports

NEARLY_EQUAL = 0.04  # mean difference of images in [-1, 1]: five gray levels of 255
AT_CHANCE = (0.98, 1.03)  # times the loss of a guess; worse than that, the contrast is wrong, but not dead
# --gan_mode: what the discriminator's mean loss stays below, and the generator's above, where the former has won. A critic
# has no scale to tell by.
D_WINS_THRESHOLDS = {"lsgan": (0.05, 0.8), "vanilla": (0.05, 3.0), "nonsaturating": (0.05, 3.0)}
# The generator's adversarial loss, and the discriminator's, by their published names.
GAN_LOSS_PAIRS = {"G_GAN": ("D_real", "D_fake"), "G_A": ("D_A",), "G_B": ("D_B",)}


class Symptom:
    """Something that is seen or not at every look. Losses are those of single steps, so that not every look has to agree."""

    def __init__(self) -> None:
        self.looks: deque[tuple[int, bool]] = deque()
        self.told = False

    def appears(self, images: int, is_there: bool) -> bool:
        """Whether it is now to be told: seen nearly always of late. Once it is hardly ever, it may be told again."""
        self.looks.append((images, is_there))
        while len(self.looks) > MIN_OBSERVATIONS and self.looks[1][0] <= images - MIN_DURATION:
            self.looks.popleft()
        share = sum(seen for _, seen in self.looks) / len(self.looks)
        lasts = len(self.looks) >= MIN_OBSERVATIONS and images - self.looks[0][0] >= MIN_DURATION
        begins = lasts and share >= TRIGGER_RATIO and not self.told
        self.told = (self.told or begins) and share > RESET_RATIO
        return begins


class TrainingDiagnostics:
    """Looks at the losses and images of a run whenever they are reported.

    Args:
        gan_mode: the adversarial loss, a key of GAN_LOSSES.
        adversarial_weight: that the generator's adversarial loss is reported with, such as --lambda_GAN.
        contrast_at_chance: the reported NCE of a guess, lambda_NCE · ln(patches); 0 for a method without.
    """

    def __init__(self, gan_mode: str, adversarial_weight: float, contrast_at_chance: float) -> None:
        self.thresholds = D_WINS_THRESHOLDS.get(gan_mode) if adversarial_weight > 0 else None
        self.adversarial_weight = adversarial_weight
        self.contrast_at_chance = contrast_at_chance
        self.identity, self.contrast = Symptom(), Symptom()
        self.won = {generator: Symptom() for generator in GAN_LOSS_PAIRS}

    def look(self, images: int, losses: Mapping[str, float], visuals: Mapping[str, Tensor]) -> Iterator[str]:
        """The warnings that are due.

        Args:
            images: trained on so far.
            losses: by their published names.
            visuals: (N, C, H, W) in [-1, 1], of which real_A and fake_B are looked at.
        """
        if images < WARMUP_IMAGES:
            return
        yield from self._identity(images, visuals)
        yield from self._discriminator_dominates(images, losses)
        yield from self._contrast(images, losses)

    def _identity(self, images: int, visuals: Mapping[str, Tensor]) -> Iterator[str]:
        source, translation = visuals.get("real_A"), visuals.get("fake_B")
        if source is None or translation is None or source.shape != translation.shape:
            return
        # FastCUT shows the translation of a mirrored input as it is.
        apart = min(float((translation - other).abs().float().mean()) for other in (source, source.flip(3)))
        if self.identity.appears(images, apart < NEARLY_EQUAL):
            yield (
                f"warning: translations have come to equal their inputs (on average {apart * 127.5:.1f} of 255 gray levels "
                "apart): the run may have collapsed to the identity, as FastCUT can. Weaken what holds on to the input "
                "(--lambda_NCE; for cycle_gan --lambda_identity), or train with --CUT_mode CUT"
            )

    def _discriminator_dominates(self, images: int, losses: Mapping[str, float]) -> Iterator[str]:
        if self.thresholds is None:
            return
        below, above = self.thresholds
        for generator, discriminator in GAN_LOSS_PAIRS.items():
            if generator not in losses:
                continue
            sees_through = all(losses[name] < below for name in discriminator)
            if self.won[generator].appears(images, sees_through and losses[generator] > above * self.adversarial_weight):
                shown = ", ".join(f"{name} {losses[name]:.3f}" for name in (*discriminator, generator))
                yield (
                    f"warning: the discriminator has won ({shown}): it tells every translation from real images, and the "
                    "generator learns little from it. Take a smaller --ndf or --lr, or more images, and start from an "
                    "earlier checkpoint or anew"
                )

    def _contrast(self, images: int, losses: Mapping[str, float]) -> Iterator[str]:
        contrast = losses.get("NCE")
        if contrast is None or self.contrast_at_chance <= 0:
            return
        lowest, highest = (factor * self.contrast_at_chance for factor in AT_CHANCE)
        if self.contrast.appears(images, lowest < contrast < highest):
            yield (
                f"warning: the contrast is dead: NCE {contrast:.3f} is that of a guess, {self.contrast_at_chance:.3f}, so "
                "that nothing holds translations to the content of their inputs. Check --nce_T (0.07 is usual), "
                "--nce_layers and --lr, or start from an earlier checkpoint or anew"
            )
