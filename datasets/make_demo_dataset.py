"""Render the demonstration dataset, plain ponies (A) and striped ponies (B), without any download.

    python datasets/make_demo_dataset.py [--output datasets/demo] [--seed 0] [--size 64] [--train 200] [--test 20]

`trainA` and `trainB` show *different* scenes: they are unpaired, as CUT expects. `testA` and `testB` show the *same*
scenes under equal file names, so that paired metrics compare a translation of testA with testB. `recipe.json` stores the
arguments.

A scene is a pony on a meadow. In both domains it has the same meadow and the same outline; only the coat changes, from
chestnut to cream with dark stripes, and a lighter chestnut becomes a lighter cream. The image in A determines the image
in B: an animal is made of tapered limbs, and stripes lie across the axis of each limb at fixed fractions of its length.
They therefore move, turn, grow and mirror with the animal, and nothing about them is random.

The same seed and Pillow version produce the same images on every machine: antialiasing uses the distance to the edge, and
only + - * / and square roots, which all machines round alike. Scene i does not depend on the number of scenes.
"""

import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # Python adds only the folder of the script
from atomic_dir import atomic_dir

from util.cli import CLIParser
from util.errors import UserError, exit_on_user_error

DRAWING_VERSION = 1  # increase it when the images change, so that the recipe of older images differs
MAX_SIZE = 4096  # pixels
STRIPE_FRACTION = 0.36  # of the hide; below 1/2, so that slightly misplaced stripes still score better than the input

Array = NDArray[np.float64]  # (size, size) numbers, or (size, size, 3) RGB in [0, 255]
Color = tuple[float, ...]  # RGB in [0, 255]
Point = tuple[float, float]


@dataclass(frozen=True)
class Coat:
    """The coat of a domain. A pair contains the colors of the darkest and the lightest animal."""

    hide: tuple[Color, Color]
    mane: tuple[Color, Color]
    stripe: Color | None


COATS = {
    "A": Coat(hide=((106, 44, 22), (142, 64, 30)), mane=((52, 24, 20), (70, 34, 24)), stripe=None),
    "B": Coat(hide=((236, 216, 178), (255, 240, 208)), mane=((100, 56, 50), (100, 56, 50)), stripe=(100, 56, 50)),
}
FIXED_COLORS: dict[str, Color] = {"hoof": (52, 44, 46), "eye": (18, 14, 18), "glint": (255, 255, 255)}


@dataclass(frozen=True)
class Scene:
    """Everything in an image except the coat. Lengths are fractions of the image size; y points down."""

    center: Point  # of the trunk
    scale: float  # half the trunk's length, the unit of the animal's own frame
    facing: int  # +1 looks right, -1 looks left
    tilt: float  # rise of the trunk's axis per unit forward
    stride: float  # -1 .. 1, how far the legs swing
    nod: float  # -1 .. 1, head low .. high
    swish: float  # -1 .. 1, tail hanging .. lifted
    tone: float  # 0 .. 1, dark .. light coat
    horizon: float  # height of the sky
    daylight: float  # 0 .. 1, warm .. cool sky and grass
    texture: int  # seed of clouds, hills and grass


def random_scene(rng: np.random.Generator) -> Scene:
    """Sample a scene. The animal is large and always inside the image."""
    return Scene(
        center=(rng.uniform(0.48, 0.52), rng.uniform(0.52, 0.58)),
        scale=rng.uniform(0.23, 0.255),
        facing=1 if rng.random() < 0.5 else -1,
        tilt=rng.uniform(-0.08, 0.08),
        stride=rng.uniform(-1, 1),
        nod=rng.uniform(-1, 1),
        swish=rng.uniform(-1, 1),
        tone=rng.random(),
        horizon=rng.uniform(0.36, 0.5),
        daylight=rng.random(),
        texture=int(rng.integers(2**31)),
    )


@dataclass(frozen=True)
class Limb:
    """A rounded, tapered rod with `stripes` bands across its axis. Animals are made of limbs only."""

    start: Point  # (forward, up) in the animal's own frame
    end: Point
    radii: tuple[float, float]  # at the start and at the end
    part: str  # "hide", "mane" or one of FIXED_COLORS
    stripes: int = 0
    light: float = 1.0  # below 1 on the animal's far side

    def axis(self) -> tuple[float, float, float]:
        """Return the vector from start to end (forward, up), and its length."""
        dx, dy = self.end[0] - self.start[0], self.end[1] - self.start[1]
        return dx, dy, math.sqrt(dx * dx + dy * dy)

    def coordinates(self, forward: Array, up: Array) -> tuple[Array, Array, Array]:
        """Return the coordinates of each pixel in the frame of the limb.

        These are the depth inside the outline (negative outside), the distance along the axis from the cap of the start,
        and the position across it (-1 to 1 from edge to edge).
        """
        dx, dy, length = self.axis()
        x, y = forward - self.start[0], up - self.start[1]
        axial, lateral = (x * dx + y * dy) / length, (y * dx - x * dy) / length
        nearest = np.clip(axial, 0, length)
        radius = self.radii[0] + (self.radii[1] - self.radii[0]) * nearest / length
        depth = radius - np.sqrt((axial - nearest) ** 2 + lateral**2)
        return depth, axial + self.radii[0], lateral / radius

    def stripe_depth(self, along: Array, across: Array) -> Array:
        """Return the depth of each pixel inside a stripe, negative between stripes. Bands are curved as on a cylinder."""
        *_, length = self.axis()
        period = (length + sum(self.radii)) / self.stripes
        phase = along / period - 0.3 * across**2
        return (STRIPE_FRACTION / 2 - np.abs(phase - np.floor(phase) - 0.5)) * period


