"""A student against a discriminator: what each of them minimises, what the discriminator sees, restart."""

from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from diffnca.canvas.region import Canvas
from diffnca.config.networks import CoarseConfig, FourierConfig
from diffnca.diffusion.denoiser import Denoiser, Query
from diffnca.diffusion.samplers import DDIM, Step
from diffnca.models.build import build_denoiser
from diffnca.models.file import MODEL_FILE, read_card
from diffnca.training.adversary import (
    COARSE_WEIGHT,
    LATTICE_WEIGHT,
    TINT_WEIGHT,
    TURNS,
    AgainstFeatures,
    halves,
    noise_of,
)
from diffnca.training.discriminator import LOOKS, unreality
from diffnca.training.lattice import lattice
from diffnca.training.loop import Care, Trainer
from diffnca.training.objectives import Batch, Distillation, student_config

from .conftest import BATCH, CELL, QUIET, Means, is_equal, small_config, state_of, stripes

CPU = torch.device("cpu")


def against(weight: float = 0.5, steps: int = 4, look: str = "features") -> AgainstFeatures:
    torch.manual_seed(0)
    teacher = small_config(8)
    student = build_denoiser(student_config(teacher, steps))
    return AgainstFeatures(build_denoiser(teacher), (Means(4, 8),), LOOKS[look], weight, student, CPU)


