"""Translate videos frame by frame, with the frame times, the size and the sound of the source."""

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

from data.image_array import ImageArray
from models.inference.image_io import result_dtype
from models.inference.translator import Translator
from util.errors import UserError
from util.files import atomic_write

VIDEO_EXTENSIONS = (".avi", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mts", ".webm")  # .mts: AVCHD cameras
# Codec of each container, at a quality without visible artifacts: CRF 18 of x264, CRF 24 of VP9.
CODECS = {".webm": ("libvpx-vp9", {"crf": "24", "b:v": "0", "row-mt": "1"})}
DEFAULT_CODEC = ("libx264", {"crf": "18"})
MIN_FRAME_LEVELS = 16  # a narrower range is that of floating-point images, such as 0,1
FRAME_CHANNELS = (1, 3)  # of a generator that translates frames: gray, or RGB
BT709 = 1  # FFmpeg's AVCOL_SPC_BT709

LEVEL = 2 / 255  # one of 256 gray levels in [-1, 1]
STATIC_THRESHOLD = 2 * LEVEL  # the source is static if it changes by less
MOTION_SCALE = 8 * LEVEL  # change of the source at which smoothing drops to 1/e
MOTION_WINDOW = 5  # pixels; motion is averaged over a window so that pixel noise does not count


class VideoError(Exception):
    """A video that cannot be translated. The message is the reason, without the path."""


@dataclass(frozen=True)
class VideoStats:
    """The number of frames, and the flicker without and with smoothing (see `Flicker`)."""

    frames: int
    flicker: float
    smoothed_flicker: float


class Flicker:
    """Mean absolute change between successive frames, over the pixels where the source is static."""

    def __init__(self) -> None:
        self._total = 0.0
        self._pixels = 0
        self._previous: Tensor | None = None

    def update(self, frame: Tensor, is_static: Tensor | None) -> None:
        """Add a frame (C, H, W) in [-1, 1]. `is_static` (H, W) marks the pixels where the source did not change."""
        if self._previous is not None and is_static is not None:
            changes = (frame - self._previous).abs().mean(0)[is_static]
            self._total += float(changes.sum()) / LEVEL
            self._pixels += changes.numel()
        self._previous = frame

    @property
    def mean_abs_diff(self) -> float:
        """Mean change in gray levels of 0…255, or NaN if no pixel of the source was static."""
        return self._total / self._pixels if self._pixels else math.nan


class TemporalSmoothing:
    """Blend each output frame with the previous one where the source is static.

    If the source does not change, the weight of the previous frame is `strength`. It drops to 0 with motion. `before` and
    `after` measure the flicker without and with smoothing.
    """

    def __init__(self, strength: float) -> None:
        self.strength = strength
        self.before, self.after = Flicker(), Flicker()
        self._previous_source: Tensor | None = None
        self._previous_result: Tensor | None = None

    def __call__(self, source: Tensor, output: Tensor) -> Tensor:
        """Return the smoothed frame (C', H, W) for a source (C, H, W) and its output (C', H, W), all in [-1, 1]."""
        if source.shape[1:] != output.shape[1:]:  # --short_side
            source = F.interpolate(source[None], output.shape[1:], mode="area")[0]
        result, is_static = output, None
        if self._previous_source is not None and self._previous_result is not None:
            change = (source - self._previous_source).abs().mean(0)
            is_static = change < STATIC_THRESHOLD
            if self.strength:
                motion = F.avg_pool2d(change[None], MOTION_WINDOW, 1, MOTION_WINDOW // 2, count_include_pad=False)
                weight = self.strength * torch.exp(-((motion / MOTION_SCALE) ** 2))
                result = torch.lerp(output, self._previous_result, weight)
        self.before.update(output, is_static)
        self.after.update(result, is_static)
        self._previous_source, self._previous_result = source, result
        return result


def import_av() -> ModuleType:
    """Return the optional package PyAV. Raise UserError if it is not installed."""
    try:
        import av
    except ImportError:
        raise UserError("--input: videos need the package av. Install it with `pip install av`.") from None
    return av


def count_frames(path: Path) -> int | None:
    """Return the number of frames in the header of the file, or None if it has none."""
    try:
        with import_av().open(str(path)) as container:
            return container.streams.video[0].frames or None
    except (OSError, IndexError):  # the file is damaged; translate_video raises the error
        return None


def translate_video(
    translator: Translator,
    source: Path,
    target: Path,
    batch_size: int = 1,
    smoothing: float = 0.0,
    on_frame: Callable[[], object] = lambda: None,
) -> VideoStats:
    """Translate a video and write the result atomically.

    Frames keep their times, also with a variable frame rate. Sound is copied. Rotated frames are turned upright. Memory
    holds one batch of frames at a time.

    Args:
        translator: the generator.
        source: file to read.
        target: file to write, in the format of its extension.
        batch_size: frames in a batch.
        smoothing: 0 to 1, weight of the previous frame where the source is static; see `TemporalSmoothing`.
        on_frame: called after every frame.
    Raises:
        VideoError: the file is damaged, has no frames, or the generator or the target's container does not accept them.
        UserError: PyAV is not installed.
    """
    av = import_av()
    _check_frames_fit(translator)
    smooth = TemporalSmoothing(smoothing)
    frames = 0
    try:
        with (
            atomic_write(target) as tmp_path,
            av.open(str(source)) as reader,
            av.open(str(tmp_path), "w") as writer,
        ):
            if not reader.streams.video:
                raise VideoError("the file has no video stream")
            output = _OutputContainer(writer, reader, CODECS.get(target.suffix.lower(), DEFAULT_CODEC))
            decoded = _decode_frames(reader, output)
            while batch := list(islice(decoded, batch_size)):
                arrays = [ImageArray(_upright(frame)) for frame in batch]
                inputs = torch.stack([translator.to_tensor(array) for array in arrays])
                outputs = translator.translate(inputs).cpu()
                for frame, array, before, after in zip(batch, arrays, inputs, outputs, strict=True):
                    output.write_frame(translator.from_output(smooth(before, after), array).pixels, frame)
                    on_frame()
                frames += len(batch)
            output.close()
    except (av.error.FFmpegError, ValueError) as error:
        raise VideoError(f"FFmpeg reports: {error}") from error
    return VideoStats(frames, smooth.before.mean_abs_diff, smooth.after.mean_abs_diff)


def _check_frames_fit(translator: Translator) -> None:
    """Raise VideoError if the generator does not translate 8-bit frames to 8-bit frames."""
    for what, channels in (("reads", translator.input_nc), ("returns", translator.output_nc)):
        if channels not in FRAME_CHANNELS:
            raise VideoError(f"the generator {what} {channels} channels, but a frame has 3. Translate images instead")
    levels, dtype = translator.output_range, np.dtype(np.uint8)
    is_8_bit = levels is None or levels.hi - levels.lo >= MIN_FRAME_LEVELS - 1
    if not is_8_bit or result_dtype(dtype, levels, translator.input_range) != dtype:
        raise VideoError(f"the generator returns samples of {levels}, but a frame has 0,255. Translate images instead")


class _OutputContainer:
    """The container to write.

    The video stream needs the size of the output, which is known with the first frame. Sound that comes earlier is held.
    """

    def __init__(self, writer: Any, source: Any, codec: tuple[str, dict[str, str]]) -> None:
        self.writer = writer
        self.source = source.streams.video[0]
        self.codec = codec
        self.audio = {stream.index: writer.add_stream_from_template(stream) for stream in source.streams.audio}
        self.held_packets: list[Any] = []
        self.video: Any = None

    def write_frame(self, image: np.ndarray, source_frame: Any) -> None:
        """Write (H, W, 1 or 3) uint8 at the time of the source frame."""
        av = import_av()
        frame = av.VideoFrame.from_ndarray(np.repeat(image, 3 // image.shape[2], axis=2), format="rgb24")
        if self.video is None:
            self.video = self._add_video_stream(frame.width, frame.height)
            self.writer.mux(self.held_packets)
        # Frames of some containers have no time; the encoder then counts by the frame rate.
        frame.pts, frame.time_base = source_frame.pts, source_frame.time_base
        self.writer.mux(self.video.encode(frame.reformat(format=self.video.pix_fmt, dst_colorspace="ITU709")))

    def write_audio(self, packet: Any) -> None:
        """Copy an audio packet."""
        packet.stream = self.audio[packet.stream.index]
        if self.video is None:
            self.held_packets.append(packet)
        else:
            self.writer.mux(packet)

    def close(self) -> None:
        """Flush the encoder. Raise VideoError if there was no frame."""
        if self.video is None:
            raise VideoError("no frame could be decoded")
        self.writer.mux(self.video.encode(None))

    def _add_video_stream(self, width: int, height: int) -> Any:
        name, options = self.codec
        stream = self.writer.add_stream(name, rate=self.source.average_rate or self.source.base_rate, options=options)
        stream.width, stream.height = width, height
        stream.codec_context.time_base = self.source.time_base
        # yuv420p plays everywhere, but needs even sides with x264.
        stream.pix_fmt = "yuv420p" if name != "libx264" or width % 2 == height % 2 == 0 else "yuv444p"
        stream.codec_context.colorspace = BT709
        return stream


def _decode_frames(reader: Any, output: _OutputContainer) -> Iterator[Any]:
    """Yield the decoded frames in the order of their times, and copy the sound in between."""
    video = reader.streams.video[0]
    video.thread_type = "AUTO"
    for packet in reader.demux(video, *reader.streams.audio):
        if packet.stream is video:
            yield from packet.decode()
        elif packet.dts is not None:  # the last packet of a stream is empty
            output.write_audio(packet)


def _upright(frame: Any) -> np.ndarray:
    """Return (H, W, 3) uint8, rotated by the angle in the frame's metadata, as phones store it."""
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90))
