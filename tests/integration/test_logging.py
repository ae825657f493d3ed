"""A training process with all loggers."""

import json
import os
import subprocess

import pytest
from image_factory import two_domains
from page_reader import facts_of, linked_file, read_page
from programs import ENVIRONMENT, command, opened_pages, recording_browser
from visdom_servers import HANG_GUARD_SECONDS, silent_server

pytest.importorskip("visdom")
pytest.importorskip("wandb")
events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")

TINY = """
    --name logged --CUT_mode fastcut --netG resnet_4blocks --ngf 2 --ndf 2 --load_size 36 --crop_size 32 --netF_nc 4
    --num_patches 8 --nce_layers 0,4,8 --n_epochs 2 --n_epochs_decay 0 --print_freq 2 --display_freq 2
"""


def test_a_run_logs_everywhere_although_one_server_hangs(tmp_path) -> None:
    two_domains(tmp_path / "data", n_A=4, n_B=4, size=(40, 32))
    offline = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")} | ENVIRONMENT
    with silent_server() as port:
        loggers = ["--use_tensorboard", "--use_wandb", "--display_id", "1", "--display_port", str(port)]
        done = subprocess.run(
            command("train.py", "--dataroot", "data", *TINY.split(), *loggers, "--open"),
            cwd=tmp_path,
            env=offline | {"WANDB_MODE": "offline", "HOME": str(tmp_path)} | recording_browser(tmp_path),
            capture_output=True,
            text=True,
            timeout=HANG_GUARD_SECONDS,
        )
    assert (done.returncode, done.stderr) == (0, "")
    run = tmp_path / "checkpoints/logged"
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["images"] for row in rows] == [2, 4, 6, 8]
    assert {row["learning_rate"] for row in rows} == {0.0002}

    board = events.EventAccumulator(str(run / "tensorboard")).Reload()
    curve = {event.step: event.value for event in board.Scalars("losses/NCE")}
    assert curve == {row["images"]: pytest.approx(row["losses"]["NCE"]) for row in rows}
    assert {"real_A", "fake_B", "real_B"} <= set(board.Tags()["images"])
    assert list(run.glob("wandb/offline-run-*/*.wandb"))
    page = read_page(run / "web/index.html")
    assert page.text_of("b")[:5] == ["G_GAN", "D_real", "D_fake", "G", "NCE"]
    assert page.text_of("h2") == [*(f"{number:02d}.png" for number in range(4)), "epoch 2", "epoch 1"]
    assert opened_pages(tmp_path) == [(run / "web/index.html").as_uri()]
    expected = {"status": "finished", "epoch": "2 of 2", "method": "FastCUT", "data": "data, 4 images per epoch"}
    assert facts_of(run / "web/index.html").items() >= expected.items()
    assert all(linked_file(run / "web/index.html", link).is_file() for link in page.attributes("img", "src"))