def batch(seed: int = 0) -> Batch:
    return Batch(stripes(seed), torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("look", ["features", "forms"])
def test_the_student_minimises_distances_and_a_lattice_less_the_weighted_scores_of_its_images(
    look: str,
) -> None:
    game = against(look=look, weight=0.5)
    with torch.no_grad():
        for weight in game.student.network.parameters():
            weight.add_(0.1 * torch.randn_like(weight))  # else its last layer is zero, as that of its teacher
    game.heads.eval()  # scores do not change the state then
    own = game.loss("model", batch())
    again = batch()
    distilled, walked = halves(again)
    distance = Distillation.loss(game, "model", distilled)
    noise = noise_of(walked)
    made = game.made(walked, noise)
    scores = game.scores(game.seen(made, again.generator))
    looks = (
        LATTICE_WEIGHT * lattice(made, game.cell_px) - torch.stack([each.mean() for each in scores]).mean()
    )
    coarse = game.coarse(made, walked, noise)
    assert (float(coarse.detach()) > 0.0) == (look == "forms")
    torch.testing.assert_close(own, distance + coarse + 0.5 * looks)


@pytest.mark.parametrize("look", ["features", "forms"])
def test_gradients_pass_the_last_call_for_grain_and_all_calls_of_the_walk_for_forms(
    monkeypatch: pytest.MonkeyPatch, look: str
) -> None:
    game, calls, is_form = against(look=look), [], look == "forms"
    estimate = Denoiser.estimate

    def recorded(self: Denoiser, query: Query) -> Tensor:
        calls.append((query.level.index, torch.is_grad_enabled()))
        return estimate(self, query)

    monkeypatch.setattr(Denoiser, "estimate", recorded)
    game.made(batch(), noise_of(batch()))
    assert calls == [(299, is_form), (224, is_form), (149, is_form), (74, True)]


def test_forms_are_seen_in_an_enlarged_image(monkeypatch: pytest.MonkeyPatch) -> None:
    game, shown = against(look="forms"), []
    levels = game.networks[0].levels
    monkeypatch.setattr(
        game.networks[0], "levels", lambda images: shown.append(images.shape) or levels(images)
    )
    scores = game.scores(game.seen(batch().x_0, torch.Generator().manual_seed(0)))
    assert [each.shape[-1] for each in scores[:2]] == [48 // 4, 48 // 8]
    assert shown == [(len(batch().x_0), 3, 48, 48)]


def test_colours_are_seen_where_forms_may_change_and_no_random_change_hides_them() -> None:
    game, images = against(look="forms"), torch.full((2, 3, 16, 16), 0.25)
    levels = [game.seen(images, torch.Generator().manual_seed(seed))[-2:] for seed in (0, 1)]
    for places, whole in levels:
        assert (places.shape, whole.shape) == ((2, 3, 8, 8), (2, 48, 1, 1))
        torch.testing.assert_close(places[..., 1:-1, 1:-1], torch.full((2, 3, 6, 6), 0.5))
    assert len(against(look="features").seen(images, torch.Generator())) == 2


@pytest.mark.parametrize("look", ["features", "forms"])
def test_images_are_made_as_sampling_makes_them(look: str) -> None:
    game, seen = against(look=look), batch()
    with torch.no_grad():
        x = noise_of(seen)
        made = game.made(seen, x)
    for level_t, level_s in pairwise(game.walk):
        estimate = game.student.estimate(Query(x, level_t, Canvas(16, 16).whole, seen))
        x, _ = DDIM().step(Step(x, estimate, level_t, level_s))
    torch.testing.assert_close(made, x)


def test_the_discriminator_sees_the_student_after_its_step() -> None:
    game = against()
    game.heads.eval()
    before = game.loss("discriminator", batch())
    with torch.no_grad():
        for weight in game.student.parameters():
            weight += 0.1
    assert game.loss("discriminator", batch()) != before


@pytest.mark.parametrize(
    ("count", "numbers"), [(4, [[0, 1], [2, 3]]), (3, [[0, 1], [1, 2]]), (1, [[0], [0]])]
)
def test_halves_hold_all_images_with_their_planes(count: int, numbers: list[list[int]]) -> None:
    images = torch.arange(float(count))[:, None, None, None]
    for half, expected in zip(halves(Batch(images, torch.Generator(), -images)), numbers, strict=True):
        assert half.x_0.flatten().tolist() == expected
        assert half.given is not None
        assert torch.equal(half.given, -half.x_0)


def test_the_discriminator_makes_images_in_its_first_turn_and_remembers_them_in_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    game, made = against(), []
    monkeypatch.setattr(game, "made", lambda batch, noise: made.append(noise) or batch.x_0)
    for turn in range(TURNS):
        game.loss("discriminator", replace(batch(), turn=turn))
    assert len(made) == 1
    assert int(game.memory.count) == len(made[0])


def seen_as_its_own_teacher() -> tuple[AgainstFeatures, Tensor, Batch, Tensor]:
    """Return a student whose teacher it is, its images, and their batch and noise."""
    student = build_denoiser(student_config(small_config(8), 4))
    game = AgainstFeatures(student, (Means(4, 8),), LOOKS["forms"], 0.5, student, CPU)
    seen = batch()
    noise = noise_of(seen)
    with torch.no_grad():
        return game, game.made(seen, noise), seen, noise


def test_a_student_whose_teacher_it_is_pays_nothing_for_its_coarse_colours() -> None:
    game, image, seen, noise = seen_as_its_own_teacher()
    torch.testing.assert_close(game.coarse(image, seen, noise), torch.zeros(()), rtol=0, atol=1e-10)


def test_a_tint_of_all_images_costs_more_than_colours_that_cancel_in_the_mean() -> None:
    game, image, seen, noise = seen_as_its_own_teacher()
    tint = game.coarse(image + 0.5, seen, noise)
    torch.testing.assert_close(tint, torch.tensor(0.25 * (COARSE_WEIGHT + TINT_WEIGHT)))
    signs = torch.tensor([0.5, -0.5]).repeat(len(image) // 2)[:, None, None, None]
    apart = game.coarse(image + signs, seen, noise)
    torch.testing.assert_close(apart, torch.tensor(0.25 * COARSE_WEIGHT))


def test_only_heads_learn_in_the_turn_of_the_discriminator() -> None:
    game = against()
    game.loss("discriminator", batch()).backward()
    assert all(weight.grad is None for weight in game.student.parameters())
    assert all(weight.grad is not None for weight in game.heads.parameters())


def test_a_step_of_the_student_makes_its_images_score_higher() -> None:
    game = against(weight=1000.0)
    game.heads.eval()

    def score() -> float:
        distilled, walked = halves(batch())
        Distillation.loss(game, "model", distilled)  # draws from the generator as the loss does
        seen = game.seen(game.made(walked, noise_of(walked)), walked.generator)
        return -float(unreality(game.scores(seen)).detach())

    before = score()
    game.loss("model", batch()).backward()
    with torch.no_grad():
        for weight in game.student.parameters():
            weight -= 1e-5 * weight.grad
    assert score() > before


def test_a_discriminator_learns_to_tell_light_images_from_dark(monkeypatch: pytest.MonkeyPatch) -> None:
    game, light, losses = against(), torch.full((4, 3, 16, 16), 0.8), []
    monkeypatch.setattr(game, "made", lambda batch, noise: -light[:2])
    game.discriminator.optimizer.param_groups[0]["lr"] = 0.01
    for step in range(20):
        loss = game.loss("discriminator", Batch(light, torch.Generator().manual_seed(step)))
        game.discriminator.optimizer.zero_grad()
        loss.backward()
        game.discriminator.optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


COARSE = CoarseConfig(2, 28, 4, replace(CELL, num_cell_steps=1))
SPECTRUM = FourierConfig(4, cell=replace(CELL, num_cell_steps=1))


@pytest.mark.parametrize(
    ("stages", "learning"),
    [
        ({"channels": 10, "coarse": COARSE}, {"coarse"}),
        ({"family": "fourier_diff_nca", "fourier": SPECTRUM}, {"fourier", "image"}),
    ],
)
def test_a_student_learns_in_all_stages_but_one_of_finer_cells(
    stages: dict[str, object], learning: set[str]
) -> None:
    own = small_config(8)
    teacher = replace(own, model=replace(own.model, **stages))
    student = build_denoiser(student_config(teacher, 4))
    with torch.no_grad():
        for weight in student.parameters():
            weight.add_(0.1 * torch.randn_like(weight))  # else its last layer is zero, and nothing learns
    before = {name: weight.clone() for name, weight in student.network.named_parameters()}
    game = AgainstFeatures(build_denoiser(teacher), (Means(4, 8),), LOOKS["features"], 0.5, student, CPU)
    game.loss("model", batch()).backward()
    game.player.optimizer.step()
    after = dict(student.network.named_parameters())
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == learning


def played(out: Path, images: int, care: Care = QUIET, **changes: object) -> None:
    out.mkdir(exist_ok=True)
    teacher = build_denoiser(small_config(8))
    config = student_config(small_config(images, **changes), 2)
    game = partial(AgainstFeatures, teacher, (Means(4, 8),), LOOKS["features"], 0.1)
    Trainer(config, out, stripes, care, objective=game).run()


class KilledError(Exception):
    """The run is killed."""


def test_a_run_killed_among_large_batches_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    def kill(title: str, done: float, total: float) -> None:
        if done == 24:
            raise KilledError

    out, killed, care = tmp_path / "whole", tmp_path / "killed", replace(QUIET, held_out=stripes)
    late: dict[str, object] = {"late_batch": 4 * BATCH, "ema_widths": (0.05, 0.1)}
    torch.manual_seed(0)
    played(out, 24, care, **late)  # the last step takes two batches
    with pytest.raises(KilledError):
        played(killed, 24, replace(care, checkpoint_seconds=0.0, report=kill), **late)
    played(killed, 24, care, **late)
    assert is_equal(out, killed)
    widths = [read_card(each / MODEL_FILE).get("average_width") for each in (out, killed)]
    assert widths[0] == widths[1]


def test_a_checkpoint_holds_heads_and_memory_and_no_frozen_weight(tmp_path: Path) -> None:
    played(tmp_path, 4)
    own = {name for name in state_of(tmp_path) if name.startswith("discriminator.network.")}
    assert own == {f"discriminator.network.{name}" for name in against().discriminator.module.state_dict()}
