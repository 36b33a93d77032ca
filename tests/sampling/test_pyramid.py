"""The pyramid: what the half of a canvas sees, and what its estimate changes on the canvas."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from diffnca import generate
from diffnca.canvas.noise import Noise
from diffnca.canvas.region import Boundary, Canvas, Region
from diffnca.cli.main import main
from diffnca.config.model import Config, with_fields
from diffnca.config.recipes import recipe_named
from diffnca.diffusion.denoiser import Denoiser, Query
from diffnca.diffusion.schedule import Level
from diffnca.models.build import build_denoiser
from diffnca.models.file import write_model
from diffnca.networks.patches import PatchGrid
from diffnca.sampling.guidance import AroundDenoiser, Guided, guided, prepare
from diffnca.sampling.pyramid import LARGEST_PX, Later, Pyramid, enlarged, half_of, means_of
from diffnca.sampling.task import stage_works

SMALL = {
    "model.channels": 24,
    "model.patch": 2,
    "model.cell.hidden": 16,
    "model.cell.num_cell_steps": 2,
    "model.cell.dilations": (1, 1),
    "model.cell.update_probability": 0.7,
    "model.fourier.window": 4,
    "model.fourier.trained_px": 16,
    "model.fourier.cell.num_cell_steps": 2,
    "data.crop": 16,
}


def config(**changes: Any) -> Config:
    return with_fields(recipe_named("fourier_diff_nca"), SMALL | changes)


def made(**changes: Any) -> Denoiser:
    """Return a small model whose weights do something."""
    torch.manual_seed(0)
    denoiser = build_denoiser(config(**changes))
    with torch.no_grad():
        for weight in denoiser.network.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    return denoiser


@pytest.fixture(scope="module")
def denoiser() -> Denoiser:
    return made()


def query(canvas: Canvas, region: Region | None = None, images: int = 2) -> Query:
    x_t = torch.randn(images, 3, canvas.height, canvas.width, generator=torch.Generator().manual_seed(1))
    part = region or canvas.whole
    noise = Noise(tuple(range(images))).at(3)
    return Query(part.crop(x_t, of=canvas.whole), Level.of_log_snr(-0.5), part, noise)


class Seen(AroundDenoiser):
    """A denoiser that keeps its queries; its estimates are zero."""

    def __init__(self, denoiser: Denoiser) -> None:
        self.denoiser, self.queries = denoiser, list[Query]()

    def context(self, query: Query) -> Tensor:
        return torch.zeros(len(query.x_t), 6, 8, 4, dtype=torch.float64)

    def estimate(self, query: Query) -> Tensor:
        self.queries.append(query)
        return torch.zeros_like(query.x_t)


def test_the_half_sees_the_means_of_the_image_in_noise_of_its_level(denoiser: Denoiser) -> None:
    seen = Seen(denoiser)
    x_0, noise = torch.randn(2, 1, 3, 32, 40, dtype=torch.float64)
    level = Level.of_log_snr(-0.5)
    Pyramid(seen).estimate(Query(level.alpha * x_0 + level.sigma * noise, level, Canvas(32, 40).whole))
    small = seen.queries[1]
    means, white = F.avg_pool2d(x_0, 2), 2.0 * F.avg_pool2d(noise, 2)  # of unit variance
    assert small.level.log_snr == pytest.approx(level.log_snr + 2.0 * torch.tensor(2.0).log().item())
    torch.testing.assert_close(small.x_t, small.level.alpha * means + small.level.sigma * white)


def test_an_estimate_whose_means_are_those_of_the_half_stays(denoiser: Denoiser) -> None:
    class Agreeing(Seen):
        def estimate(self, query: Query) -> Tensor:
            rows = torch.arange(query.region.height)[:, None].expand(query.x_t.shape)
            alternating = 1.0 - 2.0 * (rows % 2)
            return alternating.to(query.x_t) if query.region.height == 32 else torch.zeros_like(query.x_t)

    asked = query(Canvas(32, 32))
    like = Agreeing(denoiser)
    assert torch.equal(Pyramid(like).estimate(asked), like.estimate(asked))


@pytest.mark.parametrize("boundary", ["reflect", "circular"])
def test_the_means_of_an_estimate_become_those_of_the_half(denoiser: Denoiser, boundary: Boundary) -> None:
    class Constant(Seen):
        def estimate(self, query: Query) -> Tensor:
            return torch.full_like(query.x_t, 0.5 if query.region.height == 32 else -0.25)

    like = Constant(denoiser)
    found = Pyramid(like).estimate(query(Canvas(32, 48, (boundary, "reflect"))))
    assert torch.equal(found, torch.full_like(found, -0.25))


def test_the_change_is_interpolated_bicubically() -> None:
    small, canvas = torch.randn(1, 2, 7, 9), Canvas(14, 18)
    wanted = F.interpolate(small, scale_factor=2, mode="bicubic", align_corners=False)
    torch.testing.assert_close(enlarged(small, PatchGrid(canvas.whole, 2)), wanted)


def test_the_interpolation_joins_the_edges_of_a_circular_axis() -> None:
    small, canvas = torch.randn(1, 2, 6, 8), Canvas(12, 16, ("circular", "reflect"))
    squares = PatchGrid(canvas.whole, 2)
    assert torch.equal(enlarged(small.roll(2, 2), squares), enlarged(small, squares).roll(4, 2))


@pytest.mark.parametrize("boundary_y", ["reflect", "circular"])
@pytest.mark.parametrize("boundary_x", ["reflect", "circular"])
@pytest.mark.parametrize(("height", "width"), [(64, 64), (72, 136), (65, 129)])
def test_parts_of_a_canvas_equal_the_whole_to_the_bit(
    denoiser: Denoiser, boundary_y: Boundary, boundary_x: Boundary, height: int, width: int
) -> None:
    pyramid = prepare(denoiser, torch.device("cpu"))
    sides = [
        side if boundary == "reflect" else side // 4 * 4  # a circular side has whole cells of the half
        for side, boundary in ((height, boundary_y), (width, boundary_x))
    ]
    canvas = Canvas(*sides, (boundary_y, boundary_x))
    asked, radius = query(canvas), pyramid.radius or 0
    whole = pyramid.estimate(asked)
    context = sum(pyramid.context(query(canvas, part)) for part in canvas.whole.tiles(64, 64))
    for part in (Region(0, 0, 24, 31, canvas), Region(33, 21, 14, 22, canvas)):
        around = part.grow(radius)
        found = pyramid.estimate(replace(query(canvas, around), context=context))
        assert torch.equal(part.crop(found, of=around), part.crop(whole, of=canvas.whole))


def test_odd_canvases_have_a_half(denoiser: Denoiser) -> None:
    assert half_of(Canvas(33, 47), denoiser.config) == Canvas(17, 24)
    pyramid = prepare(denoiser, torch.device("cpu"))
    assert torch.isfinite(pyramid.estimate(query(Canvas(33, 47)))).all()


def test_the_last_pixels_of_an_odd_canvas_count_twice() -> None:
    image = torch.arange(15.0).reshape(1, 1, 3, 5)
    assert means_of(image).tolist() == [[[[3.0, 5.0, 6.5], [10.5, 12.5, 14.0]]]]


def test_guided_models_share_one_pyramid(denoiser: Denoiser) -> None:
    student = build_denoiser(config(**{"sampling.steps": 2, "sampling.visited": (299, 149)}))
    for better, weaker, kind in ((denoiser, student, Pyramid), (student, denoiser, Guided)):
        ready = prepare(guided(better, 2.0, weaker), torch.device("cpu"))
        assert isinstance(ready, kind)
        assert torch.isfinite(ready.estimate(query(Canvas(32, 32)))).all()


def test_a_label_leads_a_large_image_as_closely_as_asked() -> None:
    labelled = made(**{"layout.labels": ("a", "b"), "model.given_channels": 2})
    size = {"height": 32, "width": 32, "steps": 2, "label": "a"}
    twice, once = (generate(labelled, **size, obey=obey) for obey in (2.0, 1.0))
    assert torch.isfinite(twice).all()
    assert not torch.equal(twice, once)


@pytest.mark.parametrize(
    "canvas",
    [
        Canvas(16, 16),
        Canvas(23, 200),
        Canvas(34, 34, ("circular", "circular")),
        Canvas(2, LARGEST_PX // 2 + 1),
    ],
)
def test_small_torn_and_very_large_canvases_are_estimated_by_themselves(
    denoiser: Denoiser, canvas: Canvas
) -> None:
    assert half_of(canvas, denoiser.config) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"sampling.grown": False},
        {"sampling.steps": 2, "sampling.visited": (299, 149)},
    ],
)
def test_published_models_and_students_have_no_pyramid(changes: dict[str, Any]) -> None:
    alone = build_denoiser(config(**changes))
    assert isinstance(prepare(alone, torch.device("cpu")), Denoiser)
    assert alone.radius == alone.network.radius


def test_canvases_of_a_pyramid_have_other_masks() -> None:
    masks = Noise((5,)).at(2)
    one, other = (each.mask(0, Canvas(16, 16).whole, 0.5) for each in (masks, Later(masks, 4)))
    assert not torch.equal(one, other)
    assert torch.equal(other, masks.mask(4, Canvas(16, 16).whole, 0.5))


def test_an_image_in_tiles_is_the_same_as_in_memory(denoiser: Denoiser, tmp_path: Path) -> None:
    write_model(tmp_path / "m.safetensors", denoiser.network.state_dict(), denoiser.config, {})
    command = ["sample", str(tmp_path / "m.safetensors"), "--height", "72", "--width", "65"]
    command += ["--steps", "2", "--out"]
    assert main([*command, str(tmp_path / "whole.png")]) == 0
    assert main([*command, str(tmp_path / "tiles.ome.zarr"), "--tile", "16"]) == 0
    tiles = np.asarray(zarr.open_group(str(tmp_path / "tiles.ome.zarr"), mode="r")["0"])
    assert np.array_equal(np.moveaxis(tiles.squeeze(), 0, -1), np.asarray(Image.open(tmp_path / "whole.png")))


def test_halves_are_computed_as_far_around_a_tile_as_a_plan_counts(denoiser: Denoiser) -> None:
    """Once more as far for each half and the interpolation, but for the rounding to whole squares."""
    canvas, seen = Canvas(384, 384), Seen(denoiser)
    tile = Region(160, 160, 64, 64, canvas)
    Pyramid(seen).estimate(query(canvas, tile.grow(denoiser.radius or 0), images=1))
    found = [each.region for each in seen.queries]
    works = [each for each in stage_works(denoiser, canvas) if each.first_px <= 160]  # others see an edge
    assert len(works) == 4
    for half, (region, work) in enumerate(zip(found[:4], works, strict=True)):
        assert 160 - region.top * 2**half == pytest.approx(work.first_px, abs=2 ** (half + 1)), half


def test_each_half_counts_a_quarter_of_the_work_before(denoiser: Denoiser) -> None:
    assert [each.share for each in stage_works(denoiser, Canvas(96, 96))] == [1.0, 0.25, 0.0625, 0.015625]
