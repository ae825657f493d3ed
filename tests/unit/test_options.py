"""Parsing of command lines: precedence of defaults, errors, help, and independence of the machine."""

import os
import re
import sys
from argparse import Action, ArgumentTypeError, Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from programs import ROOT, succeed

from models import MODELS
from options import TestOptions, TrainOptions
from util.cli_suggestions import RENAMED

OPTIONS = {"train": TrainOptions, "test": TestOptions}
COMMANDS = [(command, "--model", model) for command in OPTIONS for model in MODELS]
MODES = [*COMMANDS, ("train", "--CUT_mode", "FastCUT"), ("test", "--CUT_mode", "fastcut")]
FASTCUT = {"lambda_NCE": 10.0, "nce_idt": False, "flip_equivariance": True, "n_epochs": 150, "n_epochs_decay": 50}
CUT = {"lambda_NCE": 1.0, "nce_idt": True, "flip_equivariance": False, "n_epochs": 200, "n_epochs_decay": 200}
BOOLEANS = ("nce_idt", "flip_equivariance", "no_dropout", "nce_includes_all_negatives_from_minibatch")


def parse(command: str, *arguments: str) -> Namespace:
    return OPTIONS[command]().parse(arguments)


def refusal(capsys: pytest.CaptureFixture[str], command: str, *arguments: str) -> str:
    """Return the error of a wrong command line. Check that it is one line and that the exit status is 2."""
    with pytest.raises(SystemExit) as stop:
        parse(command, *arguments)
    said = capsys.readouterr()
    assert (stop.value.code, said.out) == (2, "")
    (line,) = said.err.splitlines()
    assert line.startswith("error: ")
    assert "usage" not in line
    return line


def declared(command: str, *arguments: str) -> list[Action]:
    """Return the options of this command line, except those that other options depend on."""
    actions = OPTIONS[command]().parser(arguments)._actions
    others = ("help", "version", "model", "CUT_mode", "dataset_mode", "suffix", "pretrained_name")
    return [action for action in actions if action.dest not in others]


# Values that are compatible with the defaults of the other options.
COMPATIBLE = {"diffaugment": "cutout", "preprocess": "patch", "load_size": "1600", "crop_size": "16"}


def another_value(action: Action) -> tuple[list[str], Any]:
    """Return arguments that set the option to another value than its default, and this value."""
    if action.nargs == 0:
        return [], True
    candidates = action.choices or ("7", "0.25", "1.5", "yes", "no", "step", "1,2")
    for text in [COMPATIBLE.get(action.dest, ""), *candidates]:
        try:
            value = action.type(text) if callable(action.type) else text
        except (ArgumentTypeError, ValueError):
            continue
        if text and value != action.default:
            return [text], value
    raise AssertionError(f"no other value is known for {action.dest}")


@pytest.mark.parametrize("case", MODES, ids=" ".join)
def test_explicit_options_override_all_defaults(case: tuple[str, ...]) -> None:
    for action in declared(*case):
        text, value = another_value(action)
        opt = parse(*case, *action.option_strings, *text)
        assert getattr(opt, action.dest) == value != action.default, action.dest
        assert action.dest in opt.explicit


@pytest.mark.parametrize("case", MODES, ids=" ".join)
def test_an_explicit_value_equal_to_the_shared_default_overrides_the_model(case: tuple[str, ...]) -> None:
    shared = {action.dest: action.default for action in declared(case[0])}
    for action in declared(*case):
        value = shared.get(action.dest)
        if action.nargs == 0 or value in (None, float("inf")):
            continue
        fitting = ["--preprocess", "none"] if action.dest in ("load_size", "crop_size") else []
        opt = parse(*case, *fitting, *action.option_strings, str(value))
        assert getattr(opt, action.dest) == value, action.dest
        assert action.dest in opt.explicit


def test_defaults_of_the_mode_override_those_of_the_model() -> None:
    for mode in ("FastCUT", "fastcut"):
        opt = parse("train", "--CUT_mode", mode)
        assert {name: getattr(opt, name) for name in FASTCUT} == FASTCUT
    for mode in ("CUT", "cut"):
        opt = parse("train", "--CUT_mode", mode)
        assert {name: getattr(opt, name) for name in FASTCUT} == CUT
    layers = [parse("train", "--model", "sincut", *more).nce_layers for more in ([], ["--netG", "smallstylegan2"])]
    assert layers == ["0,2,4", "0,2,3"]


