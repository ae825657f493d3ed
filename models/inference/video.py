"""Videos: every frame translated, with its time, its size, and the sound as it was."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models.inference.image_io import ImageArray, from_output, to_tensor_from_array
from models.inference.translator import Translator
from util.errors import UserError
from util.files import atomic_write

LEVEL = 2 / 255  # one of 256 levels in [-1, 1]
STATIC_THRESHOLD = 2 * LEVEL  # a smaller change of the source is none
MOTION_SCALE = 8 * LEVEL  # a change of the source at which smoothing falls to 1/e
NEIGHBOURHOOD = 5  # pixels; motion is judged by their mean, which noise of single pixels does not move


class Flicker:
    """The figure above, gathered frame by frame."""

    def __init__(self) -> None:
        self.change = 0.0
        self.pixels = 0
        self._last: Tensor | None = None

    def add(self, translation: Tensor, still: Tensor | None) -> None:
        """Takes a frame (C, H, W) into account; `still` (H, W) marks the pixels where the source did not change."""
        if self._last is not None and still is not None:
            changes = (translation - self._last).abs().mean(0)[still]
            self.change += float(changes.sum()) / LEVEL
            self.pixels += changes.numel()
        self._last = translation

    @property
    def levels(self) -> float:
        """Mean change in levels of 0…255; not a number where nothing ever stood still."""
        return self.change / self.pixels if self.pixels else math.nan


class TemporalSmoothing:
    """Mixes each translated frame with the one before, as far as the source stands still.

    Where the source does not change, `strength` of the frame before is kept; where it moves, nothing. `before` and `after`
    are the flicker without and with it.
    """

    def __init__(self, strength: float) -> None:
        self.strength = strength
        self.before, self.after = Flicker(), Flicker()
        self._last_source: Tensor | None = None
        self._last_result: Tensor | None = None

    def __call__(self, source: Tensor, translation: Tensor) -> Tensor:
        """The smoothed frame (C', H, W), for the source (C, H, W) and its translation, in [-1, 1] all."""
        if source.shape[1:] != translation.shape[1:]:  # --short_side
            source = F.interpolate(source[None], translation.shape[1:], mode="area")[0]
        result, still = translation, None
        if self._last_source is not None and self._last_result is not None:
            change = (source - self._last_source).abs().mean(0)
            still = change < STATIC_THRESHOLD
            if self.strength:
                motion = F.avg_pool2d(change[None], NEIGHBOURHOOD, 1, NEIGHBOURHOOD // 2, count_include_pad=False)
                kept = self.strength * torch.exp(-((motion / MOTION_SCALE) ** 2))
                result = torch.lerp(translation, self._last_result, kept)
        self.before.add(translation, still)
        self.after.add(result, still)
        self._last_source, self._last_result = source, result
        return result


VIDEO_EXTENSIONS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm")
# What each container is written with; quality 18 of x264, and 24 of VP9, do not show.
CODECS = {".webm": ("libvpx-vp9", {"crf": "24", "b:v": "0", "row-mt": "1"})}
DEFAULT_CODEC = ("libx264", {"crf": "18"})
BT709 = 1  # the colors of high definition, by the number that containers give them


class VideoError(Exception):
    """This video cannot be translated. The message is the reason, without the path."""


@dataclass(frozen=True)
class VideoReport:
    """What was done, for people."""

    frames: int
    smoothing: TemporalSmoothing


def pyav() -> ModuleType:
    """The optional library. Raises UserError where it is not installed."""
    try:
        import av
    except ImportError:
        raise UserError("videos need one more package: pip install av") from None
    return av


def count_frames(path: Path) -> int | None:
    """How many frames the file says it has; None where it does not say."""
    try:
        with pyav().open(str(path)) as container:
            return container.streams.video[0].frames or None
    except (OSError, IndexError):  # every error of FFmpeg is an OSError or a ValueError; reading will say which
        return None


def translate_video(
    translator: Translator,
    source: Path,
    target: Path,
    batch_size: int = 1,
    smoothing: float = 0.0,
    on_frame: Callable[[], object] = lambda: None,
) -> VideoReport:
    """Writes the translation of a video. The file is complete or not there.

    Frames keep their times, and thus a frame rate that varies; sound is copied as it is; frames that are stored turned are
    turned upright. A batch of frames is in memory at a time.

    Args:
        smoothing: 0 to 1, how much of the frame before shows where the source stands still; see `TemporalSmoothing`.
    Raises:
        VideoError: the file is damaged, has no images, or its container does not take them.
        UserError: PyAV is not installed.
    """
    av = pyav()
    smooth = TemporalSmoothing(smoothing)
    frames = 0
    try:
        with (
            atomic_write(target) as unfinished,
            av.open(str(source)) as reader,
            av.open(str(unfinished), "w") as writer,
        ):
            if not reader.streams.video:
                raise VideoError("it has no images")
            output = _Output(writer, reader, CODECS.get(target.suffix.lower(), DEFAULT_CODEC))
            decoded = _images(reader, output)
            while batch := list(islice(decoded, batch_size)):
                samples = [ImageArray(_upright(frame)) for frame in batch]
                sources = torch.stack([to_tensor_from_array(sample, translator.input_nc) for sample in samples])
                translations = translator.translate(sources).cpu()
                for frame, sample, before, after in zip(batch, samples, sources, translations, strict=True):
                    output.write_image(from_output(smooth(before, after), sample).color, frame)
                    on_frame()
                frames += len(batch)
            output.close()
    except (av.error.FFmpegError, ValueError) as error:
        raise VideoError(f"FFmpeg says: {error}") from error
    return VideoReport(frames, smooth)


class _Output:
    """The container that is written. The track of images is made when the first image is there: before that, its size is
    not known, and sound has to wait."""

    def __init__(self, writer: Any, source: Any, codec: tuple[str, dict[str, str]]) -> None:
        self.writer = writer
        self.source = source.streams.video[0]
        self.codec = codec
        self.sounds = {stream.index: writer.add_stream_from_template(stream) for stream in source.streams.audio}
        self.waiting: list[Any] = []
        self.track: Any = None

    def write_image(self, image: np.ndarray, like: Any) -> None:
        """Writes (H, W, 1 or 3) uint8 at the time of the frame `like`."""
        av = pyav()
        frame = av.VideoFrame.from_ndarray(np.repeat(image, 3 // image.shape[2], axis=2), format="rgb24")
        if self.track is None:
            self.track = self._track(frame.width, frame.height)
            self.writer.mux(self.waiting)
        # Not every frame of every container has a time; the encoder then counts by the frame rate.
        frame.pts, frame.time_base = like.pts, like.time_base
        self.writer.mux(self.track.encode(frame.reformat(format=self.track.pix_fmt, dst_colorspace="ITU709")))

    def write_sound(self, packet: Any) -> None:
        """Copies a packet of sound."""
        packet.stream = self.sounds[packet.stream.index]
        if self.track is None:
            self.waiting.append(packet)
        else:
            self.writer.mux(packet)

    def close(self) -> None:
        """Writes what the encoder still holds."""
        if self.track is None:
            raise VideoError("not one of its images can be read")
        self.writer.mux(self.track.encode(None))

    def _track(self, width: int, height: int) -> Any:
        name, options = self.codec
        track = self.writer.add_stream(name, rate=self.source.average_rate or self.source.base_rate, options=options)
        track.width, track.height = width, height
        track.codec_context.time_base = self.source.time_base
        # Halved color, which every player knows, needs even sides.
        track.pix_fmt = "yuv420p" if name != "libx264" or width % 2 == height % 2 == 0 else "yuv444p"
        track.codec_context.colorspace = BT709
        return track


def _images(reader: Any, output: _Output) -> Iterator[Any]:
    """The decoded frames, in the order of their times; sound is copied on the way."""
    images = reader.streams.video[0]
    images.thread_type = "AUTO"
    for packet in reader.demux(images, *reader.streams.audio):
        if packet.stream is images:
            yield from packet.decode()
        elif packet.dts is not None:  # the last packet of a stream is an empty one
            output.write_sound(packet)


def _upright(frame: Any) -> np.ndarray:
    """(H, W, 3) uint8; phones store frames turned, and say so."""
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90))
