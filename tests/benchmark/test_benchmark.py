"""The benchmark: it counts what a network computes, and times what it says."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from diffnca.benchmark import compiling
from diffnca.benchmark.compiling import compile_by
from diffnca.benchmark.timing import Timing, in_turns, memory_of
from diffnca.benchmark.works import bench_training, products
from diffnca.cli.main import main
from diffnca.config.model import Config
from diffnca.config.networks import CellConfig, FourierConfig, NCAConfig
from diffnca.config.recipes import recipe_named
from diffnca.engine.machine import peak_memory_bytes
from diffnca.models.build import build_network

CPU = torch.device("cpu")
SMALL = "--height 16 --width 16 --batch 1 --rounds 1"


def counted(config: NCAConfig, height: int, width: int) -> int:
    """Return the operations that torch counts in one call of the network."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        build_network(config)(torch.zeros(1, config.image_channels, height, width), torch.tensor([0.3]))
    return counter.get_total_flops()


@pytest.mark.parametrize("patch", [1, 2])
def test_the_operations_are_those_that_torch_counts(patch: int) -> None:
    cell = CellConfig(hidden=64, num_cell_steps=3, modulation="none", embedding_width=1, embedding_channels=1)
    config = NCAConfig(patch=patch, channels=32, cell=cell)
    useful = sum(product.operations for product in products(config, 12, 20))
    cells = 12 * 20 // patch**2
    protected = 2 * cells * cell.hidden * config.cell_image_channels * cell.num_cell_steps
    embedding = 3 * 2 * (2 * 6 * 2 + 1)
    assert counted(config, 12, 20) == useful + protected + embedding


@pytest.mark.parametrize("patch", [1, 2])
def test_the_operations_of_a_fourier_stage_are_those_that_torch_counts(patch: int) -> None:
    cell = CellConfig(hidden=24, num_cell_steps=3, modulation="none", embedding_width=1, embedding_channels=1)
    config = NCAConfig("fourier_diff_nca", 1, patch, 16, cell, FourierConfig(3, cell=cell))
    rows, columns = 6, 3  # of the half plane
    useful = sum(product.operations for product in products(config, 12, 16))
    protected = 2 * 24 * 3 * (rows * columns * 2 + 12 * 16)
    embedding = 2 * 3 * 2 * (2 * 6 * 2 + 1)
    block, drawn = 64 // patch, 2 * (config.channels - config.cell_image_channels)
    transforms = 2 * 2 * rows * 64 * 64 + 2 * 2 * rows * 64 * 2 * columns
    drawing = block * 2 * rows * 2 * columns * drawn + block * block * 2 * columns * drawn
    assert counted(config, 12, 16) == useful + protected + embedding + transforms + drawing


def test_the_published_fourier_network_computes_this_for_a_face() -> None:
    model = recipe_named("fourier_diff_nca_arxiv_v1").model
    image = 64 * 64 * 20 * (9 * 100 * 96 + 196 * 512 + 512 * 93)
    fourier = 16 * 16 * 32 * (9 * 196 * 192 + 388 * 512 + 512 * 186)
    assert sum(product.operations for product in products(model, 64, 64)) == 2 * (image + fourier)


def test_a_batch_is_so_many_times_the_work() -> None:
    model = recipe_named("fourier_diff_nca").model
    one, three = (sum(p.operations for p in products(model, 30, 34, batch)) for batch in (1, 3))
    assert three == 3 * one


def test_the_share_is_that_of_the_floor() -> None:
    timing = Timing("call", seconds=2.0, operations=8_000_000_000, floor_seconds=0.5)
    assert (timing.gflops_per_second, timing.share) == (4.0, 0.25)


def test_works_are_timed_in_turns() -> None:
    calls: list[str] = []
    seconds = in_turns({name: lambda name=name: calls.append(name) for name in "ab"}, 2, CPU)
    assert calls == ["a", "b"] * 3
    assert all(value >= 0.0 for value in seconds.values())


def tiny() -> Config:
    """Return a recipe whose training steps take milliseconds."""
    config = recipe_named("diff_nca")
    cell = replace(config.model.cell, hidden=16, num_cell_steps=2)
    model = replace(config.model, channels=24, cell=cell, coarse=None)
    training = replace(config.training, batch=2, precision="float32", compile="off")
    return replace(config, model=model, training=training, data=replace(config.data, crop=16))