def test_defaults_of_the_model_override_the_shared_ones() -> None:
    def shown(command: str, model: str, names: str) -> list[Any]:
        opt = parse(command, "--model", model)
        return [getattr(opt, name) for name in names.split()]

    assert shown("train", "cut", "netG ngf lr pool_size gan_mode") == ["resnet_9blocks", 64, 0.0002, 0, "lsgan"]
    assert shown("train", "cycle_gan", "netG ngf lr pool_size gan_mode") == ["resnet_9blocks", 64, 0.0002, 50, "lsgan"]
    assert shown("train", "sincut", "netG ngf lr pool_size gan_mode") == ["stylegan2", 10, 0.002, 0, "nonsaturating"]
    assert shown("train", "sincut", "dataset_mode preprocess num_patches") == ["singleimage", "zoom_and_patch", 1]
    assert shown("test", "sincut", "dataset_mode preprocess num_test") == ["singleimage", "none", 1]
    assert shown("test", "test", "dataset_mode preprocess num_test") == ["single", "resize_and_crop", 50]


def test_defaults_of_the_dataset() -> None:
    assert parse("train", "--dataset_mode", "singleimage").preprocess == "zoom_and_patch"
    assert parse("test", "--dataset_mode", "singleimage").preprocess == "none"
    assert parse("train", "--dataset_mode", "singleimage", "--preprocess", "none").preprocess == "none"


