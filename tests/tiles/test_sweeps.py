"""Tiles give the pixels of the whole, to the bit, and go on where they were left."""

import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from diffnca.canvas.region import Region
from diffnca.diffusion.samplers import DDIM
from diffnca.sampling.generate import generate
from diffnca.tiles.job import Job, work
from diffnca.tiles.sweeps import sample_tiled

from .conftest import COARSE, as_pixels, plan_of, small_denoiser

pytestmark = pytest.mark.usefixtures("unrounded")

MakeJob = Callable[..., Job]
BOUNDARIES = [("circular", "reflect"), ("reflect", "circular"), ("circular", "circular")]


def in_memory(job: Job) -> Tensor:
    """Return the pixels of an image that is made at once, not rounded."""
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
    return torch.from_numpy(as_pixels(images)[0])


def in_tiles(job: Job, tile: int = 16, fused: int = 1, crew: Any = None) -> Tensor:
    sample_tiled(job, plan_of(job, tile, fused), crew)
    return torch.from_numpy(job.writer.pixels)


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
    @pytest.mark.parametrize(
        ("recipe", "sampler"),
        [
            *(("diff_nca", sampler) for sampler in ("ddpm", "dpmpp2m", DDIM(eta=0.5))),
            *(("fourier_diff_nca", sampler) for sampler in ("ddpm", "dpmpp2m")),
        ],
    )
    def test_for_every_network_and_sampler(self, make_job: MakeJob, recipe: str, sampler: Any) -> None:
        job = make_job(small_denoiser(recipe), sampler=sampler)
        assert torch.equal(in_tiles(job), in_memory(job))

    @pytest.mark.parametrize(
        ("recipe", "boundary"),
        [*(("diff_nca", boundary) for boundary in BOUNDARIES), ("fourier_diff_nca", BOUNDARIES[-1])],
    )
    def test_for_every_boundary(self, make_job: MakeJob, recipe: str, boundary: Any) -> None:
        job = make_job(small_denoiser(recipe), boundary=boundary)
        assert torch.equal(in_tiles(job), in_memory(job))

    @pytest.mark.parametrize(
        ("boundary", "tile", "height", "width"),
        [(("reflect", "reflect"), 8, 28, 20), (BOUNDARIES[-1], 8, 20, 28), (BOUNDARIES[-1], 32, 44, 72)],
    )
    def test_with_a_coarse_stage(
        self, make_job: MakeJob, boundary: Any, tile: int, height: int, width: int
    ) -> None:
        job = make_job(small_denoiser(coarse=COARSE), height, width, boundary=boundary)
        assert torch.equal(in_tiles(job, tile), in_memory(job))

    @pytest.mark.parametrize(("tile", "fused"), [(8, 1), (24, 2), (32, 3), (64, 1), (64, 3)])
    def test_for_every_tile_and_number_of_steps_in_a_sweep(
        self, make_job: MakeJob, tile: int, fused: int
    ) -> None:
        job = make_job(small_denoiser())
        assert torch.equal(in_tiles(job, tile, fused), in_memory(job))

    @pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 50), (33, 7), (23, 35)])
    def test_for_odd_sizes(self, make_job: MakeJob, height: int, width: int) -> None:
        job = make_job(small_denoiser(), height, width)
        assert torch.equal(in_tiles(job), in_memory(job))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_in_float32_and_in_bfloat16(
        self, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
    ) -> None:
        monkeypatch.setattr("diffnca.engine.fast_dtype", lambda device: dtype)
        job = make_job(small_denoiser())
        assert torch.equal(in_tiles(job), in_memory(job))

    def test_in_any_order(self, make_job: MakeJob) -> None:
        job = make_job(small_denoiser())
        assert torch.equal(in_tiles(job, crew=Backwards()), in_memory(job))

    def test_where_cells_update_at_random(self, make_job: MakeJob) -> None:
        job = make_job(small_denoiser(update_probability=0.5))
        assert torch.equal(in_tiles(job), in_memory(job))


@pytest.mark.parametrize(
    ("recipe", "sampler", "dtype"),
    [
        ("diff_nca", "ddpm", torch.float32),
        ("diff_nca", "dpmpp2m", torch.bfloat16),
        ("fourier_diff_nca", "dpmpp2m", torch.float32),
        ("fourier_diff_nca", "ddpm", torch.bfloat16),
    ],
)
def test_states_between_sweeps_are_those_of_the_whole(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch, recipe: str, sampler: str, dtype: torch.dtype
) -> None:
    monkeypatch.setattr("diffnca.engine.fast_dtype", lambda device: dtype)
    job = make_job(small_denoiser(recipe), sampler=sampler)
    whole = make_job(small_denoiser(recipe), sampler=sampler, folder="whole")
    context_pieces = 1 if job.denoiser.has_context else 0
    with pytest.raises(KeyboardInterrupt):
        in_tiles(job, crew=Mortal(2 * (6 + context_pieces)))
    whole.states.create(2)
    whole.advance(whole.task.canvas.whole, range(2))
    for read in ("read_image", "read_estimate") if sampler == "dpmpp2m" else ("read_image",):
        parts = [getattr(each.states, read)(2, each.task.canvas.whole) for each in (job, whole)]
        assert torch.equal(*parts)


