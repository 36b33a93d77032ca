"""ONNX files give the estimates and the images of the package, at any size, in a process without torch."""

import json
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from diffnca.canvas.noise import Noise, Stream
from diffnca.canvas.region import Boundary, Canvas, Region
from diffnca.cli.main import main
from diffnca.config.layout import LayoutConfig
from diffnca.config.model import Config, SamplingConfig
from diffnca.config.networks import CellConfig, CoarseConfig, FourierConfig, NCAConfig
from diffnca.config.recipes import recipe_named
from diffnca.diffusion.denoiser import Denoiser, Query
from diffnca.export.packed import LARGEST_INT8, eight_bits
from diffnca.models.build import build_denoiser
from diffnca.models.file import load
from diffnca.networks.fourier import Window
from diffnca.networks.patches import PatchGrid
from diffnca.sampling.generate import generate
from diffnca.sampling.guidance import self_guided

onnx = pytest.importorskip("diffnca.export.onnx", reason="needs the extra export", exc_type=ImportError)
runtime = pytest.importorskip("onnxruntime", reason="needs onnxruntime")

ALLOWED = 1e-4
SIZES = [(16, 16), (13, 22), (3, 2), (1, 1)]
CELL = CellConfig(hidden=18, num_cell_steps=3, dilations=(2, 1), embedding_width=8, embedding_channels=5)
COARSE = CoarseConfig(4, 61, 3, replace(CELL, hidden=16, dilations=(1, 2)))
GROUPED = replace(
    CELL, normalisation="group", weight_norm=True, modulation="gate", positions="pixels", padding="zeros"
)
MODELS = {
    "coarse": NCAConfig(patch=2, channels=40, cell=CELL, coarse=COARSE),
    "planes": NCAConfig(patch=2, channels=40, cell=CELL, coarse=COARSE, given_channels=2),
    "map": NCAConfig(channels=40, cell=CELL, made_channels=3),
    "grouped": NCAConfig(patch=2, channels=30, cell=GROUPED),
    "perceived": NCAConfig(channels=12, cell=replace(CELL, perceive_embedding=True, modulation="none")),
}
WAVES = FourierConfig(window=3, trained_px=12, cell=replace(CELL, positions="pixels", dilations=(1,)))
MODELS["waves and planes"] = NCAConfig(
    "fourier_diff_nca", patch=2, channels=30, cell=CELL, fourier=WAVES, given_channels=2
)
PUBLISHED = [name + kind for name in ("diff_nca", "fourier_diff_nca") for kind in ("_arxiv_v1", "_npj")]


def small(model: NCAConfig) -> NCAConfig:
    """Return the network with few channels and cell steps."""
    cells = {"hidden": 20, "num_cell_steps": 2, "embedding_width": 8}
    fourier = model.fourier and replace(model.fourier, window=4, cell=replace(model.fourier.cell, **cells))
    return replace(model, channels=20, cell=replace(model.cell, **cells), fourier=fourier)


@cache
def denoiser_of(name: str) -> Denoiser:
    """Return a small denoiser with random weights: of `MODELS`, or of a recipe."""
    config = Config(model=MODELS[name]) if name in MODELS else recipe_named(name)
    if name in PUBLISHED:
        config = replace(config, model=small(config.model))
    return random_denoiser(config)


def random_denoiser(config: Config) -> Denoiser:
    torch.manual_seed(0)
    denoiser = build_denoiser(config)
    for parameter in denoiser.parameters():
        inputs = parameter[0].numel()
        nn.init.normal_(parameter, std=inputs**-0.5 if parameter.dim() > 1 else 0.1)
    return denoiser.eval().requires_grad_(False)


def session_of(denoiser: Denoiser, **options: Any) -> Any:
    return runtime.InferenceSession(onnx.model_of(denoiser, onnx.Options(**options)).SerializeToString())


