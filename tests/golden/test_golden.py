"""Compare the published numbers with the real options, networks, models and training steps, in float64.

Only the random samples are replaced. `python -m pytest tests/golden/test_golden.py --golden DIR` checks the cases below DIR.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import OWN_GOLDEN, SHARED_GOLDEN
from golden_cases import (
    Case,
    assert_close,
    assert_outputs_and_gradients,
    build_model,
    check_training_steps,
    find_cases,
    replace_noise,
)
from PIL import Image

from data.transforms import create_transform
from models import create_model
from models.losses.gan import GAN_LOSSES
from models.losses.patch_nce import patch_nce
from models.networks import FEATURE_HEADS
from options import TestOptions, TrainOptions

# Allowed differences from the published options, and why.
FREE_DEFAULTS = {"--gpu_ids"}  # detected by default
TEST_FREE_DEFAULTS = {"--load_size"}  # follows --crop_size in a test
REMOVED_CHOICES = {"resnet_cat"}  # never worked


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" not in metafunc.fixturenames:
        return
    given = metafunc.config.getoption("--golden")
    folders = [Path(folder) for folder in given] if given else [OWN_GOLDEN, SHARED_GOLDEN]
    cases = find_cases(folders)
    metafunc.parametrize("case", cases, ids=[case.name for case in cases])


def test_every_folder_has_cases(request: pytest.FixtureRequest) -> None:
    for folder in request.config.getoption("--golden") or [OWN_GOLDEN]:
        assert find_cases([Path(folder)]), f"no golden case below {folder}"
    if not request.config.getoption("--golden") and not SHARED_GOLDEN.is_dir():
        print(f"{SHARED_GOLDEN} is absent: only the copy in {OWN_GOLDEN} is checked")


def test_golden(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = case.info.get("kind")
    assert kind in KINDS, f"{case.path} is of kind {kind!r}, which nothing here checks"
    KINDS[kind](case, monkeypatch)


def check_network(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_noise(monkeypatch)
    networks = build_model(case.info["options"]).networks
    network = networks[case.info["role"]] if case.info["role"] in networks else networks[f"{case.info['role']}_A"]
    assert_outputs_and_gradients(case, network)

    if layers := case.info["layers"]:
        image = case["input"].requires_grad_()
        for layer, feature in zip(layers, network(image, layers, encode_only=True), strict=True):
            assert_close(f"feature {layer}", feature, case[f"feat/{layer}"])
        for layer, feature in zip(layers, network(image, layers)[1], strict=True):
            assert_close(f"feature {layer} of the full pass", feature, case[f"feat/{layer}"])


def check_patch_sampler(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    opt = TrainOptions().parse(case.info["options"])
    features, patch_ids, expected = (
        [case.below(name)[str(index)] for index in range(len(case.below(name)))] for name in ("feat", "patch_ids", "sampled")
    )
    heads = FEATURE_HEADS[opt.netF]([feature.shape[1] for feature in features], opt.netF_nc).double()
    heads.load_state_dict(case.below("state"))
    for index, sampled in enumerate(heads(heads.gather(features, patch_ids))):
        assert_close(f"sampled {index}", sampled, expected[index])


def check_patchnce(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    queries, keys = case["feat_q"].requires_grad_(), case["feat_k"].requires_grad_()
    groups = 1 if case.info["all_negatives"] else case.info["batch_size"]
    loss = patch_nce(queries, keys, groups, case.info["temperature"])
    assert_close("loss", loss, case["loss"])
    loss.mean().backward()
    assert_close("gradient of the queries", queries.grad, case["grad_q"])
    assert keys.grad is None, "keys get no gradient"


def check_gan_loss(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    modes = {name.split("/")[0] for name in case.arrays} - {"prediction"}
    for mode in sorted(modes):
        for target in ("real", "fake"):
            logits = case["prediction"].requires_grad_()
            loss = GAN_LOSSES[mode](logits, target == "real")
            assert_close(f"{mode} {target}", loss, case[f"{mode}/{target}/loss"])
            loss.mean().backward()
            assert_close(f"gradient of {mode} {target}", logits.grad, case[f"{mode}/{target}/grad"])


def check_lr_schedule(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = ["--ngf", "1", "--ndf", "1", "--netG", "resnet_4blocks", "--netF_nc", "1"]
    for schedule in case.info["schedules"]:
        expected = schedule.pop("lr_per_epoch")
        model = build_model([*tiny, *(text for name, value in schedule.items() for text in (f"--{name}", str(value)))])
        rates = []
        for _ in expected:
            rates.append(model.learning_rate)
            for optimizer in model.optimizers.values():
                optimizer.step()
            model.update_learning_rate()
        assert rates == pytest.approx(expected, rel=1e-9), schedule


def check_transform(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    for index, image in enumerate(case.info["cases"]):
        opt = TrainOptions().parse(image["options"])
        transform = create_transform(opt, Image.Resampling[image["resample"]], channels=1 if image["grayscale"] else 3)
        tensor = transform(Image.fromarray(case.arrays[f"image/{index}"]), np.random.default_rng(0))
        pixels = torch.round((tensor.double() + 1) * 127.5).to(torch.uint8)
        assert_close(f"image {index} {image['options']}", pixels.double(), case[f"output/{index}"].double())


def check_options(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    for title, table in case.info["tables"].items():
        command, *arguments = title.split()
        options = TrainOptions() if command == "train" else TestOptions()
        free = FREE_DEFAULTS | (TEST_FREE_DEFAULTS if command == "test" else set())
        parser = options.parser(arguments)
        actions = {flag: action for action in parser._actions for flag in action.option_strings}
        for flag, published in table.items():
            assert flag in actions, f"{title}: {flag} is missing"
            action = actions[flag]
            if flag not in free:
                default = float(published["default"]) if published["default"] == "inf" else published["default"]
                assert action.default == default, f"{title}: {flag} defaults to {action.default!r}"
            if published["choices"]:
                missing = set(published["choices"]) - REMOVED_CHOICES - set(action.choices)
                assert not missing, f"{title}: {flag} lacks {missing}"
            sample = sample_value(published, action.choices)
            value = getattr(options.parser(arguments).parse_args([*arguments, flag, *sample]), action.dest)
            assert type(value).__name__ == {"flag": "bool"}.get(published["type"], published["type"]), f"{title}: {flag}"


def sample_value(published: dict, choices: list[str] | None) -> list[str]:
    """Return a valid command line value for an option of this type."""
    if published["type"] == "flag":
        return []
    if published["type"] == "str" and choices:
        return [published["default"] if published["default"] in choices else choices[0]]
    if published["type"] == "str":
        return [published["default"] or "text"]
    return [
        {"bool": "yes", "int": "7", "float": "0.5" if float(published["default"] or 0) < 1 else "1.5"}[published["type"]]
    ]


def check_state_dict_inventory(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    networks = create_model(TrainOptions().parse(["--gpu_ids", "-1", *case.info["options"]])).networks
    assert set(networks) == set(case.info["networks"])
    for name, network in networks.items():
        found = [[key, list(value.shape)] for key, value in network.state_dict().items()]
        assert sorted(found) == sorted(case.info["networks"][name]), name
        assert sum(parameter.numel() for parameter in network.parameters()) == case.info["parameters"][name], name


KINDS: dict[str, Callable[[Case, pytest.MonkeyPatch], None]] = {
    "network": check_network,
    "patch_sampler": check_patch_sampler,
    "patchnce": check_patchnce,
    "gan_loss": check_gan_loss,
    "training_steps": check_training_steps,
    "lr_schedule": check_lr_schedule,
    "transform": check_transform,
    "options": check_options,
    "state_dict_inventory": check_state_dict_inventory,
}