def skeleton(scene: Scene) -> list[Limb]:
    """Return the limbs of the animal in its own frame, from back to front."""
    step, nod, swish = 0.16 * scene.stride, 0.07 * scene.nod, 0.15 * scene.swish
    x, y = poll = (1.12 - nod, 1.02 + nod)  # where the neck meets the head
    dock, bend = (-0.98, 0.3), (-1.36 - swish, -0.05 + swish)

    def leg(hip: float, swing: float, light: float) -> list[Limb]:
        ankle, toe = (hip + swing, -1.15), (hip + 1.1 * swing, -1.22)
        shank = Limb((hip, -0.3), ankle, (0.26, 0.18), "hide", stripes=3, light=light)
        return [shank, Limb(ankle, toe, (0.15, 0.18), "hoof", light=light)]

    return [
        *leg(0.36, -step, light=0.72),
        *leg(-0.8, step, light=0.72),
        *leg(0.66, step, light=1.0),
        *leg(-0.58, -step, light=1.0),
        Limb(dock, bend, (0.13, 0.2), "mane"),
        Limb(bend, (bend[0] - 0.06, bend[1] - 0.5 + swish), (0.2, 0.07), "mane"),
        Limb((0.62, 0.42), (0.9 - nod, 1.12 + nod), (0.3, 0.28), "mane"),
        Limb((0.62, 0.18), poll, (0.44, 0.28), "hide", stripes=3),  # neck
        Limb((-0.56, 0.0), (0.6, 0.0), (0.56, 0.52), "hide", stripes=5),  # trunk
        Limb((x - 0.12, y + 0.18), (x - 0.16, y + 0.42), (0.1, 0.04), "hide"),  # ear
        Limb(poll, (1.52 - 0.5 * nod, 0.66 + 2 * nod), (0.32, 0.23), "hide", stripes=2),  # head
        Limb((x + 0.02, y + 0.3), (x + 0.2, y + 0.12), (0.1, 0.07), "mane"),  # forelock
        Limb((x + 0.19, y - 0.02), (x + 0.19, y - 0.06), (0.09, 0.09), "eye"),
        Limb((x + 0.22, y + 0.01), (x + 0.22, y + 0.02), (0.035, 0.035), "glint"),
    ]


def render(scene: Scene, coat: Coat, size: int) -> Image.Image:
    """Render the scene with an animal in this coat, as an RGB image of size x size pixels."""
    image = render_meadow(scene, size)
    right, down = pixel_centers(size)
    x, y = (right - scene.center[0]) / scene.scale * scene.facing, (scene.center[1] - down) / scene.scale
    cos = 1 / math.sqrt(1 + scene.tilt * scene.tilt)
    forward, up = (x + y * scene.tilt) * cos, (y - x * scene.tilt) * cos
    pixel = 1 / (scene.scale * size)  # a pixel's side in the animal's unit

    colors = {"hide": mix(*coat.hide, scene.tone), "mane": mix(*coat.mane, scene.tone), **FIXED_COLORS}
    for limb in skeleton(scene):
        depth, along, across = limb.coordinates(forward, up)
        surface = np.broadcast_to(colors[limb.part], image.shape).astype(np.float64)
        if coat.stripe and limb.stripes:
            paint(surface, coat.stripe, cover(limb.stripe_depth(along, across), pixel))
        shade = 1 - 0.16 * np.clip(across, -1, 1) ** 2 + 0.12 * np.clip(up, -1, 1)
        paint(image, surface * (limb.light * shade)[..., None], cover(depth, pixel))
    return Image.fromarray(np.clip(np.rint(image), 0, 255).astype(np.uint8))