def noisy(images: int, channels: int, size: tuple[int, int]) -> torch.Tensor:
    return torch.randn(images, channels, *size, generator=torch.Generator().manual_seed(1))


def updates_on(network: Any, region: Region, noise: Noise) -> dict[str, np.ndarray]:
    """Return the cells that update in diffusion step 0, as inputs of a graph."""
    config, masks, first = network.config, noise.at(0), 0
    stages = {"image": (network.image, PatchGrid(region, config.patch).cells)}
    if config.fourier is not None and config.fourier.cell.update_probability < 1.0:
        stages["fourier"] = (network.fourier, Window(config.fourier, region.canvas).region)
    updates = {}
    for stage, (rule, cells) in stages.items():
        steps, share = range(first, first + rule.config.num_cell_steps), rule.config.update_probability
        drawn = torch.cat([masks.mask(k, cells, share) for k in steps], dim=1)
        updates[f"updates_{stage}"] = drawn.numpy()
        first += rule.config.num_cell_steps
    return updates


@pytest.mark.parametrize("name", [*MODELS, "fourier_diff_nca", "diff_nca"])
def test_an_estimate_is_that_of_the_package_at_every_size(name: str) -> None:
    denoiser, errors = denoiser_of(name), {}
    session, planes = session_of(denoiser), denoiser.config.model.given_channels
    for size in SIZES:
        x_t = noisy(2, denoiser.image_channels, size)
        given = noisy(2, planes, size) if planes else None
        query = Query(x_t, denoiser.schedule.level(150), Canvas(*size).whole, given=given)
        inputs = {"x_t": x_t.numpy(), "step": np.full(2, 150, np.int32)}
        inputs |= {} if given is None else {"given": given.numpy()}
        found = session.run(None, inputs)[0]
        errors[size] = np.abs(found - denoiser.estimate(query).numpy()).max()
    assert max(errors.values()) < ALLOWED, errors


@pytest.mark.parametrize("name", PUBLISHED)
def test_cells_update_where_the_caller_says(name: str) -> None:
    denoiser, size, noise = denoiser_of(name), (13, 22), Noise((3, 4))
    region, x_t = Canvas(*size).whole, noisy(2, denoiser.image_channels, size)
    query = Query(x_t, denoiser.schedule.level(7), region, noise.at(0))
    inputs = {"x_t": x_t.numpy(), "step": np.full(2, 7, np.int32)}
    found = session_of(denoiser).run(None, inputs | updates_on(denoiser.network, region, noise))[0]
    np.testing.assert_allclose(found, denoiser.estimate(query).numpy(), atol=ALLOWED)


@pytest.mark.parametrize("boundary", [("circular", "circular"), ("reflect", "circular")])
def test_a_seamless_image_goes_on_at_the_opposite_edge(boundary: tuple[Boundary, Boundary]) -> None:
    denoiser, size = denoiser_of("coarse"), (8, 12)
    x_t = noisy(1, 3, size)
    query = Query(x_t, denoiser.schedule.level(99), Canvas(*size, boundary).whole)
    session = session_of(denoiser, boundary=boundary)
    found = session.run(None, {"x_t": x_t.numpy(), "step": np.array([99], np.int32)})[0]
    np.testing.assert_allclose(found, denoiser.estimate(query).numpy(), atol=ALLOWED)


@pytest.mark.parametrize(("name", "weights"), [("waves and planes", "float32"), ("planes", "int8")])
def test_a_second_runtime_gives_the_same_estimate(name: str, weights: str) -> None:
    reference = pytest.importorskip("onnx.reference", reason="needs the extra export")
    model = onnx.model_of(denoiser_of(name), onnx.Options(weights))
    inputs = {"x_t": noisy(1, 3, (9, 6)).numpy(), "step": np.array([100], np.int32)}
    inputs["given"] = noisy(1, 2, (9, 6)).numpy()
    found = reference.ReferenceEvaluator(model).run(None, inputs)[0]
    expected = runtime.InferenceSession(model.SerializeToString()).run(None, inputs)[0]
    np.testing.assert_allclose(found, expected, atol=ALLOWED)


