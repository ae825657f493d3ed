"""CycleGAN: the training step and its optimizations, losses, options, and image pools."""

import pytest
import torch
from tiny_models import (
    CYCLE_GAN,
    assert_same_step,
    count_passes,
    double_model,
    random_batch,
    tiny_model,
    train,
    translating_model,
)

from models.image_pool import ImagePool
from models.losses.gradient_penalty import wgan_gp_penalty
from util.errors import UserError


def shown_images(network: torch.nn.Module) -> list[torch.Tensor]:
    """Record the images that the network gets."""
    shown: list[torch.Tensor] = []
    network.register_forward_pre_hook(lambda _, inputs: shown.append(inputs[0].detach().clone()))
    return shown


class TestSharedPasses:
    @pytest.mark.parametrize(
        ("command", "shared", "separate"),
        [
            ("", (2, 2), (3, 3)),
            ("--lambda_identity 0", (2, 2), (2, 3)),
            ("--normG none --normD none --gan_mode vanilla", (2, 2), (3, 3)),
        ],
    )
    def test_equal_separate_ones(self, command: str, shared: tuple, separate: tuple, monkeypatch) -> None:
        """Share passes between translation and identity, and between real and fake images: no result changes."""
        shared_model = double_model(f"{CYCLE_GAN} {command}")
        monkeypatch.setattr("models.cycle_gan_model.is_batch_dependent", lambda network: True)
        published = double_model(f"{CYCLE_GAN} {command}")
        passes = [count_passes(model) for model in (shared_model, published)]
        assert_same_step(shared_model, published)
        assert [(found["G_A"], found["D_A"]) for found in passes] == [shared, separate]

    @pytest.mark.parametrize(
        ("command", "passes"),
        [("--normG batch", (3, 2)), ("--no_dropout False", (3, 2)), ("--normD batch", (2, 3))],
    )
    def test_are_not_used_if_images_depend_on_the_batch(self, command: str, passes: tuple[int, int]) -> None:
        model = tiny_model(f"{CYCLE_GAN} {command}")
        found = count_passes(model)
        train(model, steps=1)
        assert (found["G_A"], found["D_A"]) == passes


class TestStep:
    def test_discriminators_get_the_outputs_from_before_the_update(self) -> None:
        """The generators are updated first; the discriminators get their outputs from before that."""
        model = tiny_model(CYCLE_GAN)
        model.set_input(random_batch(model))
        expected = model.netG_A(model.real_A).detach()
        shown = shown_images(model.netD_A)
        model.optimize_parameters()
        for_generator, for_discriminator = shown
        torch.testing.assert_close(for_generator, expected)
        torch.testing.assert_close(for_discriminator, torch.cat((model.real_B, expected)))
        assert not torch.allclose(model.netG_A(model.real_A), expected)

    @pytest.mark.parametrize(("size", "option"), [(1, 3), (3, 1)])
    def test_depends_on_the_batch_not_on_batch_size(self, size: int, option: int) -> None:
        steps = [train(tiny_model(f"{CYCLE_GAN} --batch_size {number}"), batch_size=size) for number in (option, size)]
        assert steps[0] == steps[1]

    def test_depends_on_the_seed(self) -> None:
        first, same, other = (train(tiny_model(f"{CYCLE_GAN} --pool_size 1", seed=seed), steps=4) for seed in (3, 3, 4))
        assert first == same
        assert first != other

    @pytest.mark.parametrize("norm", ["instance", "batch"])
    def test_domains_of_different_sizes(self, norm: str) -> None:
        """--preprocess none allows this."""
        model = tiny_model(f"{CYCLE_GAN} --normG {norm} --normD {norm}")
        batch = random_batch(model)
        model.set_input(batch | {"B": batch["B"][..., :24]})
        model.optimize_parameters()
        visuals = model.get_current_visuals()
        assert visuals["rec_A"].shape == visuals["fake_B"].shape == (2, 3, 32, 32)
        assert visuals["rec_B"].shape == visuals["fake_A"].shape == (2, 3, 32, 24)


