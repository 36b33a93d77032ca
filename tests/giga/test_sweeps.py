"""Tiles give the pixels of the whole, to the bit, and go on where they were left."""

import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffnca.diffusion.samplers import DDIM
from diffnca.geometry import Region
from diffnca.giga.sweeps import sample_tiled
from diffnca.giga.tiles import Job, work
from diffnca.pixels import to_uint8
from diffnca.tasks import generate

from .conftest import plan_of, small_denoiser

MakeJob = Callable[..., Job]
BOUNDARIES = [("circular", "reflect"), ("reflect", "circular"), ("circular", "circular")]


def in_memory(job: Job) -> np.ndarray:
    canvas = job.task.canvas
    images = generate(
        job.denoiser,
        height=canvas.height,
        width=canvas.width,
        boundary=canvas.boundary,
        seed=job.seed,
        sampler=job.sampler,
        steps=job.num_steps,
    )
    return to_uint8(images)[0]


def in_tiles(job: Job, tile: int = 16, fused: int = 1, crew: Any = None) -> np.ndarray:
    sample_tiled(job, plan_of(job, tile, fused), crew)
    return job.writer.pixels


@dataclass(frozen=True)
class Backwards:
    """A crew that does the pieces of a sweep from the last to the first."""

    @contextmanager
    def hired(self, job: Job) -> Iterator[Any]:
        yield lambda pieces: ((piece, work(job, *piece)) for piece in reversed(list(pieces)))


@dataclass
class Mortal:
    """A crew that dies after some pieces."""

    pieces_left: int

    @contextmanager
    def hired(self, job: Job) -> Iterator[Any]:
        def done(pieces: Iterable[Any]) -> Iterator[Any]:
            for piece in pieces:
                if self.pieces_left == 0:
                    raise KeyboardInterrupt
                self.pieces_left -= 1
                yield piece, work(job, *piece)

        yield done


class TestEqualToTheWhole:
    @pytest.mark.parametrize("recipe", ["diff_nca", "fourier_diff_nca"])
    @pytest.mark.parametrize("sampler", ["ddpm", "dpmpp2m", DDIM(eta=0.5)])
    def test_for_every_network_and_sampler(self, make_job: MakeJob, recipe: str, sampler: Any) -> None:
        job = make_job(small_denoiser(recipe), sampler=sampler)
        assert np.array_equal(in_tiles(job), in_memory(job))

    @pytest.mark.parametrize(
        "boundary", [("circular", "reflect"), ("reflect", "circular"), ("circular",) * 2]
    )
    @pytest.mark.parametrize("recipe", ["diff_nca", "fourier_diff_nca"])
    def test_for_every_boundary(self, make_job: MakeJob, recipe: str, boundary: Any) -> None:
        job = make_job(small_denoiser(recipe), boundary=boundary)
        assert np.array_equal(in_tiles(job), in_memory(job))

    @pytest.mark.parametrize(("tile", "fused"), [(8, 1), (24, 2), (32, 3), (64, 1), (64, 3)])
    def test_for_every_tile_and_number_of_steps_in_a_sweep(
        self, make_job: MakeJob, tile: int, fused: int
    ) -> None:
        job = make_job(small_denoiser())
        assert np.array_equal(in_tiles(job, tile, fused), in_memory(job))

    @pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 50), (33, 7), (23, 35)])
    def test_for_odd_sizes(self, make_job: MakeJob, height: int, width: int) -> None:
        job = make_job(small_denoiser(), height, width)
        assert np.array_equal(in_tiles(job), in_memory(job))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_in_float32_and_in_bfloat16(
        self, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
    ) -> None:
        monkeypatch.setattr("diffnca.engine.fast_dtype", lambda device: dtype)
        job = make_job(small_denoiser())
        assert np.array_equal(in_tiles(job), in_memory(job))

    def test_in_any_order(self, make_job: MakeJob) -> None:
        job = make_job(small_denoiser())
        assert np.array_equal(in_tiles(job, crew=Backwards()), in_memory(job))

    def test_where_cells_update_at_random(self, make_job: MakeJob) -> None:
        job = make_job(small_denoiser(update_probability=0.5))
        assert np.array_equal(in_tiles(job), in_memory(job))


@dataclass(frozen=True)
class Squinting(Job):
    """A job that takes its network to see a pixel less far than it does."""

    @property
    def radius(self) -> int:
        return super().radius - 1


def squinting(job: Job) -> Squinting:
    return Squinting(**{name: getattr(job, name) for name in job.__dataclass_fields__})


def test_a_halo_one_pixel_short_gives_other_pixels(make_job: MakeJob) -> None:
    job = squinting(make_job(small_denoiser(patch=1)))
    assert not np.array_equal(in_tiles(job), in_memory(job))


def test_pixels_are_neither_all_black_nor_all_white(make_job: MakeJob) -> None:
    pixels = in_memory(make_job(small_denoiser()))
    assert np.isin(pixels, (0, 255)).mean() < 0.2