def test_shards_larger_than_tiles_give_the_same_pixels(make_job: MakeJob) -> None:
    job = make_job(small_denoiser())
    sample_tiled(job, replace(plan_of(job, tile=8), shard_px=16))
    assert torch.equal(torch.from_numpy(job.writer.pixels), in_memory(job))


def test_a_shard_is_written_once(make_job: MakeJob) -> None:
    job = make_job(small_denoiser())
    sample_tiled(job, replace(plan_of(job, tile=8), shard_px=16))
    assert job.writer.calls == list(job.task.canvas.whole.tiles(16, 16))


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
    assert not torch.equal(in_tiles(job), in_memory(job))


def test_pixels_are_neither_all_black_nor_all_white(make_job: MakeJob) -> None:
    pixels = in_memory(make_job(small_denoiser()))
    assert (pixels.abs() == 1.0).float().mean() < 0.2


def stopped_in_the_second_sweep(make_job: MakeJob) -> Job:
    """Return a job of which a part is made of the state before the second step."""
    job = make_job(small_denoiser())
    with pytest.raises(KeyboardInterrupt):
        in_tiles(job, crew=Mortal(6 + 1))
    assert job.states.steps() == [1, 2]
    return job


def chunk_of(job: Job) -> Path:
    """Return a chunk that the work will read."""
    return Path(job.states.url) / "image-0001" / "c" / "0" / "0" / "3"


def damage(file: Path) -> None:
    """Flip a bit."""
    content = bytearray(file.read_bytes())
    content[100] ^= 1
    file.write_bytes(content)


def test_a_model_that_diverges_is_told_from_a_damaged_store(make_job: MakeJob) -> None:
    denoiser = small_denoiser()
    for parameter in denoiser.parameters():
        parameter.fill_(torch.nan)
    with pytest.raises(ValueError, match="the model gives values that are no numbers in step 1"):
        in_tiles(make_job(denoiser))


class TestRestart:
    @pytest.mark.parametrize(
        ("recipe", "pieces"),
        [("diff_nca", n) for n in (0, 5, 6, 15)] + [("fourier_diff_nca", 9)],
    )
    def test_after_any_piece_gives_the_same_pixels(self, make_job: MakeJob, recipe: str, pieces: int) -> None:
        job = make_job(small_denoiser(recipe))
        with pytest.raises(KeyboardInterrupt):
            in_tiles(job, crew=Mortal(pieces))
        assert torch.equal(in_tiles(job), in_memory(job))

    def test_with_other_tiles_and_sweeps_gives_the_same_pixels(self, make_job: MakeJob) -> None:
        job = make_job(small_denoiser(), steps=5)
        with pytest.raises(KeyboardInterrupt):
            in_tiles(job, tile=16, fused=2, crew=Mortal(9))
        with pytest.raises(KeyboardInterrupt):
            in_tiles(job, tile=8, fused=1, crew=Mortal(22))
        assert torch.equal(in_tiles(job, tile=32, fused=3), in_memory(job))

    def test_of_what_was_begun_as_one_tile_gives_the_same_pixels(self, make_job: MakeJob) -> None:
        job = make_job(small_denoiser("fourier_diff_nca"))
        with pytest.raises(KeyboardInterrupt):
            in_tiles(job, tile=64, fused=2, crew=Mortal(0))
        assert torch.equal(in_tiles(job), in_memory(job))

    def test_makes_no_finished_tile_again(self, make_job: MakeJob) -> None:
        job = make_job(small_denoiser())
        with pytest.raises(KeyboardInterrupt):
            in_tiles(job, crew=Mortal(6 + 6 + 2))
        rest = Mortal(6 - 2)
        in_tiles(job, crew=rest)
        assert rest.pieces_left == 0

    def test_after_a_part_of_the_store_was_lost_names_it(self, make_job: MakeJob) -> None:
        job = stopped_in_the_second_sweep(make_job)
        chunk_of(job).unlink()
        with pytest.raises(ValueError, match="image-0001/c/0/0/3: is missing; delete .*/states, then"):
            in_tiles(job)

    def test_after_a_part_of_the_store_was_damaged_names_it(self, make_job: MakeJob) -> None:
        job = stopped_in_the_second_sweep(make_job)
        damage(chunk_of(job))
        with pytest.raises(ValueError, match=r"c/0/0/3: is damaged \(.*\); delete .*/states, then"):
            in_tiles(job)

    def test_after_what_the_message_says_gives_the_same_pixels(self, make_job: MakeJob) -> None:
        job = stopped_in_the_second_sweep(make_job)
        damage(chunk_of(job))
        shutil.rmtree(job.states.url)
        assert torch.equal(in_tiles(job), in_memory(job))

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
    assert not torch.equal(in_tiles(job), in_tiles(other))
