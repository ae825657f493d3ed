"""Geometry of training and of a test: which part of an image is used, and at which size."""

from data.transforms import RESIZE_OPS, parse_preprocess

RESIZE_AND_CROP = {"resize", "crop"}
CUTS = {"crop", "patch", "trim"}  # operations after which no side is longer than --crop_size
MAX_JITTER = 1.2  # --load_size over --crop_size, up to which the difference is room for random crops


def training_side(preprocess: str, load_size: int, crop_size: int) -> int:
    """Return the side of training images in pixels; without a cut, which may leave any shape, the smaller size named."""
    return crop_size if CUTS & set(parse_preprocess(preprocess)) else min(load_size, crop_size)


def crops_need_large_images(preprocess: str) -> bool:
    """Return True if images are cropped as they are: neither resized, which `check_sizes` covers, nor zoomed."""
    ops = set(parse_preprocess(preprocess))
    return bool({"crop", "patch"} & ops) and not {*RESIZE_OPS, "zoom"} & ops


def decay_changes_scale(preprocess: str, load_size: int, crop_size: int) -> bool:
    """Return True if images have clearly another scale while the learning rate decays.

    From then on they are resized to `crop_size`, as published: crops have no jitter. scale_shortside resizes small images
    only, and does not count.
    """
    ops = set(parse_preprocess(preprocess))
    if not (RESIZE_OPS.keys() - {"scale_shortside"}) & ops:
        return False
    return load_size > MAX_JITTER * crop_size or (load_size < crop_size and not CUTS & ops)


def geometry_for_test(preprocess: str, load_size: int, crop_size: int, *, any_size: bool = True) -> tuple[str, int]:
    """Return --preprocess and --load_size of a test, from the values that a run was trained with.

    Random operations are augmentation, so a test translates whole images, resized as in training. resize_and_crop tests
    at `crop_size`, as published: `load_size` is a few pixels larger only to leave room for the crop.

    Args:
        any_size: the generator accepts images of any size. Otherwise the test keeps crops, which then cut the center.
    """
    ops = parse_preprocess(preprocess)
    if set(ops) >= RESIZE_AND_CROP:
        return preprocess, crop_size
    kept = [op for op in ops if op in RESIZE_OPS or not any_size]
    return "_and_".join(kept) or "none", load_size


def describe_geometry(preprocess: str, load_size: int, crop_size: int) -> str:
    """Return a text such as "at 64 px" or "on whole images" for the values of a test."""
    ops = parse_preprocess(preprocess)
    if set(ops) >= RESIZE_AND_CROP and load_size == crop_size:
        return f"at {load_size} px"
    resized = {
        "fixsize": f"at a short side of {load_size} px",
        "resize": f"at {load_size} px",
        "scale_width": f"at a width of {load_size} px",
        "scale_shortside": f"at a short side of at least {load_size} px",
    }
    parts = [resized[op] for op in ops if op in RESIZE_OPS]
    parts.append(f"on the central {crop_size} px" if CUTS & set(ops) else "on whole images")
    return ", ".join(parts)


def describe_training_geometry(preprocess: str, load_size: int, crop_size: int) -> str:
    """Return a text such as "resized to 286x286, cropped to 256x256" for the values of a training."""
    described = {
        "fixsize": f"resized to a short side of {load_size}",
        "resize": f"resized to {load_size}x{load_size}",
        "scale_width": f"resized to a width of {load_size}",
        "scale_shortside": f"enlarged to a short side of {load_size}",
        "zoom": "zoomed",
        "crop": f"cropped to {crop_size}x{crop_size}",
        "patch": f"cut into patches of {crop_size}x{crop_size}",
        "trim": f"trimmed to {crop_size}x{crop_size}",
    }
    return ", ".join(described[op] for op in parse_preprocess(preprocess)) or "not resized"
