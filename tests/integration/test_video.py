"""Videos: frame times, size, sound and colors are kept; flicker is measured and smoothed."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from generators import checkpoint
from torch import Tensor

from data.value_range import ValueRange
from models import Translator
from models.inference.video import TemporalSmoothing, VideoError, translate_video
from models.networks.base import Generator
from scripts.translate import main

MILLISECOND = Fraction(1, 1000)


class Identity(Generator):
    size_multiple = min_size = 1

    def forward(self, image: Tensor) -> Tensor:
        return image.clone()


def make_video(path: Path, width: int, height: int, codec: str = "libx264", sound: str = "aac") -> list[int]:
    """Write a moving square over a ramp, with a tone. Return the irregular times of its frames in milliseconds."""
    times = [40 * number + (50 if number > 5 else 0) for number in range(12)]
    with av.open(str(path), "w") as container:
        images = container.add_stream(codec, rate=25)
        images.width, images.height = width, height
        images.pix_fmt = "yuv444p" if codec == "libx264" else "yuv420p"
        images.codec_context.time_base = MILLISECOND
        tone = container.add_stream(sound, rate=48000)
        for number, time in enumerate(times):
            pixels = np.zeros((height, width, 3), np.uint8)
            pixels[:, :, 0], pixels[:, :, 1] = 200, np.linspace(0, 255, width).astype(np.uint8)
            pixels[10:18, 2 * number : 2 * number + 8] = 255
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = time, MILLISECOND
            container.mux(images.encode(frame))
        container.mux(images.encode(None))
        wave = (np.sin(np.arange(24000) * 0.05) * 8000).astype(np.int16)[None]
        samples = av.AudioFrame.from_ndarray(wave, format="s16", layout="mono")
        samples.rate, samples.pts = 48000, 0
        for part in av.AudioResampler(tone.codec_context.format.name, "mono", 48000).resample(samples):
            container.mux(tone.encode(part))
        container.mux(tone.encode(None))
    return times


def read_frames(path: Path) -> tuple[list[int], np.ndarray]:
    """Return the times of the frames in milliseconds, and their pixels (N, H, W, 3)."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    return [round(frame.time * 1000) for frame in frames], np.stack([frame.to_ndarray(format="rgb24") for frame in frames])


def read_audio_packets(path: Path) -> list[bytes]:
    """Return the stored audio packets."""
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


@pytest.mark.parametrize(
    ("name", "size", "codec", "sound"),
    [
        ("odd.mp4", (65, 49), "libx264", "aac"),
        ("a.webm", (64, 48), "libvpx-vp9", "libopus"),
        ("b.mkv", (64, 48), "libx264", "aac"),
    ],
)
def test_times_size_sound_and_colors_are_kept(
    tmp_path: Path, name: str, size: tuple[int, int], codec: str, sound: str
) -> None:
    source, target = tmp_path / name, tmp_path / "out" / name
    times = make_video(source, *size, codec, sound)
    translator = Translator(Identity(), device=torch.device("cpu"))
    assert translate_video(translator, source, target, batch_size=5).frames == len(times)
    before, after = read_frames(source), read_frames(target)
    assert before[0] == after[0] == times
    assert before[1].shape == after[1].shape == (len(times), size[1], size[0], 3)
    assert np.abs(before[1].astype(int) - after[1]).mean() < 3
    assert len(read_audio_packets(source)) > 10 and read_audio_packets(source) == read_audio_packets(target)
    assert [path.name for path in target.parent.iterdir()] == [name]


def test_the_command_prints_the_flicker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = checkpoint(tmp_path / "run")
    make_video(tmp_path / "in.mp4", 64, 48)
    line = ["translate.py", "--checkpoint", str(weights), "--input", str(tmp_path / "in.mp4")]
    monkeypatch.setattr("sys.argv", [*line, "--output", str(tmp_path / "out.mp4"), "--smooth", "0.8", "--gpu_ids", "-1"])
    main()
    flicker = capsys.readouterr().out.splitlines()[-1].rpartition("frame: ")[2].split()
    assert float(flicker[0].rstrip(",")) > float(flicker[1]) > 0
    with pytest.raises(SystemExit) as ending:
        main()
    assert ending.value.code == 2 and "results exist" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["00001.MTS", "00001.m2ts"])