@pytest.mark.parametrize("case", COMMANDS, ids=" ".join)
def test_options_depend_on_the_command_line_only(
    case: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command, *arguments = case
    arguments += ["--gpu_ids", "3", "--dataroot", "nowhere", "--checkpoints_dir", "never", "--name", "x", "--epoch", "9"]
    expected = parse(command, *arguments)

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("parsing looked at a file or a device")

    with monkeypatch.context() as elsewhere:
        elsewhere.chdir(tmp_path)
        elsewhere.setattr(sys, "argv", ["other.py", "--ngf", "7", "--nonsense"])
        for variable in ("CUDA_VISIBLE_DEVICES", "HOME", "COLUMNS", "PWD"):
            elsewhere.setenv(variable, "0")
        elsewhere.setenv("LANGUAGE", "C")  # argparse looks for translations of its own words otherwise
        for module, names in {
            os: ("stat", "open", "mkdir", "listdir", "scandir"),
            torch.cuda: ("is_available", "device_count", "init"),
            torch.backends.mps: ("is_available",),
        }.items():
            for name in names:
                elsewhere.setattr(module, name, forbidden)
        elsewhere.setattr("builtins.open", forbidden)
        elsewhere.setattr("io.open", forbidden)
        opt = parse(command, *arguments)
    assert opt == expected
    assert list(tmp_path.iterdir()) == []


def test_sys_argv_is_parsed_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["--CUT_mode", "FastCUT", "--ngf", "7"]
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    assert TrainOptions().parse() == TrainOptions().parse(arguments) != TrainOptions().parse([])
    assert arguments == ["--CUT_mode", "FastCUT", "--ngf", "7"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ("--model bogus", "--model: invalid choice: 'bogus'"),
        ("--netG resnet_cat", "--netG: invalid choice: 'resnet_cat'"),
        ("--CUT_mode C", "--CUT_mode: invalid choice: 'C'"),
        ("--model cycle_gan --CUT_mode CUT", "unrecognized arguments: --CUT_mode CUT"),
        ("--ngf x", "--ngf: 'x' is not an integer of at least 1"),
        ("--ngf 1.5", "--ngf: '1.5' is not an integer of at least 1"),
        ("--ngf -4", "--ngf: '-4' is not an integer of at least 1"),
        ("--batch_size 0", "--batch_size: '0' is not an integer of at least 1"),
        ("--num_patches 0", "--num_patches: '0' is not an integer of at least 1"),
        ("--print_freq 0", "--print_freq: '0' is not an integer of at least 1"),
        ("--n_epochs -1", "--n_epochs: '-1' is not an integer of at least 0"),
        ("--n_epochs 1000000000000001", r"--n_epochs: '1000000000000001' is too large, the maximum is 1e\+15"),
        ("--seed 18446744073709551616", r"--seed: '18446744073709551616' is too large, the maximum is 1.84467e\+19"),
        ("--lambda_NCE 1e101", r"--lambda_NCE: '1e101' is too large, the maximum is 1e\+100"),
        ("--n_layers_D 17", "--n_layers_D: '17' is not an integer from 1 to 16"),
        ("--stylegan2_G_num_downsampling 17", "--stylegan2_G_num_downsampling: '17' is not an integer from 1 to 16"),
        ("--seed -1", "--seed: '-1' is not an integer of at least 0"),
        ("--lr 0", "--lr: '0' is not a number above 0"),
        ("--lr nan", "--lr: 'nan' is not a number above 0"),
        ("--lambda_NCE -1", "--lambda_NCE: '-1' is not a number of at least 0"),
        ("--lambda_GAN inf", "--lambda_GAN: 'inf' is not a number of at least 0"),
        ("--beta1 1", "--beta1: '1' is not a number of at least 0 and less than 1"),
        ("--random_scale_max 0.5", "--random_scale_max: '0.5' is not a number of at least 1"),
        ("--lr_policy plateau", "--lr_policy: plateau needs a quality metric.* Use one of linear, step, cosine"),
        ("--lr_policy bogus", "--lr_policy: 'bogus' is not one of linear, step, cosine"),
        ("--nce_layers 0,a", "--nce_layers: '0,a' is not a list of layers such as 0,4,8,12,16"),
        ("--nce_layers 0,,4", "--nce_layers: '0,,4' is not a list"),
        ("--nce_layers 0;4", "--nce_layers: '0;4' is not a list"),
        ("--nce_idt maybe", "--nce_idt: 'maybe' is neither yes/true/t/y/1 nor no/false/f/n/0"),
        ("--load_size 100", "--load_size 100: smaller than --crop_size 256, .* Use --load_size 256 or more"),
        ("--preprocess fixsize_and_patch --load_size 100", "--load_size 100: smaller than --crop_size 256"),
        ("--crop_size 300", "--load_size 286: smaller than --crop_size 300, .* Use --load_size 300 or more"),
        ("--preprocess resize_und_crop", "--preprocess 'resize_und_crop': unknown operation 'und'. Use none, or .* fixsize"),
        ("--bogus 3", "unrecognized arguments: --bogus 3"),
        ("--load 300", "unrecognized arguments: --load 300"),  # no abbreviations
        ("stray", "unrecognized arguments: stray"),
        ("--lambda_NEC 3", "unrecognized arguments: --lambda_NEC 3. Did you mean --lambda_NCE[?] "),
        ("--cut_mode=FastCUT", "unrecognized arguments: --cut_mode=FastCUT. Did you mean --CUT_mode[?] "),
        ("--niter 100", "Instead of --niter, use --n_epochs[.] "),
        ("--norm batch", "Instead of --norm, use --normG and --normD[.] "),
        (
            "--lambda_NEC 3 --niter 9",
            "Instead of --lambda_NEC, did you mean --lambda_NCE[?] Instead of --niter, use --n_epochs[.] ",
        ),
        ("--lambda_R1 2", "--lambda_R1 is an option of --model sincut[.] "),
        ("--lambda_A 2", "--lambda_A is an option of --model cycle_gan[.] "),
        ("--name", "--name: expected one argument"),
        ("--name=", "--name '': not a folder name below --checkpoints_dir"),
        ("--name .", r"--name '\.': not a folder name below"),
        ("--name a/../..", "--name 'a/../..': not a folder name below"),
        ("--name /", "--name '/': not a folder name below"),
        (f"--name {'x' * 256}", "--name 'x+': not a folder name below"),
        ("--suffix {bogus}", "--suffix '{bogus}': cannot be formatted"),
        ("--suffix {", "--suffix '{': cannot be formatted"),
        ("--suffix {0}", r"--suffix '\{0\}': cannot be formatted"),
        ("--suffix {model.x}", "--suffix '{model.x}': cannot be formatted"),
        ("--suffix {model[x]}", r"--suffix '{model\[x\]}': cannot be formatted"),
        ("--suffix {ngf[0]}", r"--suffix '{ngf\[0\]}': cannot be formatted"),
        ("--suffix {ngf:1000000000000}", "--suffix '{ngf:1000000000000}': cannot be formatted"),
        ("--suffix {ngf:s}", "--suffix '{ngf:s}': cannot be formatted"),
    ],
)
def test_errors_are_one_line(capsys: pytest.CaptureFixture[str], arguments: str, reason: str) -> None:
    assert re.search(reason, refusal(capsys, "train", *arguments.split()))


