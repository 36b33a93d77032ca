"""Who computes changes nothing: processes, a cluster of Dask, workers that die."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffnca.canvas.pixels import to_uint8
from diffnca.formats.ome_zarr import OmeZarrWriter, read_pixels
from diffnca.sampling.generate import generate
from diffnca.tiles.crews import PIECES_PER_WORKER, Alone, DaskCluster, Processes, given_out
from diffnca.tiles.job import Job
from diffnca.tiles.sweeps import sample_tiled

from .conftest import COARSE, plan_of, small_denoiser

MakeJob = Callable[..., Job]


def on_disk(job: Job, path: Path) -> Job:
    """Return the job with a writer that other processes can use."""
    writer = OmeZarrWriter(f"{path}/image.ome.zarr", None, 8, 8)
    writer.open(job.task.canvas, 3, {})
    return replace(job, writer=writer)


def pixels_of(job: Job, crew: Any, progress: Any = None) -> np.ndarray:
    sample_tiled(job, plan_of(job, tile=16), crew, progress)
    return read_pixels(job.writer.url)


def in_memory(job: Job) -> np.ndarray:
    canvas = job.task.canvas
    images = generate(
        job.denoiser, height=canvas.height, width=canvas.width, seed=5, steps=3, sampler="dpmpp2m"
    )
    return to_uint8(images)[0]


@contextmanager
def silent_children() -> Iterator[None]:
    """Within the block, processes are started whose errors nobody sees."""
    shown = os.dup(2)
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(shown, 2)
            os.close(shown)


def started(workers: int) -> Any:
    """Return a Dask cluster of this machine; what its workers write, other processes, is not shown."""
    distributed = pytest.importorskip("distributed")
    with silent_children():
        return distributed.LocalCluster(
            n_workers=workers, threads_per_worker=1, dashboard_address=":0", silence_logs=40
        )


class Clusters:
    """A cluster of two workers for all tests, and another one after a test has ended its scheduler."""

    def __init__(self) -> None:
        self.current: Any = None

    def running(self) -> Any:
        if self.current is None or self.current.status.name != "running":
            self.current = started(2)
        return self.current


@pytest.fixture(scope="module")
def clusters() -> Iterator[Clusters]:
    clusters = Clusters()
    yield clusters
    if clusters.current is not None:
        clusters.current.close()


@pytest.fixture
def cluster(clusters: Clusters) -> Any:
    return clusters.running()


def test_alone_this_process_gives_the_pixels_of_the_whole(make_job: MakeJob, tmp_path: Path) -> None:
    job = on_disk(make_job(small_denoiser()), tmp_path)
    assert np.array_equal(pixels_of(job, Alone()), in_memory(job))


def test_processes_give_the_pixels_of_the_whole_and_know_a_coarse_stage(
    make_job: MakeJob, tmp_path: Path
) -> None:
    job = on_disk(make_job(small_denoiser(coarse=COARSE)), tmp_path)
    assert np.array_equal(pixels_of(job, Processes(2)), in_memory(job))


@pytest.mark.xdist_group("dask")
class TestCluster:
    @pytest.mark.parametrize("recipe", ["diff_nca", "fourier_diff_nca"])
    def test_gives_the_pixels_of_the_whole(
        self, make_job: MakeJob, tmp_path: Path, cluster: Any, recipe: str
    ) -> None:
        job = on_disk(make_job(small_denoiser(recipe)), tmp_path)
        assert np.array_equal(pixels_of(job, DaskCluster(cluster.scheduler_address)), in_memory(job))

    def test_does_not_mix_two_images(self, make_job: MakeJob, tmp_path: Path, cluster: Any) -> None:
        (tmp_path / "other").mkdir()
        first = on_disk(make_job(small_denoiser()), tmp_path)
        second = replace(on_disk(make_job(small_denoiser(), folder="others"), tmp_path / "other"), seed=9)
        crew = DaskCluster(cluster.scheduler_address)
        with crew.hired(first) as one, crew.hired(second):
            tiles = first.task.canvas.whole.tiles(8, 8)
            list(one(("advance", tile, range(3)) for tile in tiles))
        assert np.array_equal(read_pixels(first.writer.url), in_memory(first))

    def test_goes_on_without_a_killed_worker_and_ends_in_one_clear_line_without_its_scheduler(
        self, make_job: MakeJob, tmp_path: Path, cluster: Any, capfd: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("diffnca.tiles.dask.CONNECT_SECONDS", 1)
        job, killed = on_disk(make_job(small_denoiser()), tmp_path), []

        def kill_one(done: float, total: float) -> None:
            if done > 0.3 * total and not killed:
                killed.append(next(iter(cluster.workers.values())).pid)
                os.kill(killed[0], signal.SIGKILL)

        pixels = pixels_of(job, DaskCluster(cluster.scheduler_address), kill_one)
        assert killed and np.array_equal(pixels, in_memory(job))
        (tmp_path / "other").mkdir()
        other = on_disk(make_job(small_denoiser(), folder="others"), tmp_path / "other")
        with pytest.raises(OSError, match="the scheduler of the cluster has ended; start another"):
            pixels_of(other, DaskCluster(cluster.scheduler_address), lambda done, total: cluster.close())
        assert "Traceback" not in capfd.readouterr().err

    def test_without_workers_is_one_clear_line(
        self, make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("diffnca.tiles.dask.PATIENCE_SECONDS", 0.2)
        job = on_disk(make_job(small_denoiser()), tmp_path)
        cluster = started(0)
        with pytest.raises(ValueError, match="it has no workers; start some"):
            pixels_of(job, DaskCluster(cluster.scheduler_address))
        cluster.close()


def test_a_cluster_that_is_not_there_is_one_clear_line(
    make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr("diffnca.tiles.dask.CONNECT_SECONDS", 1)
    job = on_disk(make_job(small_denoiser()), tmp_path)
    with pytest.raises(ValueError, match="--scheduler tcp://127.0.0.1:9: no answer"):
        pixels_of(job, DaskCluster("tcp://127.0.0.1:9"))


def test_few_pieces_are_given_out_at_a_time() -> None:
    taken: list[int] = []

    def pieces() -> Iterator[Any]:
        for index in range(50):
            taken.append(index)
            yield ("advance", None, range(0))

    with ThreadPoolExecutor(3) as pool:
        given = given_out(pool, lambda *piece: time.sleep(0.001), pieces(), lambda: 3)
        waiting = [len(taken) - done for done, _ in enumerate(given)]
    assert max(waiting) <= 3 * PIECES_PER_WORKER


def test_it_is_logged_once_that_no_workers_are_left(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("diffnca.tiles.crews.POLL_SECONDS", 0.01)
    with ThreadPoolExecutor(1) as pool:
        pieces = [("advance", None, range(0))]
        list(given_out(pool, lambda *piece: time.sleep(0.2), iter(pieces), lambda: 0))
    assert caplog.messages == ["no workers are left; waiting for one"]


def test_every_piece_is_done_once() -> None:
    seen: list[Any] = []
    with ThreadPoolExecutor(3) as pool:
        pieces = [("advance", index, range(0)) for index in range(40)]
        results = list(given_out(pool, lambda *piece: seen.append(piece), iter(pieces), lambda: 3))
    assert sorted(seen) == sorted(pieces) and len(results) == 40