class TestLosses:
    NAMES = ("D_A", "G_A", "cycle_A", "idt_A", "D_B", "G_B", "cycle_B", "idt_B")

    def test_names_of_losses_and_images(self) -> None:
        model = tiny_model(CYCLE_GAN)
        assert tuple(train(model, steps=1)) == self.NAMES
        images = ("real_A", "fake_B", "rec_A", "idt_B", "real_B", "fake_A", "rec_B", "idt_A")
        assert tuple(model.get_current_visuals()) == images

    def test_without_identity(self) -> None:
        model = tiny_model(f"{CYCLE_GAN} --lambda_identity 0")
        losses = train(model, steps=1)
        assert tuple(losses) == self.NAMES
        assert losses["idt_A"] == losses["idt_B"] == 0
        assert tuple(model.get_current_visuals()) == ("real_A", "fake_B", "rec_A", "real_B", "fake_A", "rec_B")

    def test_weights(self) -> None:
        """idt_A = G_A(B) has the weight of the cycle from B."""
        single = train(tiny_model(f"{CYCLE_GAN} --lambda_A 1 --lambda_B 1 --lambda_identity 1"), steps=1)
        weighted = train(tiny_model(f"{CYCLE_GAN} --lambda_A 2 --lambda_B 3 --lambda_identity 5"), steps=1)
        for name, factor in {"cycle_A": 2, "cycle_B": 3, "idt_A": 15, "idt_B": 10, "G_A": 1, "G_B": 1}.items():
            assert weighted[name] == pytest.approx(factor * single[name]), name

    def test_beta2_is_fixed(self) -> None:
        model = tiny_model(f"{CYCLE_GAN} --beta1 0.3 --beta2 0.5")
        assert {optimizer.param_groups[0]["betas"] for optimizer in model.optimizers.values()} == {(0.3, 0.999)}

    def test_wgan_gp_penalty_of_both_discriminators(self) -> None:
        model = tiny_model(f"{CYCLE_GAN} --gan_mode wgangp --lambda_gp 10 --pool_size 0")
        model.set_input(random_batch(model))
        model.forward()
        state = model.rng.device_rng.get_state()
        loss = model.compute_D_loss()
        model.opt.lambda_gp = 0.0
        plain = model.compute_D_loss()
        model.rng.device_rng.set_state(state)
        penalties = [
            wgan_gp_penalty(discriminator, real, fake, model.rng.device_rng)
            for discriminator, real, fake in (
                (model.netD_A, model.real_B, model.fake_B),
                (model.netD_B, model.real_A, model.fake_A),
            )
        ]
        torch.testing.assert_close(loss, plain + 10 * sum(penalties))


class TestChannels:
    def test_gray(self) -> None:
        model = tiny_model(f"{CYCLE_GAN} --input_nc 1 --output_nc 1")
        train(model)
        assert model.get_current_visuals()["idt_B"].shape == (2, 1, 32, 32)

    def test_may_differ_without_identity(self) -> None:
        model = tiny_model(f"{CYCLE_GAN} --input_nc 3 --output_nc 1 --lambda_identity 0")
        train(model)
        channels = {name: image.shape[1] for name, image in model.get_current_visuals().items()}
        assert channels == {"real_A": 3, "fake_B": 1, "rec_A": 3, "real_B": 1, "fake_A": 3, "rec_B": 1}

    def test_may_not_differ_with_identity(self) -> None:
        with pytest.raises(UserError, match=r"identity loss.* Use --lambda_identity 0\.$"):
            tiny_model(f"{CYCLE_GAN} --input_nc 3 --output_nc 1")