def test_pytorch_accepts_the_largest_seed() -> None:
    opt = parse("train", "--seed", "18446744073709551615")
    assert torch.Generator().manual_seed(opt.seed).initial_seed() == 2**64 - 1


def test_errors_of_test_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--num_test: '0'" in refusal(capsys, "test", "--num_test", "0")
    assert "unrecognized arguments: --n_epochs 3" in refusal(capsys, "test", "--n_epochs", "3")
    assert "--load_size 32: smaller than --crop_size 64" in refusal(capsys, "test", "--crop_size", "64", "--load_size", "32")


@pytest.mark.parametrize("preprocess", ["none", "crop", "scale_width", "zoom_and_patch"])
def test_a_load_size_below_the_crop_size_is_refused_only_if_both_are_used(preprocess: str) -> None:
    assert parse("train", "--load_size", "100", "--preprocess", preprocess).load_size == 100


@pytest.mark.parametrize("name", BOOLEANS)
def test_booleans_accept_words_in_any_case_or_no_value(name: str) -> None:
    for words, value in (("yes true t y 1 TRUE Yes T", True), ("no false f n 0 FALSE No F", False)):
        for word in words.split():
            assert getattr(parse("train", f"--{name}", word), name) is value, word
    for mode in ("CUT", "FastCUT"):
        assert getattr(parse("train", f"--{name}", "--CUT_mode", mode), name) is True


def test_the_suffix_is_formatted_and_appended() -> None:
    published = ["--name", "cats", "--suffix", "{model}_{netG}_size{load_size}"]
    assert parse("train", *published).name == "cats_cut_resnet_9blocks_size286"
    assert (
        parse("train", *published, "--CUT_mode", "FastCUT", "--load_size", "512").name == "cats_cut_resnet_9blocks_size512"
    )
    assert parse("train", *published, "--model", "sincut").name == "cats_sincut_stylegan2_size1024"
    assert parse("test", *published, "--crop_size", "64").name == "cats_cut_resnet_9blocks_size64"
    assert parse("train", "--name", "cats", "--suffix", "again").name == "cats_again"
    assert parse("train", "--name", "cats").name == "cats"


@pytest.mark.parametrize("gpu_ids", ["auto", "-1", "0", "9", "0,1", "garbage"])
def test_parsing_does_not_check_the_device(gpu_ids: str) -> None:
    assert parse("train", "--gpu_ids", gpu_ids).gpu_ids == gpu_ids
    assert parse("train").gpu_ids == "auto"


@pytest.mark.parametrize(
    ("arguments", "load_size"),
    [
        ("", 256),
        ("--crop_size 64", 64),
        ("--crop_size 64 --load_size 96", 96),
        ("--crop_size 64 --load_size 286", 286),
        ("--model cycle_gan --crop_size 128", 128),
        ("--model test --crop_size 128", 128),
        ("--model sincut", 1024),
        ("--model sincut --crop_size 32", 1024),
        ("--model sincut --load_size 512", 512),
    ],
)
def test_the_load_size_of_a_test_is_the_crop_size_unless_it_is_set(arguments: str, load_size: int) -> None:
    assert parse("test", *arguments.split()).load_size == load_size


