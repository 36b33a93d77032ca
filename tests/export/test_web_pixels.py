"""A browser gives the pixels of Python, on any part of a map; it heals and paints."""

import functools
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffnca.canvas.noise import Noise, Stream
from diffnca.canvas.region import Canvas, Region
from diffnca.diffusion.denoiser import Denoiser, estimate_alone
from diffnca.diffusion.walk import Walk
from diffnca.export.packed import eight_bits
from diffnca.models.file import load, read_config, read_tensors, write_model
from diffnca.sampling.generate import generate
from diffnca.sampling.task import walk_of

from ..chromium import Browser
from .web_page import assert_alike, made


@pytest.mark.browser
@pytest.mark.parametrize("name", ["plain", "drawn", "rare"])
@pytest.mark.parametrize(("edge", "boundary"), [("mirror", "reflect"), ("around", "circular")])
def test_a_seed_gives_the_pixels_of_python(
    name: str, edge: str, boundary: Any, engine: Browser, models: Path
) -> None:
    options = {"seed": 2**40 + 5, "boundary": (boundary, boundary), "engine": "eager"}
    expected = generate(load(models / f"{name}.safetensors"), height=32, width=32, **options)
    assert_alike(made(engine, name, size=32, edge=edge, seed=2**40 + 5), expected)


@pytest.mark.browser
def test_a_bundled_model_gives_the_pixels_of_python(engine: Browser) -> None:
    expected = generate(load("pathology-4step"), height=32, width=32, seed=5, engine="eager")
    assert_alike(made(engine, "pathology-4step", size=32, edge="mirror"), expected)


def rounded(path: Path) -> None:
    """Round the weights in the file of a model as a page of 8-bit weights does."""
    tensors, _ = read_tensors(path)
    for name, tensor in tensors.items():
        if tensor.ndim > 1:
            whole, factor = eight_bits(tensor)
            tensors[name] = whole * factor
    write_model(path, tensors, read_config(path), {}, torch.float16)


@pytest.mark.browser
def test_weights_of_8_bits_give_the_pixels_of_python_with_the_same_weights(
    engine: Browser, models: Path, tmp_path: Path
) -> None:
    path = tmp_path / "eight.safetensors"
    path.write_bytes((models / path.name).read_bytes())
    rounded(path)
    expected = generate(load(path), height=32, width=32, seed=5, engine="eager")
    assert_alike(made(engine, "eight", size=32, edge="mirror"), expected)


@pytest.mark.browser
@pytest.mark.parametrize("engine", ["processor"], indirect=True)
def test_the_student_of_aerial_has_the_pixels_of_python(engine: Browser) -> None:
    expected = generate(load("aerial-4step"), height=32, width=32, seed=5, even_px=0, engine="eager")
    assert_alike(made(engine, "aerial-4step", size=32, edge="mirror"), expected)


@pytest.mark.browser
@pytest.mark.parametrize("engine", ["processor"], indirect=True)  # a card in software takes a minute
def test_a_face_has_the_pixels_of_python(engine: Browser) -> None:
    expected = generate(load("faces-4step"), height=64, width=64, seed=5, engine="eager")
    assert_alike(made(engine, "faces-4step", (0, 0, 64, 64), size=64, edge="mirror"), expected)


@pytest.mark.browser
def test_a_model_that_sees_waves_gives_the_pixels_of_python(engine: Browser, models: Path) -> None:
    options = {"seed": 2**40 + 5, "engine": "eager", "direct": True}
    expected = generate(load(models / "waves.safetensors"), height=32, width=32, **options)
    assert_alike(made(engine, "waves", size=32, edge="mirror", seed=2**40 + 5), expected)


WITHOUT_END = Canvas(2**31, 2**31, ("circular", "circular"))