class TestTranslation:
    @pytest.mark.parametrize("command", ["", "--input_nc 3 --output_nc 1"])
    def test_of_both_domains_or_of_one(self, command: str) -> None:
        model = translating_model(f"{CYCLE_GAN} {command}")
        a, b = torch.rand(1, 3, 32, 32), torch.rand(1, 3 if not command else 1, 32, 32)
        model.set_input({"A": a, "B": b, "A_paths": ["a.png"], "B_paths": ["b.png"]})
        model.test()
        assert tuple(model.get_current_visuals()) == ("real_A", "fake_B", "rec_A", "real_B", "fake_A", "rec_B")
        one_sided = translating_model(f"{CYCLE_GAN} {command} --dataset_mode single")
        one_sided.set_input({"A": a, "A_paths": ["a.png"]})
        one_sided.test()
        assert tuple(one_sided.get_current_visuals()) == ("real_A", "fake_B", "rec_A")
        torch.testing.assert_close(one_sided.fake_B, model.fake_B)


class TestImagePool:
    @staticmethod
    def images(count: int, start: int = 0) -> torch.Tensor:
        """Return images of one pixel with consecutive values."""
        return torch.arange(start, start + count).view(count, 1, 1, 1)

    @staticmethod
    def pool(size: int, seed: int = 0) -> ImagePool:
        return ImagePool(size, torch.Generator().manual_seed(seed))

    def test_of_size_zero_returns_its_input(self) -> None:
        pool, images = self.pool(0), self.images(5)
        assert pool.query(images) is images
        assert not pool.images

    def test_returns_its_input_until_it_is_full(self) -> None:
        pool = self.pool(10)
        for start in (0, 4):
            images = self.images(4, start)
            assert torch.equal(pool.query(images), images)
        assert len(pool.images) == 8

    def test_returns_an_earlier_image_half_of_the_time(self) -> None:
        pool = self.pool(20)
        pool.query(self.images(20))
        given = []
        for number in range(20, 1020):
            (answer,) = pool.query(self.images(1, number)).flatten().tolist()
            given.append(answer)
            assert len(pool.images) == 20
        buffered = {int(image) for image in pool.images}
        older = [answer != number for number, answer in enumerate(given, start=20)]
        assert sum(older) == pytest.approx(500, abs=60)
        assert sorted([*given, *buffered]) == list(range(1020)), "every image is returned once or still buffered"
        waits = [number - answer for number, answer in enumerate(given, start=20) if number != answer]
        assert sum(waits) / len(waits) == pytest.approx(40, rel=0.2), "every buffered image is equally likely"

    def test_follows_from_the_seed(self) -> None:
        answers = []
        for seed in (1, 1, 2):
            pool = self.pool(5, seed)
            answers.append(pool.query(self.images(100)).flatten().tolist())
        assert answers[0] == answers[1] != answers[2]

    def test_serves_the_discriminators_and_not_the_generators(self) -> None:
        model = tiny_model(f"{CYCLE_GAN} --pool_size 3")
        shown, made = shown_images(model.netD_A), []
        for step in range(12):
            model.set_input(random_batch(model, size=1, seed=step))
            model.optimize_parameters()
            made.append(model.fake_B.detach())
        by_generator, by_discriminator = shown[::2], [images[1:] for images in shown[1::2]]
        assert torch.equal(torch.cat(by_generator), torch.cat(made))
        origins = [next(i for i, other in enumerate(made) if torch.equal(other, fake)) for fake in by_discriminator]
        assert origins[:3] == [0, 1, 2]
        assert any(origin < step for step, origin in enumerate(origins)), "an older image"
        assert len(model.pool_B.images) == len(model.pool_A.images) == 3


def test_no_pool_but_cuts_is_empty_by_default() -> None:
    assert tiny_model(CYCLE_GAN).opt.pool_size == 50
    assert tiny_model("--netG resnet_4blocks").opt.pool_size == 0


def test_learning_rates_fall_together() -> None:
    model = tiny_model(f"{CYCLE_GAN} --n_epochs 1 --n_epochs_decay 3 --lr 1")
    rates = []
    for _ in range(4):
        rates.append({optimizer.param_groups[0]["lr"] for optimizer in model.optimizers.values()})
        train(model, steps=1)
        model.update_learning_rate()
    assert rates == [{1.0}, {0.75}, {0.5}, {0.25}]
