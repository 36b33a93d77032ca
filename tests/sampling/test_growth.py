"""Growing: which canvases an image passes, and that each image is the one before, enlarged."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from PIL import Image
from torch.nn import functional as F

from diffnca import generate, load
from diffnca.canvas.noise import MAX_SEED, Noise
from diffnca.canvas.region import Canvas
from diffnca.cli.main import main
from diffnca.config.model import Config, with_fields
from diffnca.config.recipes import recipe_named
from diffnca.diffusion.denoiser import Denoiser
from diffnca.diffusion.schedule import CLEAN, Level
from diffnca.models.build import build_denoiser
from diffnca.models.file import write_model
from diffnca.sampling.growth import LARGEST_KNOWN_PX, STRENGTH, canvases_of, grown, grown_seed
from diffnca.sampling.known import NearMeans
from diffnca.sampling.layouts import layout_of
from diffnca.sampling.starts import start_of
from diffnca.sampling.task import walk_of
from diffnca.sampling.upscale import upscale

STEPS = 8

WALK = {"sampling.sampler": "ddim", "sampling.steps": STEPS}
WALK |= {"sampling.visited": tuple(300 * step // STEPS - 1 for step in range(STEPS, 0, -1))}


@cache
def made(name: str, is_student: bool = True) -> Denoiser:
    return build_denoiser(with_fields(recipe_named(name), WALK if is_student else {}))


def sizes(name: str, height: int, width: int, is_student: bool = True) -> list[tuple[int, int]]:
    canvases = canvases_of(made(name, is_student), Canvas(height, width))
    return [(canvas.height, canvas.width) for canvas in canvases]


class TestCanvases:
    def test_they_begin_with_the_smaller_side_of_training_and_at_most_double(self) -> None:
        assert sizes("fourier_diff_nca", 256, 256) == [(64, 64), (128, 128), (256, 256)]

    def test_the_shape_is_that_of_the_image(self) -> None:
        assert sizes("fourier_diff_nca", 100, 200) == [(64, 128), (100, 200)]

    @pytest.mark.parametrize("size", [(64, 64), (48, 48), (70, 70), (64, 256)])
    def test_an_image_about_as_large_as_those_of_training_is_made_at_once(
        self, size: tuple[int, int]
    ) -> None:
        assert sizes("fourier_diff_nca", *size) == [size]

    def test_the_last_one_takes_what_the_others_may_not(self) -> None:
        *smaller, last = sizes("fourier_diff_nca", 8192, 8192)
        assert (smaller[-1], last) == ((1024, 1024), (8192, 8192))
        assert max(height * width for height, width in smaller) <= LARGEST_KNOWN_PX

    @pytest.mark.parametrize(
        "name", ["diff_nca", "fourier_diff_nca_npj", "fourier_diff_nca_arxiv_v1", "unet_1m"]
    )
    def test_local_and_published_models_and_unets_make_every_size_at_once(self, name: str) -> None:
        assert sizes(name, 256, 256, is_student=False) == [(256, 256)]

    def test_a_model_that_knows_all_levels_makes_every_size_at_once_by_its_pyramid(self) -> None:
        assert sizes("fourier_diff_nca", 256, 256, is_student=False) == [(256, 256)]

    @pytest.mark.parametrize("size", [(80, 80), (2049, 2048)])
    def test_without_a_half_such_a_model_grows_images_too(self, size: tuple[int, int]) -> None:
        assert sizes("fourier_diff_nca", *size, is_student=False)[0][1] == 64

    def test_circular_sides_fit_the_cells(self) -> None:
        canvas = Canvas(100, 200, ("circular", "reflect"))
        first = canvases_of(made("fourier_diff_nca"), canvas)[0]
        assert (first.height % 4, first.boundary) == (0, canvas.boundary)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The file of a small student of whole images, which grow from 16 px; its weights do something."""
    few = {"patch": 2, "channels": 24, "fourier.window": 4}
    for stage in ("cell", "fourier.cell"):
        few |= {f"{stage}.hidden": 24, f"{stage}.num_cell_steps": 2}
    changes = {f"model.{name}": value for name, value in few.items()}
    config: Config = with_fields(recipe_named("fourier_diff_nca"), changes | WALK | {"data.crop": 16})
    torch.manual_seed(0)
    network = build_denoiser(config).network.requires_grad_(False)
    for parameter in network.parameters():
        parameter.add_(0.02 * torch.randn_like(parameter))
    path = tmp_path_factory.mktemp("model") / "whole.safetensors"
    write_model(path, network.state_dict(), config, {})
    return str(path)