def render_meadow(scene: Scene, size: int) -> Array:
    """Render sky, hills and grass with the shadow of the animal, which both domains share."""
    rng = np.random.default_rng(scene.texture)
    right, down = pixel_centers(size)
    sky = mix((196, 220, 236), (170, 208, 244), scene.daylight)
    grass = mix((134, 168, 72), (96, 162, 88), scene.daylight)

    image = np.broadcast_to(sky, (size, size, 3)).astype(np.float64)
    paint(image, (250, 246, 236), 0.9 * np.clip(down / scene.horizon, 0, 1) ** 2)  # haze
    paint(image, (255, 255, 255), np.clip(1.3 * soft_noise(rng, 14, 5, size) - 0.2, 0, 1))  # clouds
    paint(image, (142, 176, 160), cover(down - scene.horizon + 0.05 - 0.06 * soft_noise(rng, 1, 5, size), 1 / size))

    nearness = np.clip((down - scene.horizon) / (1 - scene.horizon), 0, 1)
    shade = (1.1 - 0.3 * nearness) * (1 + 0.1 * soft_noise(rng, 6, 6, size) + 0.07 * soft_noise(rng, 32, 32, size))
    paint(image, np.array(grass) * shade[..., None], cover(down - scene.horizon, 1 / size))

    x, y = (right - scene.center[0]) / scene.scale, (down - scene.center[1]) / scene.scale - 1.3
    paint(image, (30, 60, 40), 0.6 * np.clip(1 - (x / 1.4) ** 2 - (y / 0.22) ** 2, 0, 1))  # shadow
    return image


def pixel_centers(size: int) -> tuple[Array, Array]:
    """Return the x and y coordinates of the pixel centers, as fractions of the image size."""
    down, right = (np.indices((size, size)) + 0.5) / size
    return right, down


def soft_noise(rng: np.random.Generator, rows: int, columns: int, size: int) -> Array:
    """Return smooth noise in [-1, 1] from a grid of rows x columns, similar at every image size."""
    grid = Image.fromarray(rng.integers(0, 256, (rows, columns), dtype=np.uint8))
    return np.asarray(grid.resize((size, size), Image.Resampling.BICUBIC)) / 127.5 - 1


def cover(depth: Array, pixel: float) -> Array:
    """Return the covered fraction of each pixel for a shape whose outline has the distance `depth`, positive inside."""
    return np.clip(depth / pixel + 0.5, 0, 1)


def paint(image: Array, color: Color | Array, amount: Array) -> None:
    """Blend a color into the image in place, with opacity `amount` (0 to 1 per pixel)."""
    image += amount[..., None] * (np.array(color) - image)


def mix(first: Color, second: Color, weight: float) -> Color:
    """Interpolate between two colors: `weight` (0 to 1) is the weight of the second."""
    return tuple(a + (b - a) * weight for a, b in zip(first, second, strict=True))


def make_dataset(output: Path, recipe: dict[str, int]) -> bool:
    """Create the dataset, completely or not at all. Return False if it exists with the same recipe.

    Raises:
        UserError: `output` is something else, or cannot be written.
    """
    found = read_recipe(output)
    if found == recipe:
        return False
    if found is not None:
        raise UserError(f"--output {output}: already exists with another recipe. Remove it, or use another --output.")
    with atomic_dir(output) as folder:
        render_dataset(folder, recipe)
    return True


def render_dataset(folder: Path, recipe: dict[str, int]) -> None:
    """Render the images into an empty folder. testA and testB have the same scenes, trainA and trainB do not."""
    for phase, stream, count in [
        ("trainA", 0, recipe["train"]),
        ("trainB", 1, recipe["train"]),
        ("testA", 2, recipe["test"]),
        ("testB", 2, recipe["test"]),
    ]:
        (folder / phase).mkdir()
        for index in range(count):
            scene = random_scene(np.random.default_rng([recipe["seed"], stream, index]))
            render(scene, COATS[phase[-1]], recipe["size"]).save(folder / phase / f"{index:04d}.png")
    (folder / "recipe.json").write_text(json.dumps(recipe, indent=2) + "\n")


def read_recipe(folder: Path) -> Any:
    """Return the recipe in a folder, None if there is none."""
    try:
        return json.loads((folder / "recipe.json").read_text())
    except (OSError, ValueError):
        return None


@exit_on_user_error()
def main() -> None:
    """Run the program."""
    parser = CLIParser(description="Render the demonstration dataset: plain ponies (A) and striped ponies (B).")
    parser.add_argument("--output", type=Path, default=Path("datasets/demo"), help="folder to create")
    parser.add_argument("--seed", type=int, default=0, help="random seed")
    parser.add_argument("--size", type=int, default=64, help="width and height of the images in pixels")
    parser.add_argument("--train", type=int, default=200, help="number of images in each of trainA, trainB")
    parser.add_argument("--test", type=int, default=20, help="number of pairs in testA, testB")
    recipe = vars(parser.parse_args())
    output = recipe.pop("output")
    for name, minimum in {"seed": 0, "size": 32, "train": 1, "test": 1}.items():
        if recipe[name] < minimum:
            raise UserError(f"--{name} {recipe[name]}: must be at least {minimum}. Use a larger value.")
    if recipe["size"] > MAX_SIZE:
        raise UserError(f"--size {recipe['size']}: must be at most {MAX_SIZE}. Use a smaller value.")

    created = make_dataset(output, {"drawing": DRAWING_VERSION, **recipe})
    print(f"{output} {'is ready' if created else 'already exists'}: plain ponies (A) and striped ponies (B), ", end="")
    print("{size} x {size} pixels; {train} + {train} unpaired to train on, {test} pairs to test on".format(**recipe))


if __name__ == "__main__":
    main()