@pytest.mark.parametrize("case", MODES, ids=" ".join)
def test_help_lists_the_options_with_their_defaults(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, case: tuple[str, ...]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    command, *arguments = case
    with pytest.raises(SystemExit) as stop:
        parse(command, *arguments, "--help")
    said = capsys.readouterr()
    assert (stop.value.code, said.err) == (0, "")
    assert max(map(len, said.out.splitlines())) <= 80
    entries = {entry.split()[0]: "".join(entry.split()) for entry in re.findall(r"^  -.*(?:\n {5,}.*)*", said.out, re.M)}
    actions = [action for action in OPTIONS[command]().parser(arguments)._actions if action.dest not in ("help", "version")]
    for action in actions:
        (flag,) = action.option_strings
        default = "" if action.default in (None, "", "placeholder") else f"(default:{action.default})"
        assert entries[flag].endswith(default), flag
        assert len(entries[flag]) > len(f"{flag}{flag}{default}"), f"{flag} has no help text"
    assert not re.search(r"\(default:(placeholder|None|)\)", "".join(said.out.split()))
    assert {entry for entry in entries if entry not in ("-h,", "--version")} == {
        action.option_strings[0] for action in actions
    }


def test_help_depends_on_model_and_mode(capsys: pytest.CaptureFixture[str]) -> None:
    def shown(*arguments: str) -> str:
        with pytest.raises(SystemExit):
            parse("train", *arguments, "--help")
        return "".join(capsys.readouterr().out.split())

    cut, fastcut, cycle_gan = shown(), shown("--CUT_mode", "FastCUT"), shown("--model", "cycle_gan")
    assert "weightofthePatchNCEloss(default:1.0)" in cut
    assert "weightofthePatchNCEloss(default:10.0)" in fastcut
    assert "--lambda_NCE" not in cycle_gan and "--lambda_A" in cycle_gan and "--lambda_A" not in cut


@pytest.mark.parametrize(
    ("command", "arguments", "method"),
    [("train", [], "CUT"), ("train", ["--model", "cycle_gan"], "CycleGAN"), ("test", [], "CUT")],
)
def test_help_shows_the_options_of_the_method_second(command: str, arguments: list[str], method: str) -> None:
    groups = OPTIONS[command]().parser(arguments)._action_groups
    titles = [group.title for group in groups if group._group_actions]
    assert titles[1:4] == ["run", method, "architecture"]
    assert len(titles) == len(set(titles))


def test_help_of_the_program_itself(tmp_path: Path) -> None:
    assert succeed(tmp_path, "train.py", "--help").startswith("usage: train.py ")
    assert list(tmp_path.iterdir()) == []


def test_every_successor_of_a_renamed_option_exists() -> None:
    flags = {
        flag
        for options in (TrainOptions(), TestOptions())
        for name in MODELS
        for flag in options.parser(["--model", name])._option_string_actions
    }
    differences = (ROOT / "docs" / "differences.md").read_text()
    for old, new in RENAMED.items():
        assert old not in flags
        assert f"| `{old}` |" in differences
        assert {word for word in new.split() if word.startswith("--")} <= flags, old


def test_help_of_a_word_prints_the_matching_options_only(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        TrainOptions().parse(["--model", "sincut", "--help", "R1"])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert printed.startswith("SinCUT:\n  --lambda_R1 ")
    assert len(printed.splitlines()) <= 3
    with pytest.raises(SystemExit):
        TrainOptions().parse(["--help", "no such word"])
    assert capsys.readouterr().out == "no option contains 'no such word'\n"


def test_help_lists_the_options_of_the_method_second(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        TrainOptions().parse(["--help"])
    printed = capsys.readouterr().out
    titles = re.findall(r"^(\w[\w ]*):$", printed, re.MULTILINE)
    assert titles[:4] == ["options", "run", "CUT", "architecture"]
    assert "placeholder" not in printed


@pytest.mark.parametrize(
    ("command", "side"),
    [
        ("", 256),
        ("--load_size 300", 256),
        ("--preprocess crop --crop_size 512", 512),
        ("--preprocess zoom_and_patch --load_size 1024 --crop_size 64", 64),
        ("--preprocess none --load_size 100", 100),
    ],
)
def test_networks_are_checked_and_built_for_the_size_of_training_images(command: str, side: int) -> None:
    opt = TrainOptions().parse(["--dataroot", "d", *command.split()])
    assert opt.training_side == opt.net_size == side
