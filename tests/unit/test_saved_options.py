"""Saved options of a run: what a test reads from them, and damaged or malicious files."""

import json
import runpy
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from programs import ROOT, refuse

from models import create_model
from options import TestOptions, TrainOptions
from options.base_options import ARCHITECTURE
from options.saved_options import (
    MACHINE_READABLE,
    TEXT,
    describe_test_geometry,
    parse_training,
    save_options,
    saved_architecture_args,
)
from util.errors import UserError
from util.runtime.weights import save_weights, write_safetensors
from util.version import program_version

parse_with_saved_options = runpy.run_path(str(ROOT / "test.py"))["parse_with_saved_options"]

TINY = ["--netG", "resnet_4blocks", "--ngf", "2", "--ndf", "2", "--load_size", "32", "--crop_size", "32"]
OTHERWISE = ["--input_nc", "1", "--output_nc", "1", "--normG", "batch", "--normD", "none", "--no_dropout", "no"]

UNET = ["--netG", "unet_128", "--load_size", "128", "--crop_size", "128"]


def options_of_training(folder: Path, *arguments: str) -> Namespace:
    """Return the options of a run, saved in `folder`."""
    opt = TrainOptions().parse(["--checkpoints_dir", str(folder), "--name", "run", "--gpu_ids", "-1", *arguments])
    save_options(opt, folder / "run")
    return opt


def options_of_test(folder: Path, *arguments: str) -> Namespace:
    """Return the options of a test of that run, which has no saved options if it was not trained."""
    (folder / "run").mkdir(exist_ok=True)
    return parse_with_saved_options(["--checkpoints_dir", str(folder), "--name", "run", "--gpu_ids", "-1", *arguments])


def write_saved(folder: Path, content: str | bytes) -> Path:
    """Write `content` as the saved options of the run."""
    path = folder / "run" / MACHINE_READABLE
    path.parent.mkdir()
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def architecture(opt: Namespace) -> dict[str, Any]:
    """Return the architecture options, which a test must share with the training."""
    parser = TestOptions().parser([])
    (group,) = (group for group in parser._action_groups if group.title == ARCHITECTURE)
    return {action.dest: getattr(opt, action.dest) for action in group._group_actions}


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--ngf", "8", "--netG", "resnet_6blocks", "--no_antialias", "--direction", "BtoA"],
        ["--CUT_mode", "FastCUT", "--no_antialias_up", "--netD", "n_layers", "--n_layers_D", "2", *OTHERWISE],
        ["--model", "cycle_gan", "--input_nc", "1", "--lambda_identity", "0", "--no_antialias", "--no_antialias_up"],
        ["--model", "sincut", "--netG", "smallstylegan2", "--stylegan2_G_num_downsampling", "2"],
        ["--netD", "tilestylegan2", "--D_patch_size", "32", "--ndf", "8"],
    ],
    ids=" ".join,
)
def test_a_test_uses_the_saved_architecture(tmp_path: Path, arguments: list[str]) -> None:
    expected = architecture(options_of_training(tmp_path, *arguments))
    assert architecture(options_of_test(tmp_path)) == expected


@pytest.mark.parametrize(
    ("trained", "tested", "line"),
    [
        (["resize_and_crop", "72", "64"], ("resize_and_crop", 64, 64), "tested at 64 px, as trained"),
        (["resize", "48", "64"], ("resize", 48, 64), "tested at 48 px, on whole images, as trained"),
        (["none", "72", "64"], ("none", 72, 64), "tested on whole images, as trained"),
        (["crop", "72", "64"], ("none", 72, 64), "tested on whole images, trained on crops of 64 px"),
        (["zoom_and_patch", "72", "64"], ("none", 72, 64), "tested on whole images, trained on crops of 64 px"),
        (
            ["scale_width_and_crop", "512", "64"],
            ("scale_width", 512, 64),
            "tested at a width of 512 px, on whole images, trained on crops of 64 px",
        ),
        (
            ["scale_shortside_and_trim", "72", "64"],
            ("scale_shortside", 72, 64),
            "tested at a short side of at least 72 px, on whole images, trained on crops of 64 px",
        ),
    ],
)
def test_a_test_uses_the_saved_geometry(tmp_path: Path, trained: list[str], tested: tuple, line: str) -> None:
    preprocess, load_size, crop_size = trained
    options_of_training(tmp_path, "--preprocess", preprocess, "--load_size", load_size, "--crop_size", crop_size)
    opt = options_of_test(tmp_path)
    assert (opt.preprocess, opt.load_size, opt.crop_size) == tested
    assert opt.net_size == min(int(load_size), int(crop_size))
    assert describe_test_geometry(opt) == line