@pytest.mark.browser
@pytest.mark.parametrize(("top", "left"), [(-16, -7), (2**20, -(2**30))])
def test_a_place_on_the_endless_map_has_the_pixels_of_python(
    top: int, left: int, engine: Browser, models: Path
) -> None:
    region = Region(top, left, 24, 24, WITHOUT_END)
    options = {"height": 2**31, "width": 2**31, "boundary": WITHOUT_END.boundary, "engine": "eager"}
    expected = generate(load(models / "plain.safetensors"), region=region, seed=5, **options)
    assert_alike(made(engine, "plain", (top, left, 24, 24)), expected)


@pytest.mark.browser
def test_tiles_of_any_size_are_equal_to_the_bit(engine: Browser) -> None:
    place = (-32, 0, 64, 96)
    assert np.array_equal(made(engine, "plain", place, piece=32), made(engine, "plain", place, piece=256))


@pytest.mark.browser
def test_a_tone_gives_the_pixels_of_python(engine: Browser, models: Path) -> None:
    options = {
        "even_px": 16,
        "tone": (1.5, 1.5, 1.5),
        "boundary": ("circular", "circular"),
        "engine": "eager",
    }
    expected = generate(load(models / "plain.safetensors"), height=32, width=32, seed=5, **options)
    assert_alike(made(engine, "plain", size=32, tile=16, tone=[1.5, 1.5, 1.5]), expected)


@pytest.mark.browser
@pytest.mark.parametrize("engine", ["processor"], indirect=True)
@pytest.mark.parametrize("middle", [(64, 64), (8, -8)])
def test_the_middle_of_a_first_picture_comes_first_with_its_own_pixels(
    middle: tuple[int, int], engine: Browser
) -> None:
    place = {"top": middle[0] - 100, "left": middle[1] - 100, "height": 200, "width": 200}
    arguments = ["plain", {"seed": "5", "size": 128}, place]
    seen = np.array(engine.value(f"window.begin(...{json.dumps(arguments)})")).reshape(2, 128, 128, 4)
    first, rest = np.roll(seen, [64 - at for at in middle], axis=(1, 2))  # the middle is at (64, 64) now
    is_first = first[..., 3] > 0
    assert is_first[16:112, 16:112].all() and is_first.sum() == 96 * 96
    assert np.array_equal(first[is_first], rest[is_first]) and (rest[..., 3] > 0).all()


PRODUCT = """(async () => {
  const own = WebAssembly.validate;
  let refused = %d;
  WebAssembly.validate = (bytes) => refused-- <= 0 && own(bytes);
  const { machine, padded, panels } = await import("./simd.js?refused=%d");
  WebAssembly.validate = own;
  const [rows, parts, inner, columns] = [4, 3, 8, 10], width = padded(columns), all = parts * inner;
  const matrixAt = 16, biasAt = matrixAt + all * width, partsAt = biasAt + width, toAt = partsAt + rows * all;
  const { product, numbers, words } = machine(4 * (toAt + rows * width));
  const wave = (length, pace) => Float32Array.from({ length }, (_, index) => Math.sin(pace * index));
  panels(wave(all * columns, 0.7), all, columns, numbers.subarray(matrixAt));
  numbers.set(wave(columns, 0.3), biasAt);
  numbers.set(wave(rows * all, 1.1), partsAt);
  for (let part = 0; part < parts; part++) {
    for (let row = 0; row < rows; row++) words[part * rows + row] = 4 * (partsAt + row * all + part * inner);
  }
  product(0, parts, inner, 4 * matrixAt, 4 * biasAt, 4 * toAt, 4 * width, rows, width / 8);
  return Array.from(numbers.subarray(toAt, toAt + rows * width));
})()"""


@pytest.mark.browser
@pytest.mark.parametrize("refused", [0, 1])
@pytest.mark.parametrize("engine", ["processor"], indirect=True)
def test_products_need_no_fused_sums(refused: int, engine: Browser) -> None:
    matrix, bias, rows = (
        np.sin(pace * np.arange(length)) for pace, length in ((0.7, 240), (0.3, 10), (1.1, 96))
    )
    expected = rows.reshape(4, 24) @ matrix.reshape(24, 10) + bias
    made = np.array(engine.value(PRODUCT % (refused, refused))).reshape(4, 16)
    assert np.abs(made[:, :10] - expected).max() < 1e-5 and not made[:, 10:].any()


