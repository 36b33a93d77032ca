"""The files of a page: what they hold, and which models are refused."""

import gzip
import io
import json
from base64 import b64decode
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from diffnca.canvas.pixels import to_uint8
from diffnca.cli.main import main
from diffnca.config.networks import NCAConfig
from diffnca.export import web
from diffnca.export.packed import eight_bits
from diffnca.export.preview import preview
from diffnca.export.web import write_page
from diffnca.models.file import load, read_tensors
from diffnca.sampling.generate import generate

from .conftest import BUNDLED
from .web_models import CELL, NETWORK, PLAIN, STUDENT, WAVES, write_small

LARGEST_PAGE_BYTES = 1_500_000


def test_the_page_of_the_bundled_models_is_small(tmp_path: Path) -> None:
    options = ["--format", "web", "--weights", "int8", "--out", f"{tmp_path}/site"]
    assert main(["export", *BUNDLED, *options]) == 0
    assert sum(path.stat().st_size for path in (tmp_path / "site").iterdir()) < LARGEST_PAGE_BYTES


def test_a_page_holds_the_weights_of_its_models(models: Path, tmp_path: Path) -> None:
    write_page([models / "plain.safetensors"], tmp_path)
    own, _ = read_tensors(models / "plain.safetensors")
    written = safetensors.torch.load(gzip.decompress((tmp_path / "plain.safetensors.gz").read_bytes()))
    assert written.keys() == own.keys() and all(torch.equal(written[name], own[name]) for name in own)


def test_the_page_loads_nothing_from_elsewhere(models: Path, tmp_path: Path) -> None:
    write_page([models / "plain.safetensors"], tmp_path)
    texts = [path.read_text() for path in tmp_path.iterdir() if path.suffix != ".gz"]
    assert [text for text in texts if "http://" in text or "https://" in text] == []


def test_a_preview_shows_the_tile_of_the_page_with_a_quarter_of_the_sides(models: Path) -> None:
    kind, stored = preview(models / "plain.safetensors").split(",")
    picture = np.asarray(Image.open(io.BytesIO(b64decode(stored)))).astype(int)
    options = {"even_px": 128, "tone": (0.0, 0.0, 0.0), "boundary": ("circular", "circular")}
    tile = generate(load(models / "plain.safetensors"), height=256, width=256, seed=0, **options)
    expected = to_uint8(torch.nn.functional.avg_pool2d(tile, 4))[0].astype(int)
    assert kind == "data:image/jpeg;base64" and picture.shape == (64, 64, 3)
    blocks = [each.reshape(8, 8, 8, 8, 3).mean(axis=(1, 3, 4)).ravel() for each in (picture, expected)]
    assert np.corrcoef(*blocks)[0, 1] > 0.9  # JPEG keeps the means of its blocks, also of noise


def test_a_preview_of_a_model_of_single_images_shows_its_first_seed(models: Path) -> None:
    _, stored = preview(models / "waves.safetensors").split(",")
    assert Image.open(io.BytesIO(b64decode(stored))).size == (8, 8)


def test_cells_that_do_not_fit_the_blocks_of_the_page_are_refused(tmp_path: Path) -> None:
    model = NCAConfig(patch=5, channels=160, cell=CELL)
    path = write_small(tmp_path, replace(PLAIN, model=model))
    with pytest.raises(ValueError, match="side of its cells=5: must be a divisor of 32 px"):
        write_page([path], tmp_path / "site")


def test_a_page_without_models_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="0 models: must be one or more"):
        write_page([], tmp_path / "site")
    assert not (tmp_path / "site").exists()