def test_a_run_with_the_published_sizes_is_tested_as_published(tmp_path: Path) -> None:
    published = options_of_test(tmp_path, "--CUT_mode", "CUT")
    options_of_training(tmp_path, "--CUT_mode", "CUT")
    assert options_of_test(tmp_path, "--CUT_mode", "CUT") == published
    assert (published.preprocess, published.load_size, published.crop_size) == ("resize_and_crop", 256, 256)


def test_a_unet_is_tested_on_the_center_because_it_does_not_accept_every_size(tmp_path: Path) -> None:
    sizes = ["--load_size", "300", "--crop_size", "128"]
    options_of_training(tmp_path, "--model", "cycle_gan", "--netG", "unet_128", "--preprocess", "crop", *sizes)
    opt = options_of_test(tmp_path)
    assert opt.preprocess == "crop"
    assert describe_test_geometry(opt) == "tested on the central 128 px, as trained"


@pytest.mark.parametrize(
    ("arguments", "tested", "notes"),
    [
        (
            ["--crop_size", "256"],
            ("resize_and_crop", 256, 256),
            ["--crop_size is 256 here, but a test of this run has 64 by default"],
        ),
        (["--crop_size", "64", "--load_size", "64"], ("resize_and_crop", 64, 64), []),
        (
            ["--load_size", "80"],
            ("resize_and_crop", 80, 64),
            ["--load_size is 80 here, but a test of this run has 64 by default"],
        ),
        (
            ["--preprocess", "none"],
            ("none", 64, 64),
            ["--preprocess is none here, but a test of this run has resize_and_crop by default"],
        ),
    ],
)
def test_explicit_sizes_override_the_saved_ones_with_a_note(
    tmp_path: Path, arguments: list[str], tested: tuple, notes: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    options_of_training(tmp_path, "--load_size", "72", "--crop_size", "64")
    opt = options_of_test(tmp_path, *arguments)
    assert (opt.preprocess, opt.load_size, opt.crop_size) == tested
    assert capsys.readouterr().out.splitlines() == [f"note: {note}" for note in notes]
    assert describe_test_geometry(opt).endswith(", not at 64 px as trained" if notes else "tested at 64 px, as trained")


def test_the_saved_data_root_is_used_with_its_dataset_mode(tmp_path: Path) -> None:
    options_of_training(tmp_path, "--dataroot", "datasets/pairs", "--dataset_mode", "aligned")
    assert (options_of_test(tmp_path).dataroot, options_of_test(tmp_path).dataset_mode) == ("datasets/pairs", "aligned")
    other = options_of_test(tmp_path, "--dataroot", "photos")
    assert (other.dataroot, other.dataset_mode) == ("photos", "unaligned")
    alone = options_of_test(tmp_path, "--model", "test")
    assert (alone.dataroot, alone.dataset_mode) == ("datasets/pairs", "single")


def test_a_sincut_run_is_always_tested_on_whole_images(tmp_path: Path) -> None:
    options_of_training(tmp_path, "--model", "sincut")
    for way in ([], ["--dataset_mode", "single"], ["--model", "test"]):
        assert options_of_test(tmp_path, *way).preprocess == "none", way


def test_a_test_uses_no_other_saved_option(tmp_path: Path) -> None:
    expected = options_of_test(tmp_path)
    options_of_training(
        tmp_path, *("--max_dataset_size", "9", "--no_flip", "--seed", "7", "--batch_size", "3", "--phase", "val")
    )
    assert options_of_test(tmp_path) == expected
    assert options_of_test(tmp_path, "--seed", "7").explicit == {"checkpoints_dir", "name", "gpu_ids", "seed"}


@pytest.mark.parametrize(
    ("arguments", "test_arguments"),
    [
        (["--no_antialias", *OTHERWISE], []),
        (["--model", "cycle_gan", "--input_nc", "1", "--lambda_identity", "0"], []),
        (["--model", "cycle_gan", "--no_antialias_up"], ["--model", "test", "--model_suffix", "_A"]),
        (
            ["--model", "cycle_gan", "--input_nc", "1", "--lambda_identity", "0"],
            ["--model", "test", "--model_suffix", "_B"],
        ),
        (["--model", "sincut", "--netG", "smallstylegan2", "--netD", "basic"], []),
    ],
    ids=" ".join,
)
def test_trained_weights_load_without_architecture_options(
    tmp_path: Path, arguments: list[str], test_arguments: list[str]
) -> None:
    model = create_model(options_of_training(tmp_path, *TINY, *arguments))
    model.save_networks("latest")
    loaded = create_model(options_of_test(tmp_path, *test_arguments, "--seed", "5"))
    loaded.load_networks("latest")
    for name, network in loaded.networks.items():
        for key, weight in network.state_dict().items():
            assert torch.equal(weight, model.networks[name].state_dict()[key]), key


@pytest.mark.parametrize(
    ("training", "testing"),
    [
        (["--no_antialias", *OTHERWISE], []),
        ([*UNET, "--model", "cycle_gan"], ["--model", "test", "--model_suffix", "_B"]),
        ([*UNET, "--model", "cycle_gan"], ["--model", "cycle_gan"]),
        (["--model", "sincut", "--stylegan2_G_num_downsampling", "2"], []),
        (["--ema", "0.9", "--netG", "resnet_6blocks", "--no_antialias_up"], ["--ema"]),
    ],
    ids=str,
)
@pytest.mark.parametrize("format", [".pth", ".safetensors"])
def test_weights_alone_are_enough_to_test(tmp_path: Path, training: list[str], testing: list[str], format: str) -> None:
    model = create_model(TrainOptions().parse(["--checkpoints_dir", str(tmp_path), "--name", "run", *TINY, *training]))
    for name, network in model.saved_networks.items():
        if name.startswith("G"):
            write = save_weights if format == ".pth" else write_safetensors
            (tmp_path / "run").mkdir(exist_ok=True)
            write(network, tmp_path / "run" / f"latest_net_{name}{format}")
    loaded = create_model(options_of_test(tmp_path, *testing))
    loaded.load_networks("latest")
    assert all(type(network) is type(model.generators.get(name, network)) for name, network in loaded.networks.items())


def test_an_unknown_run_is_reported_with_the_runs_that_exist(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for run in ("horse2zebra_CUT", "group/cat2dog"):
        (tmp_path / run).mkdir(parents=True)
        (tmp_path / run / "latest_net_G.pth").touch()
    expected = (
        f"--name horse2zebra: no such run. Did you mean horse2zebra_CUT? "
        f"{tmp_path} has the runs group/cat2dog, horse2zebra_CUT."
    )
    arguments = ["--checkpoints_dir", str(tmp_path), "--name", "horse2zebra"]
    for parse in (parse_with_saved_options, lambda arguments: parse_training([*arguments, "--continue_train"])):
        with pytest.raises(UserError) as refused:
            parse(arguments)
        assert str(refused.value) == expected
    with pytest.raises(UserError, match=r"--name: missing, and no run has the default name experiment_name\. .* the runs"):
        parse_with_saved_options(arguments[:2])
    with pytest.raises(SystemExit):
        parse_with_saved_options([*arguments[:2], "--nam", "horse2zebra_CUT"])
    assert capsys.readouterr().err.startswith("error: unrecognized arguments: --nam horse2zebra_CUT. Did you mean --name?")
    assert parse_training(arguments).name == "horse2zebra"  # a new run


def test_the_command_line_overrides_saved_options_with_a_note(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options_of_training(tmp_path, "--ngf", "8", "--netG", "resnet_6blocks", "--normG", "batch")
    opt = options_of_test(tmp_path, "--ngf", "16", "--normG", "batch", "--no_antialias")
    assert (opt.ngf, opt.netG, opt.normG, opt.no_antialias) == (16, "resnet_6blocks", "batch", True)
    assert capsys.readouterr().out.splitlines() == [
        "note: --ngf is 16 here, but the run was trained with 8",
        "note: --no_antialias is True here, but the run was trained with False",
    ]


def test_an_explicit_default_value_overrides_the_saved_one(tmp_path: Path) -> None:
    options_of_training(tmp_path, "--ngf", "8", "--direction", "BtoA", "--no_dropout", "no")
    opt = options_of_test(tmp_path, "--ngf", "64", "--direction", "AtoB", "--no_dropout")
    assert (opt.ngf, opt.direction, opt.no_dropout) == (64, "AtoB", True)


def test_without_saved_options_the_defaults_are_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--checkpoints_dir", str(tmp_path), "--name", "run", "--gpu_ids", "-1", "--ngf", "8"]
    assert options_of_test(tmp_path, "--ngf", "8") == TestOptions().parse(arguments)
    assert saved_architecture_args(TestOptions().parse(arguments)) == []
    assert capsys.readouterr().out == ""


def test_missing_saved_options_have_their_defaults(tmp_path: Path) -> None:
    write_saved(tmp_path, '{"ngf": 8, "normG": null, "of another time": 3}')
    assert architecture(options_of_test(tmp_path)) == architecture(TestOptions().parse(["--ngf", "8"]))


def test_options_are_saved_as_json_and_text(tmp_path: Path) -> None:
    opt = options_of_training(tmp_path, "--ngf", "8", "--dataroot", "images\udcff", "--nce_idt", "no")

    def refuse_constant(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    recorded = json.loads((tmp_path / "run" / MACHINE_READABLE).read_text("ascii"), parse_constant=refuse_constant)
    expected = {name: value for name, value in vars(opt).items() if name not in ("explicit", "isTrain", "training_side")}
    assert recorded == expected | {"max_dataset_size": None, "program": program_version()}  # the limit is infinity

    lines = [line.split() for line in (tmp_path / "run" / TEXT).read_text("utf-8").splitlines()[1:-1]]
    assert [line[0] for line in lines] == [f"{name}:" for name in sorted(expected)]
    assert {line[0] for line in lines if line[-1] == "[given]"} == {f"{name}:" for name in opt.explicit}
    assert ["ngf:", "8", "[given]"] in lines
    assert ["ndf:", "64"] in lines


@pytest.mark.parametrize(
    "arguments",
    [
        ["--fast", "--precision", "fp32", "--channels_last", "no", "--deterministic"],
        ["--model", "sincut", "--lambda_R1", "2", "--singleimage_published_sampling", "--nce_idt", "no"],
        [
            "--model",
            "cycle_gan",
            "--lambda_A",
            "5",
            "--dataset_mode",
            "aligned",
            "--preprocess",
            "none",
            "--max_dataset_size=7",
        ],
        [
            "--CUT_mode",
            "FastCUT",
            "--load_size",
            "1000",
            "--crop_size",
            "900",
            "--lpips",
            "--features",
            "a file",
            "--paired",
        ],
    ],
    ids=" ".join,
)
def test_a_resumed_training_has_the_options_of_its_run(tmp_path: Path, arguments: list[str]) -> None:
    started = options_of_training(tmp_path, "--dataroot=-images", *arguments)
    runtime = ["--checkpoints_dir", str(tmp_path), "--name", "run", "--gpu_ids", "-1", "--continue_train"]
    resumed = parse_training(runtime)
    assert resumed.continue_train
    assert vars(resumed) | {"continue_train": False, "explicit": started.explicit} == vars(started)
    assert resumed.explicit == started.explicit | {"continue_train"}
    # Options of a method that only the saved options name, and a size that is wrong without them.
    if resumed.model == "sincut":
        assert parse_training([*runtime, "--lambda_R1", "3"]).lambda_R1 == 3
    if resumed.crop_size == 900:
        assert parse_training([*runtime, "--crop_size", "1000"]).net_size == started.net_size == 900


def test_a_new_training_has_no_option_of_an_earlier_run(tmp_path: Path) -> None:
    options_of_training(tmp_path, "--ngf", "8")
    arguments = ["--checkpoints_dir", str(tmp_path), "--name", "run"]
    for more in (["--overwrite"], ["--continue_train", "--pretrained_name", "run"]):
        assert parse_training([*arguments, *more]) == TrainOptions().parse([*arguments, *more])


@pytest.mark.parametrize(("option", "value"), [("lr", "fast"), ("dataroot", ["a"]), ("CUT_mode", 3), ("no_flip", "yes")])
def test_malicious_options_of_a_resumed_training_are_named(tmp_path: Path, option: str, value: Any) -> None:
    path = write_saved(tmp_path, json.dumps({option: value}))
    with pytest.raises(UserError, match=rf"damaged \({option} is "):
        parse_training(["--checkpoints_dir", str(tmp_path), "--name", "run", "--continue_train"])
    assert path.exists()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        '{"ngf": 8',
        "not json",
        "[1, 2]",
        '"ngf"',
        "3",
        "null",
        b"\xff\xfe\x00{}",
        "[" * 200_000,
        '{"ngf": ' + "9" * 5000 + "}",
        "<html>404</html>",
    ],
    ids=lambda content: repr(content[:12]),
)
def test_damaged_saved_options_are_named(tmp_path: Path, content: str | bytes) -> None:
    path = write_saved(tmp_path, content)
    with pytest.raises(UserError) as refused:
        options_of_test(tmp_path)
    assert str(refused.value).startswith(f"{path}: damaged (")
    assert str(refused.value).endswith("). Remove the file and set the architecture options explicitly.")
    assert "\n" not in str(refused.value)


def test_a_folder_named_like_the_saved_options_is_named(tmp_path: Path) -> None:
    (tmp_path / "run" / MACHINE_READABLE).mkdir(parents=True)
    with pytest.raises(UserError, match=r"train_opt\.json: damaged \(.*Is a directory"):
        options_of_test(tmp_path)


HOSTILE = [
    *[("ngf", value) for value in ("x", -5, 0, 1.5, True, [64], {"a": 1}, float("inf"), "--help", " " * 9999, [[]] * 9999)],
    *[("netG", value) for value in ("bogus", 7, ["resnet_9blocks"], "--help", "resnet_9blocks --help", "x\ny", "\ud800")],
    *[("model", value) for value in ("bogus", ["cut"], {"cut": 1}, 3, True)],
    *[("no_antialias", value) for value in ("yes", 1, [], "--help")],
    *[("no_dropout", value) for value in ("--help", 7, [], "maybe")],
    *[("direction", value) for value in ("sideways", "-1", 0)],
]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *[("load_size", value) for value in ("wide", 0, -1, 1.5, [64])],
        *[("preprocess", value) for value in ("bogus", 7, ["crop"], "--help")],
        *[("dataroot", value) for value in (7, ["data"])],
        *[("dataset_mode", value) for value in ("bogus", ["single"], 1)],
    ],
)
def test_malicious_saved_sizes_and_data_are_named(tmp_path: Path, option: str, value: Any) -> None:
    valid = {"preprocess": "crop", "load_size": 72, "crop_size": 64, "dataroot": "data", "dataset_mode": "aligned"}
    path = write_saved(tmp_path, json.dumps(valid | {option: value}))
    with pytest.raises(UserError) as refused:
        options_of_test(tmp_path)
    assert str(refused.value).startswith(f"{path}: damaged ({option} is ")