class TestRestart:
    @pytest.mark.parametrize(
        ("recipe", "pieces"),
        [("diff_nca", n) for n in (0, 1, 5, 6, 7, 12, 15)] + [("fourier_diff_nca", n) for n in (4, 9)],
    )
    def test_after_any_piece_gives_the_same_pixels(self, make_job: MakeJob, recipe: str, pieces: int) -> None:
        job = make_job(small_denoiser(recipe))
        with pytest.raises(KeyboardInterrupt):
            in_tiles(job, crew=Mortal(pieces))
        assert np.array_equal(in_tiles(job), in_memory(job))

    def test_with_other_tiles_and_sweeps_gives_the_same_pixels(self, make_job: MakeJob) -> None:
        job = make_job(small_denoiser(), steps=5)
        with pytest.raises(KeyboardInterrupt):
            in_tiles(job, tile=16, fused=2, crew=Mortal(9))
        with pytest.raises(KeyboardInterrupt):
            in_tiles(job, tile=8, fused=1, crew=Mortal(22))
        assert np.array_equal(in_tiles(job, tile=32, fused=3), in_memory(job))

    def test_of_what_was_begun_as_one_tile_gives_the_same_pixels(self, make_job: MakeJob) -> None:
        job = make_job(small_denoiser("fourier_diff_nca"))
        with pytest.raises(KeyboardInterrupt):
            in_tiles(job, tile=64, fused=2, crew=Mortal(0))
        assert np.array_equal(in_tiles(job), in_memory(job))

    def test_makes_no_finished_tile_again(self, make_job: MakeJob) -> None:
        job = make_job(small_denoiser())
        with pytest.raises(KeyboardInterrupt):
            in_tiles(job, crew=Mortal(6 + 6 + 2))
        rest = Mortal(6 - 2)
        in_tiles(job, crew=rest)
        assert rest.pieces_left == 0

    def test_after_a_part_of_the_store_was_lost_is_refused(self, make_job: MakeJob) -> None:
        job = make_job(small_denoiser())
        with pytest.raises(KeyboardInterrupt):
            in_tiles(job, crew=Mortal(6 + 2))
        assert job.states.steps() == [1, 2]
        shutil.rmtree(Path(job.states.url) / "image-0001" / "c")
        with pytest.raises(OSError, match="image-0001 has lost a part, or the model has diverged"):
            in_tiles(job)

    def test_of_a_finished_image_does_nothing(self, make_job: MakeJob) -> None:
        job = make_job(small_denoiser())
        in_tiles(job)
        in_tiles(job, crew=Mortal(0))


def test_no_more_than_two_states_exist_at_a_time(make_job: MakeJob) -> None:
    job, seen = make_job(small_denoiser(), steps=5), []
    sample_tiled(job, plan_of(job), progress=lambda done, total: seen.append(len(job.states.steps())))
    assert max(seen) == 2


def test_no_state_is_left(make_job: MakeJob) -> None:
    job = make_job(small_denoiser("fourier_diff_nca"))
    in_tiles(job)
    assert job.states.steps() == []


def test_progress_ends_at_all_pixels_of_all_steps(make_job: MakeJob) -> None:
    job, told = make_job(small_denoiser()), []
    sample_tiled(job, plan_of(job), progress=lambda done, total: told.append((done, total)))
    assert told == sorted(told) and told[-1] == (24 * 36 * 3, 24 * 36 * 3)


def test_tile_that_is_no_union_of_chunks_is_refused(make_job: MakeJob) -> None:
    with pytest.raises(ValueError, match=r"^tile=12 px: must be a multiple of 8 px"):
        in_tiles(make_job(small_denoiser()), tile=12)


def test_network_that_sees_everything_is_refused(make_job: MakeJob) -> None:
    job = make_job(small_denoiser(normalisation="group"))
    with pytest.raises(ValueError, match="must see a finite radius, but takes statistics over the whole"):
        plan_of(job)


class TestRegion:
    @pytest.mark.parametrize("boundary", [("reflect", "reflect"), ("reflect", "circular"), ("circular",) * 2])
    @pytest.mark.parametrize("sampler", ["ddpm", "dpmpp2m"])
    def test_equals_the_crop_of_the_whole(self, make_job: MakeJob, boundary: Any, sampler: str) -> None:
        job = make_job(small_denoiser(), boundary=boundary, sampler=sampler)
        canvas = job.task.canvas
        region = Region(7, 20, 9, 13, canvas)
        options = {"height": 24, "width": 36, "boundary": boundary, "seed": 5, "sampler": sampler, "steps": 3}
        whole = generate(job.denoiser, **options)
        part = generate(job.denoiser, region=region, **options)
        assert torch.equal(part, region.crop(whole, of=canvas.whole))

    def test_over_a_circular_edge_equals_the_crop_of_the_whole(self, make_job: MakeJob) -> None:
        job = make_job(small_denoiser(), boundary=("reflect", "circular"))
        region = Region(0, 30, 10, 20, job.task.canvas)
        options = {"height": 24, "width": 36, "boundary": ("reflect", "circular"), "seed": 5, "steps": 3}
        whole = generate(job.denoiser, **options)
        assert torch.equal(
            generate(job.denoiser, region=region, **options), region.crop(whole, of=job.task.canvas.whole)
        )

    def test_of_a_network_that_looks_at_the_whole_is_refused(self, make_job: MakeJob) -> None:
        job = make_job(small_denoiser("fourier_diff_nca"))
        with pytest.raises(ValueError, match="looks at the whole image in each step"):
            generate(job.denoiser, height=24, width=36, region=Region(0, 0, 8, 8, job.task.canvas))

    def test_on_another_canvas_is_refused(self, make_job: MakeJob) -> None:
        job = make_job(small_denoiser())
        with pytest.raises(ValueError, match="must lie on the canvas of the image"):
            generate(job.denoiser, height=25, width=36, region=Region(0, 0, 8, 8, job.task.canvas))


def test_other_seeds_give_other_pixels(make_job: MakeJob) -> None:
    job = make_job(small_denoiser())
    other = replace(job, seed=6, writer=make_job(small_denoiser()).writer)
    assert not np.array_equal(in_tiles(job), in_tiles(other))