def test_a_cameras_transport_stream_is_a_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    weights = checkpoint(tmp_path / "run")
    make_video(tmp_path / "in.mts", 64, 48)
    (tmp_path / "in.mts").rename(tmp_path / name)
    line = ["translate.py", "--checkpoint", str(weights), "--input", str(tmp_path / name)]
    monkeypatch.setattr("sys.argv", [*line, "--output", str(tmp_path / "out"), "--gpu_ids", "-1"])
    main()
    assert f"12 frames translated: {tmp_path / 'out' / name}" in capsys.readouterr().out
    times, frames = read_frames(tmp_path / "out" / name)
    assert (times, frames.shape) == (read_frames(tmp_path / name)[0], (12, 48, 64, 3))


def test_flicker_is_the_change_where_the_source_is_static() -> None:
    still = torch.zeros(3, 8, 8)
    moving = still.clone()
    moving[:, :, 4:] = 1
    smooth = TemporalSmoothing(0.5)
    smooth(still, still)
    result = smooth(moving, still + 20 / 255)  # ten levels everywhere, half of them where the source moves
    assert smooth.before.mean_abs_diff == pytest.approx(10)
    assert torch.equal(result[:, :, 7], torch.full((3, 8), 20 / 255))
    assert result[0, 0, 0] == pytest.approx(10 / 255)
    assert smooth.after.mean_abs_diff < 8


def test_flicker_is_unknown_without_static_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = checkpoint(tmp_path / "run")
    with av.open(str(tmp_path / "in.mp4"), "w") as container:
        images = container.add_stream("libx264", rate=25)
        images.width = images.height = 16
        frame = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
        container.mux(images.encode(frame))  # a single one
        container.mux(images.encode(None))
    line = ["translate.py", "--checkpoint", str(weights), "--input", str(tmp_path / "in.mp4"), "--gpu_ids", "-1"]
    monkeypatch.setattr("sys.argv", [*line, "--output", str(tmp_path / "out.mp4"), "--smooth", "0.8"])
    main()
    assert capsys.readouterr().out.splitlines()[-1] == "flicker: unknown, because no pixel of the source is static"


def test_damaged_videos_are_refused_and_leave_no_file(tmp_path: Path) -> None:
    translator = Translator(Identity(), device=torch.device("cpu"))
    (tmp_path / "in.mp4").write_bytes(b"not a video" * 100)
    with pytest.raises(VideoError, match="Invalid data"):
        translate_video(translator, tmp_path / "in.mp4", tmp_path / "out" / "in.mp4")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"input_nc": 5}, "reads 5 channels"),
        ({"output_nc": 4}, "returns 4 channels"),
        ({"input_range": ValueRange(0, 1), "output_range": ValueRange(0, 1)}, "returns samples of 0,1"),
        ({"output_range": ValueRange(-500, 1000)}, "returns samples of -500,1000"),
    ],
)
def test_a_generator_of_other_images_than_frames_is_refused(tmp_path: Path, settings: dict[str, Any], reason: str) -> None:
    translator = Translator(Identity(), device=torch.device("cpu"), **settings)
    make_video(tmp_path / "in.mp4", 64, 48)
    with pytest.raises(VideoError, match=f"the generator {reason}, but a frame has"):
        translate_video(translator, tmp_path / "in.mp4", tmp_path / "out.mp4")
    assert not (tmp_path / "out.mp4").exists()


def test_a_value_range_of_8_bit_images_is_accepted(tmp_path: Path) -> None:
    percentiles = ValueRange(10, 240)
    translator = Translator(Identity(), device=torch.device("cpu"), input_range=percentiles, output_range=percentiles)
    times = make_video(tmp_path / "in.mp4", 64, 48)
    assert translate_video(translator, tmp_path / "in.mp4", tmp_path / "out.mp4").frames == len(times)