class TestNearMeans:
    canvas = Canvas(10, 14)

    def test_a_constant_that_lacks_is_added(self) -> None:
        x = 0.5 * torch.rand(1, 3, 10, 14)
        moved = NearMeans(F.avg_pool2d(x, 2) + 0.25).impose(x, CLEAN, 0, self.canvas.whole, Noise((0,)))
        assert torch.allclose(moved, x + 0.25, atol=1e-6)

    def test_a_ramp_that_lacks_is_added_inside(self) -> None:
        ramp = torch.linspace(0.0, 0.5, 14).expand(1, 3, 10, 14)
        moved = NearMeans(F.avg_pool2d(ramp, 2)).impose(
            torch.zeros(1, 3, 10, 14), CLEAN, 0, self.canvas.whole, Noise((0,))
        )
        assert torch.allclose(moved[..., 1:-1], ramp[..., 1:-1], atol=1e-6)

    def test_a_noisy_image_stays(self) -> None:
        x, level = torch.randn(1, 3, 10, 14), Level.of_log_snr(0.0)
        moved = NearMeans(torch.zeros(1, 3, 5, 7)).impose(x, level, 0, self.canvas.whole, Noise((0,)))
        assert torch.equal(moved, x)


class TestImages:
    def test_an_image_is_that_of_training_enlarged_by_noise_with_means_near_it(self, model: str) -> None:
        denoiser = load(model)
        small = generate(denoiser, height=16, width=16, seed=[5, MAX_SEED])
        seeds = [grown_seed(5, 1), grown_seed(MAX_SEED, 1)]
        larger = upscale(denoiser, small, 1.5, method="noise", strength=STRENGTH, seed=seeds)
        moved = NearMeans(small).impose(larger, CLEAN, 0, Canvas(24, 24).whole, Noise((0,)))
        assert torch.equal(generate(denoiser, height=24, width=24, seed=[5, MAX_SEED]), moved)

    def test_a_face_of_twice_the_size_is_the_face_of_its_seed(self) -> None:
        small, large = (generate(load("faces-4step"), height=side, width=side, seed=1) for side in (64, 128))
        error = F.avg_pool2d(large, 2) - small
        assert 127.5 * float(error.square().mean().sqrt()) < 5.0  # of 255 levels; without near means, 10.6

    def test_directly_it_is_made_by_the_network_alone(self, model: str) -> None:
        denoiser, alone = load(model), load(model)
        alone.config = replace(alone.config, sampling=replace(alone.config.sampling, grown=False))
        size = {"height": 20, "width": 24}
        assert torch.equal(generate(denoiser, **size, direct=True), generate(alone, **size))

    def test_a_smaller_map_keeps_the_known_classes_too(self, model: str) -> None:
        changes = {
            "layout.classes": ("a", "b"),
            "layout.made": True,
            "model.made_channels": 2,
            "model.channels": 40,
        }
        torch.manual_seed(0)
        maker = build_denoiser(with_fields(load(model).config, changes))
        layout = layout_of(torch.tensor([[1, -1]]), 1.0, maker.config, 1)
        canvases = canvases_of(maker, Canvas(24, 24))
        method, levels = walk_of(maker, None, None)
        task, _ = grown(maker, canvases, levels, method, Noise((0,)), start_of(maker), layout=layout)
        start = replace(task.levels[0], alpha=1.0, sigma=0.0)  # the enlarged map, without noise
        known = replace(task.initial.initial, level=start)(canvases[-1].whole, Noise((0,)))[0, 3:, :, :11]
        assert known.amax(dim=(1, 2)).tolist() == known.amin(dim=(1, 2)).tolist() == [-1.0, 1.0]

    def test_in_tiles_it_is_the_same_as_in_memory(self, model: str, tmp_path: Path) -> None:
        command = ["sample", model, "--height", "24", "--width", "25", "--out"]
        assert main([*command, str(tmp_path / "whole.png")]) == 0
        assert main([*command, str(tmp_path / "tiles.ome.zarr"), "--tile", "16"]) == 0
        tiles = np.asarray(zarr.open_group(str(tmp_path / "tiles.ome.zarr"), mode="r")["0"])
        assert np.array_equal(
            np.moveaxis(tiles.squeeze(), 0, -1), np.asarray(Image.open(tmp_path / "whole.png"))
        )

    def test_a_grown_image_is_not_taken_for_one_made_directly(
        self, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        command = ["sample", model, "--height", "24", "--width", "24", "--out"]
        command += [str(tmp_path / "a.ome.zarr"), "--tile", "16"]
        assert main(command) == 0
        assert main([*command, "--direct"]) != 0
        assert "grown" in capsys.readouterr().err

    def test_a_film_shows_all_images_at_the_size_of_the_last(self, model: str, tmp_path: Path) -> None:
        command = ["sample", model, "--height", "24", "--width", "24", "--out"]
        assert main([*command, str(tmp_path / "a.png"), "--film", str(tmp_path / "a.webp")]) == 0
        with Image.open(tmp_path / "a.webp") as film:
            assert film.n_frames > 10 and film.size[1] % 24 == 0
