"""--accumulate: one step from several batches, against the step on one large batch."""

from pathlib import Path

import pytest
import torch
from tiny_models import CUT, CYCLE_GAN, assert_same, checkpointer, double_model, everything, random_batch, take_step


class TestAccumulation:
    @pytest.fixture(autouse=True)
    def same_draws(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """For two batches as for the one that they are compared with."""
        positions = torch.tensor([3, 1, 4])
        monkeypatch.setattr("models.networks.patch_sampler.sample_patch_ids", lambda features, count, generator: positions)
        monkeypatch.setattr("models.cut_model.sample_flip", lambda generator: True)

    @pytest.mark.parametrize("method", [CUT, f"{CUT} --CUT_mode FastCUT", CYCLE_GAN, f"{CUT} --grad_checkpoint"])
    def test_equals_one_large_batch(self, method: str) -> None:
        one, several = double_model(method), double_model(f"{method} --accumulate 2")
        for step in range(2):
            batch = random_batch(one, 2, seed=step)
            one.set_input(batch)
            one.optimize_parameters()
            before = everything(several)
            for row in range(2):
                assert torch.equal(everything(several), before), "nothing moves before all batches are there"
                several.set_input({name: values[row : row + 1] for name, values in batch.items()})
                several.optimize_parameters()
            assert_same(several, one)

    def test_batches_that_wait_outlast_an_interruption(self) -> None:
        straight, stopped, resumed = (double_model(f"{CUT} --accumulate 2") for _ in range(3))
        for seed in range(2):
            take_step(straight, seed=seed)
        take_step(stopped, seed=0)
        for name, thing in stopped.checkpoint_items.items():
            resumed.checkpoint_items[name].load_state_dict(thing.state_dict())
        resumed.steps_done = stopped.steps_done
        take_step(resumed, seed=1)
        assert torch.equal(everything(resumed), everything(straight))

    def test_a_run_goes_on_with_another_number_of_batches(self, tmp_path: Path) -> None:
        """With fewer than wait already, the next one completes the step, in which all weigh the same."""
        straight = double_model(f"{CUT} --accumulate 3")
        stopped, resumed = (double_model(f"{CUT} --accumulate {n}", checkpoints_dir=tmp_path, name="run") for n in (3, 2))
        for seed in range(3):
            take_step(straight, seed=seed)
        for seed in range(2):
            take_step(stopped, seed=seed)
        checkpointer(stopped).save("latest")
        assert checkpointer(resumed).resume()
        take_step(resumed, seed=2)
        assert torch.equal(everything(resumed), everything(straight))

    def test_a_run_may_begin_to_accumulate_when_it_goes_on(self, tmp_path: Path) -> None:
        stopped, resumed = (
            double_model(f"{CUT} {flag}", checkpoints_dir=tmp_path, name="run") for flag in ("", "--accumulate 2")
        )
        take_step(stopped)
        checkpointer(stopped).save("latest")
        assert checkpointer(resumed).resume()
        assert torch.equal(everything(resumed), everything(stopped))

    def test_images_of_one_of_several_processes_are_not_kept_for_all(self, monkeypatch: pytest.MonkeyPatch) -> None:
        model = double_model(f"{CUT} --accumulate 2")
        take_step(model)
        assert len(model.checkpoint_items["accumulation"].state_dict()["waiting"]) == 1
        monkeypatch.setattr("models.training_step.world_size", lambda: 2)
        assert model.checkpoint_items["accumulation"].state_dict()["waiting"] == []

    def test_the_name_of_an_optimizer_has_no_meaning(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A gradient flows through the generator if the optimizer holds its parameters, whatever the optimizer is called."""
        usual, renamed = (double_model(f"{CUT} --accumulate 2") for _ in range(2))
        for name in ("G", "D"):
            renamed.optimizers[f"other {name}"] = renamed.optimizers.pop(name)
        optimize = renamed.optimize
        names = {"G": "other G", "D": "other D"}
        monkeypatch.setattr(
            renamed, "optimize", lambda loss, *of, frozen=(): optimize(loss, *(names.get(n, n) for n in of), frozen=frozen)
        )
        for seed in range(2):
            for model in (usual, renamed):
                take_step(model, seed=seed)
        assert torch.equal(everything(renamed), everything(usual))