def test_a_page_from_an_installation_that_cannot_be_written_can_be_written(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("")
    for path in (tmp_path / "site" / "index.html", tmp_path / "site"):
        path.chmod(path.stat().st_mode & 0o555)
    monkeypatch.setattr(web, "files", lambda _: tmp_path)
    write_page([models / "plain.safetensors"], tmp_path / "page")
    written = (tmp_path / "page", tmp_path / "page" / "index.html")
    assert all(path.stat().st_mode & 0o200 for path in written)


def test_a_page_is_written_over_an_earlier_page_but_not_over_other_files(
    models: Path, tmp_path: Path
) -> None:
    for _ in range(2):
        write_page([models / "plain.safetensors"], tmp_path / "site")
    with pytest.raises(ValueError, match=r"out=.*: must be a new folder"):
        write_page([models / "plain.safetensors"], models)


def test_a_page_that_was_stopped_midway_is_written_by_the_same_command(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: Any) -> bytes:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(web, "packed", stopped)
        with pytest.raises(KeyboardInterrupt):
            write_page([models / "plain.safetensors"], tmp_path / "site")
    assert any((tmp_path / "site").iterdir())
    write_page([models / "plain.safetensors"], tmp_path / "site")
    assert [each["name"] for each in json.loads((tmp_path / "site" / web.LIST).read_text())] == ["plain"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (
            "pathology",
            r"takes 20 steps of dpmpp2m, .*make a student of it \(diffnca distill\)",
        ),
        ("colon-map", "colon-map: takes"),
        ("faces", "takes 50 steps"),
    ],
)
def test_models_that_the_page_cannot_run_are_refused_in_one_line(
    name: str, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=reason) as error:
        write_page([name], tmp_path)
    assert "\n" not in str(error.value) and not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("field", "value"),
    [("positions", "pixels"), ("padding", "zeros"), ("modulation", "none"), ("hidden", 18)],
)
def test_cells_that_the_page_does_not_know_are_refused(field: str, value: Any, tmp_path: Path) -> None:
    cell = replace(CELL, **{field: value})
    path = write_small(tmp_path, replace(PLAIN, model=replace(NETWORK, cell=cell)))
    with pytest.raises(ValueError, match=f"{field}={value}: must be .* for the page"):
        write_page([path], tmp_path / "site")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"trained_px": 40}, "trained_px=40: must be a multiple of 32 and of model.patch=4"),
        ({"trained_px": 1024}, "at most 512"),
        ({"trained_px": 256, "window": 64}, r"bytes of modulations=\d+: must be at most 67108864"),
        ({"cell": replace(CELL, positions="relative")}, "positions=relative: must be none or pixels"),
    ],
)
def test_waves_that_the_page_does_not_know_are_refused(
    change: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    assert isinstance(WAVES.model, NCAConfig) and WAVES.model.fourier is not None
    model = replace(WAVES.model, fourier=replace(WAVES.model.fourier, **change))
    path = write_small(tmp_path, replace(WAVES, model=model))
    with pytest.raises(ValueError, match=reason):
        write_page([path], tmp_path / "site")


def test_more_steps_than_the_page_has_room_for_are_refused(tmp_path: Path) -> None:
    steps = replace(STUDENT, steps=30, visited=tuple(range(299, 269, -1)))
    path = write_small(tmp_path, replace(PLAIN, sampling=steps))
    with pytest.raises(ValueError, match=r"reach of 30 steps=\d+: must be at most 1792 px"):
        write_page([path], tmp_path / "site")


def test_options_of_other_formats_are_refused(models: Path, tmp_path: Path, capsys: Any) -> None:
    model, out = str(models / "plain.safetensors"), str(tmp_path / "site")
    assert main(["export", model, "--format", "web", "--out", out, "--loop"]) == 2
    assert "must be left out for --format web" in capsys.readouterr().err
    assert main(["export", model, "--format", "web", "--out", out, "--weights", "float32"]) == 2
    assert "weights float32: must be float16 or int8" in capsys.readouterr().err


def test_weights_of_8_bits_are_exact_in_16() -> None:
    torch.manual_seed(0)
    whole, factor = eight_bits(torch.randn(16, 32, 3, 3))
    assert torch.equal(whole.float() * factor.float(), (whole * factor).float())


def test_weights_of_8_bits_are_within_half_a_step() -> None:
    torch.manual_seed(0)
    weight = torch.randn(16, 32, 1, 1)
    whole, factor = eight_bits(weight)
    largest = weight.abs().amax(dim=(1, 2, 3), keepdim=True)
    assert (factor <= largest / 127 * 1.125).all() and (whole.abs() <= 127).all()
    assert ((whole * factor.float() - weight).abs() <= factor / 2).all()