@dataclass(frozen=True)
class Around:
    """The states of an image, kept outside a mask."""

    states: tuple[torch.Tensor, ...]
    mask: torch.Tensor

    def reach(self, canvas: Canvas) -> int:
        return 0

    def impose(self, x: torch.Tensor, level: Any, step: int, region: Region, noise: Noise) -> torch.Tensor:
        return torch.where(self.mask, x, self.states[step])


def disc(radius: float) -> torch.Tensor:
    """Return where pixels lie on a disc in the middle of 32 x 32 pixels."""
    far = torch.arange(32) + 0.5 - 16.0
    return far[:, None] ** 2 + far**2 <= radius**2


@pytest.mark.browser
def test_a_healed_place_has_the_pixels_of_python(engine: Browser, models: Path) -> None:
    denoiser, whole = load(models / "plain.safetensors"), Canvas(32, 32, ("circular", "circular")).whole
    assert isinstance(denoiser, Denoiser)
    sampler, levels = walk_of(denoiser, None, None)
    noise, mask = Noise((5,)), disc(8.0)
    states = [noise.normal(Stream.INITIAL, 0, whole, 3)]
    walk, estimate = Walk(levels, sampler, noise), functools.partial(estimate_alone, denoiser)
    for step in range(len(levels)):
        states.append(walk.run(estimate, states[-1], whole, steps=range(step, step + 1))[0])
    start = torch.where(mask, noise.normal(Stream.TASK, 1, whole, 3), states[0])
    healed, _ = replace(walk, constraint=Around(tuple(states), mask)).run(estimate, start, whole)
    edit = {"points": [[16.0, 16.0]], "radius": 8}
    assert_alike(made(engine, "plain", size=32, edits=(edit,)), healed.clamp(-1.0, 1.0))


@pytest.mark.browser
def test_a_painted_place_grows_and_leaves_the_rest_as_it_is(engine: Browser) -> None:
    place = (0, 0, 96, 96)
    before = made(engine, "drawn", place, size=96)
    edit = {"points": [[48.0, 48.0]], "radius": 8, "class": 1}
    changed = (made(engine, "drawn", place, size=96, edits=(edit,)) != before).any(axis=-1)
    far = np.arange(96) + 0.5 - 48.0
    is_near = far[:, None] ** 2 + far**2 <= (8 + 24) ** 2
    assert changed[40:56, 40:56].mean() > 0.5 and not changed[~is_near].any()


@pytest.mark.browser
@pytest.mark.parametrize("obey", [1.0, 3.0])
def test_a_map_painted_all_over_has_the_pixels_of_a_layout(
    obey: float, engine: Browser, models: Path
) -> None:
    options = {"boundary": ("circular", "circular"), "engine": "eager", "obey": obey, "seed": 5}
    layout = torch.ones(32, 32, dtype=torch.long)
    expected = generate(load(models / "drawn.safetensors"), height=32, width=32, layout=layout, **options)
    edit = {"points": [[16.0, 16.0]], "radius": 32, "class": 1}
    assert_alike(made(engine, "drawn", size=32, edits=(edit,), obey=obey), expected)


@pytest.mark.browser
def test_weights_of_16_bits_reach_a_graphics_card_as_they_are(engine: Browser) -> None:
    values = torch.arange(2**16, dtype=torch.int32).to(torch.uint16).view(torch.float16)
    finite = values[values.isfinite()]
    same = engine.value(f"""import("./weights.js").then(({{ asHalves, halfToFloat }}) => {{
        const bits = Uint16Array.from({finite.view(torch.uint16).tolist()});
        return asHalves(Float32Array.from(bits, halfToFloat)).every((half, index) => half === bits[index]);
    }})""")
    assert same