@pytest.mark.parametrize(("option", "value"), HOSTILE, ids=lambda value: str(value)[:12].encode("ascii", "replace").decode())
def test_malicious_saved_options_are_named(tmp_path: Path, option: str, value: Any) -> None:
    path = write_saved(tmp_path, json.dumps({option: value}))
    with pytest.raises(UserError) as refused:
        options_of_test(tmp_path)
    said = str(refused.value)
    assert said.startswith(f"{path}: damaged (")
    assert "\n" not in said
    assert len(said) < len(str(path)) + 300


def test_saved_options_that_a_test_does_not_use_are_not_checked(tmp_path: Path) -> None:
    path = write_saved(tmp_path, '{"model": "sincut", "net_size": "wide"}')
    with pytest.raises(UserError, match="net_size is 'wide'"):
        options_of_test(tmp_path)
    path.write_text('{"model": "cut", "lr": "wide"}')
    assert options_of_test(tmp_path).load_size == 256


def test_huge_saved_networks_are_refused(tmp_path: Path) -> None:
    write_saved(tmp_path, '{"ngf": 1000000000000}')
    with pytest.raises(UserError, match="--ngf 1000000000000: the network is too large"):
        create_model(options_of_test(tmp_path))


def test_the_program_prints_a_one_line_error(tmp_path: Path) -> None:
    write_saved(tmp_path, '{"netG": ["resnet_9blocks"], "model": ["\\ud800"]}')
    line = refuse(tmp_path, "test.py", "--checkpoints_dir", str(tmp_path), "--name", "run")
    assert line.startswith(f"error: {tmp_path / 'run' / MACHINE_READABLE}: damaged (model is ")