def test_each_image_has_its_own_step() -> None:
    denoiser, x_t = denoiser_of("coarse"), noisy(2, 3, (8, 8))
    found = session_of(denoiser).run(None, {"x_t": x_t.numpy(), "step": np.array([10, 250], np.int32)})[0]
    for index, step in enumerate((10, 250)):
        query = Query(x_t[index : index + 1], denoiser.schedule.level(step), Canvas(8, 8).whole)
        np.testing.assert_allclose(found[index], denoiser.estimate(query)[0].numpy(), atol=ALLOWED)


def test_a_model_that_guides_itself_does_so_in_the_file() -> None:
    config = replace(denoiser_of("coarse").config, sampling=SamplingConfig(guidance=2.0))
    denoiser, x_t = random_denoiser(config), noisy(1, 3, (8, 8))
    query = Query(x_t, denoiser.schedule.level(99), Canvas(8, 8).whole)
    found = session_of(denoiser).run(None, {"x_t": x_t.numpy(), "step": np.array([99], np.int32)})[0]
    np.testing.assert_allclose(found, self_guided(denoiser).estimate(query).numpy(), atol=ALLOWED)


def student(sampler: str) -> Denoiser:
    visited = (299, 150, 40)
    sampling = SamplingConfig(sampler=sampler, steps=3, visited=visited)
    return random_denoiser(replace(denoiser_of("coarse").config, sampling=sampling))


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpmpp2m"])
def test_the_loop_of_a_student_gives_the_image_of_the_package(sampler: str) -> None:
    denoiser, size = student(sampler), (9, 14)
    noise, region = Noise((5, 6)), Canvas(*size).whole
    inputs = {"noise": noise.normal(Stream.INITIAL, 0, region, 3).numpy()}
    if sampler == "ddpm":
        drawn = [noise.normal(Stream.STEP, step, region, 3) for step in range(2)]
        inputs["fresh"] = torch.cat(drawn, dim=1).numpy()
    found = session_of(denoiser, loop=True).run(None, inputs)[0]
    expected = generate(denoiser, height=size[0], width=size[1], seed=[5, 6], engine="eager")
    np.testing.assert_allclose(found, expected.numpy(), atol=ALLOWED)