def test_a_training_step_has_three_times_the_operations_of_a_call() -> None:
    config = tiny()
    timing = bench_training(config, 2)
    assert timing.operations == 3 * sum(product.operations for product in products(config.model, 16, 16, 2))
    assert timing.seconds > 0.0


def test_a_training_that_is_stopped_is_no_timing() -> None:
    stop = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT))
    stop.start()
    with pytest.raises(KeyboardInterrupt):
        bench_training(tiny(), 1_000_000)
    stop.join()


def test_the_memory_of_work_is_what_it_takes() -> None:
    taken = memory_of(lambda: torch.ones(16 << 20), CPU)
    if taken is None:
        pytest.skip("this system does not tell")
    assert abs(taken - (64 << 20)) < 4 << 20


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the peak of the parent is not told apart")
def test_the_peak_of_a_process_is_not_that_of_its_parent() -> None:
    held = bytearray(b"x") * (640 << 20)
    code = "from diffnca.engine import machine as m; print(m.peak_memory_bytes(m.torch.device('cpu')))"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(child.stdout) < len(held)


def test_the_process_has_held_some_memory() -> None:
    held = peak_memory_bytes(CPU)
    assert held is None or held > 50_000_000


def test_the_command_prints_a_line_for_each_work(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(f"bench pathology {SMALL} --no-compiled --against".split()) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[1].strip() for line in lines if line.startswith("call")] == ["engine", "eager"]


def test_other_models_are_timed_in_the_same_turns(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("diffusers")
    command = f"bench diff_nca {SMALL} --no-compiled --json --against unet_1m pathology"
    assert main(command.split()) == 0
    names = [row["name"] for row in json.loads(capsys.readouterr().out)["timings"]]
    assert {name.split(",")[0] for name in names} == {"call", "unet_1m", "pathology"}


def test_what_is_no_denoiser_is_not_compared(capsys: pytest.CaptureFixture[str]) -> None:
    assert main("bench diff_nca --against vnca".split()) == 2
    assert capsys.readouterr().err.startswith("diffnca: model vnca: must be a denoiser")


def test_the_command_prints_json_for_machines(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(f"bench diff_nca {SMALL} --no-compiled --json --against".split()) == 0
    facts = json.loads(capsys.readouterr().out)
    assert [set(row) >= {"name", "seconds", "share"} for row in facts["timings"]] == [True, True]


def test_without_a_compiler_a_line_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling, "has_compiler", lambda device: False)
    assert main(f"bench diff_nca {SMALL} --against".split()) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.split(None, 2)[2] == "not here: no C++ compiler or no Python headers here"


def test_without_the_package_of_a_model_to_compare_a_line_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    assert main(f"bench diff_nca {SMALL} --no-compiled".split()) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("unet_4m ") and last.endswith("pip install 'diffnca[baselines]'")


def test_a_size_that_a_unet_cannot_halve_leaves_it_out(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("diffusers")
    command = "bench diff_nca --height 17 --width 16 --batch 1 --rounds 1 --no-compiled --against unet_1m"
    assert main(command.split()) == 0
    assert "must have sides that are multiples of 4 px" in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs signals")
def test_compiling_stops_at_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "has_compiler", lambda device: True)
    begun, before = time.monotonic(), signal.getsignal(signal.SIGALRM)
    with pytest.raises(ValueError, match="compiling takes more than 0.05 s here"):
        compile_by(lambda: time.sleep(20), CPU, 0.05)
    assert time.monotonic() - begun < 10
    assert signal.getsignal(signal.SIGALRM) == before


def test_why_a_compiler_fails_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "has_compiler", lambda device: True)

    def fail() -> None:
        raise RuntimeError("lowering\nfails")

    with pytest.raises(ValueError, match=r"torch\.compile fails here: lowering fails$"):
        compile_by(fail, CPU, 60.0)


def test_nothing_to_time_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "diff_nca", "--rounds", "0"]) == 2
    assert capsys.readouterr().err == "diffnca: --rounds=0: must be from 1 to 10,000\n"
