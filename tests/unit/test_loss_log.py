"""loss_log.txt in the published format."""

import re

import pytest

from util.train_log import LossLog, format_losses, format_losses_short


def test_a_line_has_the_published_format() -> None:
    line = format_losses(1, 100, 0.1234, 0.0041, {"G_GAN": 0.5619, "D_real": 0.1306})
    assert line == "(epoch: 1, iters: 100, time: 0.123, data: 0.004) G_GAN: 0.562 D_real: 0.131 "


@pytest.mark.parametrize(
    ("losses", "short"),
    [
        (
            {
                "G_GAN": 0.667,
                "D_real": 0.1,
                "D_fake": 0.098,
                "G": 5.55,
                "NCE": 4.9,
                "NCE_Y": 4.81,
                "D_R1": 0.001,
                "idt": 0.3,
            },
            "GAN .67 D .10/.10 G 5.5 NCE 4.9/4.8 R1 .00 idt .30",
        ),
        ({"own_loss": 1234.5, "G": float("nan"), "D": -0.999}, "own_loss 1234 G nan D -1.0"),
    ],
)
def test_losses_are_short_on_a_terminal(losses: dict[str, float], short: str) -> None:
    assert format_losses_short(losses) == short


def test_a_diverged_loss_can_be_printed() -> None:
    assert format_losses(2, 4, 1, 1, {"G": float("nan")}).endswith("G: nan ")


def test_each_start_of_a_run_appends_a_header_with_the_date(tmp_path) -> None:
    path = tmp_path / "run" / "loss_log.txt"
    LossLog(path).write("first")
    LossLog(path).write("second")
    lines = path.read_text().splitlines()
    assert [lines[1], lines[3]] == ["first", "second"]
    for header in (lines[0], lines[2]):
        assert re.fullmatch(r"=+ Training Loss \(\w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4}\) =+", header), header