def test_a_map_is_given_as_planes_of_its_classes() -> None:
    legend = LayoutConfig(classes=("moss", "stone"))
    config = replace(student("ddim").config, model=MODELS["planes"], layout=legend)
    denoiser, numbers = random_denoiser(config), torch.randint(-1, 2, (9, 14))
    planes = torch.stack([numbers == 0, numbers == 1])[None].float()
    noise = Noise((5,)).normal(Stream.INITIAL, 0, Canvas(9, 14).whole, 3)
    found = session_of(denoiser, loop=True).run(None, {"noise": noise.numpy(), "given": planes.numpy()})[0]
    expected = generate(denoiser, height=9, width=14, seed=5, layout=numbers, engine="eager")
    np.testing.assert_allclose(found, expected.numpy(), atol=ALLOWED)


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None
import numpy, onnxruntime
file, arrays = sys.argv[1:]
known = numpy.load(arrays)
session = onnxruntime.InferenceSession(file)
images = [session.run(None, {"noise": known[f"noise_{n}"]})[0] for n in range(2)]
print(max(numpy.abs(image - known[f"image_{n}"]).max() for n, image in enumerate(images)))
"""


def test_a_bundled_student_runs_in_a_process_without_torch(tmp_path: Path) -> None:
    file, arrays = tmp_path / "student.onnx", {}
    assert main(["export", "pathology-4step", "--format", "onnx", "--loop", "--out", str(file)]) == 0
    denoiser = load("pathology-4step")
    for number, size in enumerate([(24, 40), (17, 9)]):
        arrays[f"noise_{number}"] = Noise((number,)).normal(Stream.INITIAL, 0, Canvas(*size).whole, 3).numpy()
        arrays[f"image_{number}"] = generate(
            denoiser, height=size[0], width=size[1], seed=number, engine="eager"
        ).numpy()
    np.savez(tmp_path / "known.npz", **arrays)
    command = [sys.executable, "-c", WITHOUT_TORCH, str(file), str(tmp_path / "known.npz")]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(found.stdout) < ALLOWED


@cache
def bundled(weights: str) -> bytes:
    """Return the file of one estimate of a bundled student."""
    content: bytes = onnx.model_of(load("pathology-4step"), onnx.Options(weights)).SerializeToString()
    return content


@pytest.mark.parametrize(("weights", "allowed"), [("float16", 1e-6), ("int8", 0.1)])
def test_smaller_weights_change_an_estimate_little(weights: str, allowed: float) -> None:
    inputs = {"x_t": noisy(1, 3, (24, 24)).numpy(), "step": np.array([224], np.int32)}
    full, small = (
        runtime.InferenceSession(bundled(kind)).run(None, inputs)[0] for kind in ("float32", weights)
    )
    assert np.abs(full - small).max() < allowed  # bundled weights are float16


@pytest.mark.parametrize(("weights", "share"), [("float16", 0.56), ("int8", 0.36)])
def test_smaller_weights_make_a_smaller_file(weights: str, share: float) -> None:
    assert len(bundled(weights)) < share * len(bundled("float32"))


def test_weights_of_8_bits_are_nearer_than_those_of_a_page() -> None:
    from diffnca.export.graph import nearest_eight_bits  # needs the extra

    weight = torch.randn(16, 32, 3, 3, generator=torch.Generator().manual_seed(0))
    whole, factor = nearest_eight_bits(weight.numpy())
    short_whole, short_factor = eight_bits(weight)
    largest = weight.abs().amax(dim=(1, 2, 3), keepdim=True).numpy()
    assert np.array_equal(factor, largest / np.float32(LARGEST_INT8)) and np.abs(whole).max() == LARGEST_INT8
    away = np.abs(whole * factor - weight.numpy()).mean()
    assert away < np.abs((short_whole * short_factor.float()).numpy() - weight.numpy()).mean()


def test_the_file_says_what_sampling_needs() -> None:
    denoiser = student("ddim")
    facts = session_of(denoiser).get_modelmeta().custom_metadata_map
    assert json.loads(facts["visited"]) == [299, 150, 40]
    assert json.loads(facts["alphas_cumprod"]) == list(denoiser.schedule.alphas_cumprod)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pathology", "colon", "--out", "x.onnx"], "2 models: must be one for --format onnx"),
        (["--out", "x.onnx"], "0 models: must be one for --format onnx"),
        (["pathology", "--out", "x.png"], "x.png: the name must end in .onnx"),
        (["pathology", "--loop", "--out", "x.onnx"], "model pathology: must be a student of few steps"),
        (["pathology-4step", "--out", "page"], "page: the name must end in .onnx; or give --format web"),
    ],
)
def test_what_cannot_be_exported_is_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["export", *arguments]) == 2
    assert message in capsys.readouterr().err


class Plain(nn.Module):
    """A network of a user, without cells."""

    radius, has_context, context = 0, False, None


def test_a_network_without_cells_is_refused() -> None:
    cells = denoiser_of("coarse")
    denoiser = Denoiser(Plain(), cells.schedule, cells.config)
    with pytest.raises(ValueError, match="model=diff_nca: must be a model of cells"):
        onnx.model_of(denoiser, onnx.Options())


def test_a_missing_package_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    for name in [name for name in sys.modules if name.startswith("diffnca.export.")]:
        monkeypatch.delitem(sys.modules, name)
    assert main(["export", "pathology", "--out", "x.onnx"]) == 2
    assert "pip install 'diffnca[export]'" in capsys.readouterr().err
