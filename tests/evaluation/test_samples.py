"""Generated images to be scored: what is drawn with them is left out, and their maps are made."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from diffnca.canvas.pixels import to_uint8
from diffnca.config.model import Config, SamplingConfig, with_fields
from diffnca.config.networks import CellConfig, NCAConfig
from diffnca.evaluation.maps import Maps
from diffnca.evaluation.samples import Samples
from diffnca.models.build import build_denoiser
from diffnca.models.file import load, write_model
from diffnca.sampling.generate import generate

CELL = CellConfig(hidden=8, num_cell_steps=1, embedding_width=8, embedding_channels=8)
PLAIN = Config(model=NCAConfig(channels=16, cell=CELL), sampling=SamplingConfig(steps=1))
CLASSES = {"layout.classes": ("stroma", "gland"), "data.crop": 16}


def written(path: Path, changes: dict[str, object]) -> str:
    torch.manual_seed(0)
    model = build_denoiser(with_fields(PLAIN, CLASSES | changes))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    write_model(path, model.network.state_dict(), model.config, {})
    return str(path)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The files of a model that follows the maps of the other one."""
    folder = tmp_path_factory.mktemp("models")
    maker = written(folder / "maker.safetensors", {"layout.made": True, "model.made_channels": 2})
    follows = {"layout.coarse": 4, "model.given_channels": 6, "layout.maker": maker}
    return written(folder / "filler.safetensors", follows), maker


def test_the_planes_of_a_map_are_no_part_of_a_picture(models: tuple[str, str]) -> None:
    (picture,) = Samples(models[1], 8, 12).pictures(1)
    np.testing.assert_array_equal(picture, to_uint8(generate(load(models[1]), height=8, width=12)[:, :3])[0])


def test_pictures_have_the_maps_that_their_model_asks_for(models: tuple[str, str]) -> None:
    (picture,) = Samples(models[0], 16, 16).pictures(1)
    alone, laid_out = (
        to_uint8(generate(load(models[0]), height=16, width=16, maker=maker))[0]
        for maker in (None, load(models[1]))
    )
    np.testing.assert_array_equal(picture, laid_out)
    assert not np.array_equal(picture, alone)


class Pieces(Maps):
    """The maps of two images: one leaves its right half free, the other is complete."""

    def __init__(self) -> None:
        """Hold no images."""

    def numbers(self, indices: Sequence[int]) -> Tensor:
        maps = torch.zeros(2, 16, 16, dtype=torch.long)
        maps[0, :, 8:] = -1
        return maps[torch.tensor(indices) % 2]


def test_what_a_map_leaves_free_is_completed_as_in_sampling(models: tuple[str, str]) -> None:
    free, complete = Samples(models[0], 16, 16, maps=Pieces()).pictures(2)
    for seed, picture, maker in ((0, free, load(models[1])), (1, complete, None)):
        layout = Pieces().numbers([seed])
        alone = generate(load(models[0]), height=16, width=16, seed=seed, layout=layout, maker=maker)
        np.testing.assert_array_equal(picture, to_uint8(alone)[0])


def test_only_a_completed_map_is_told_with_its_maker(models: tuple[str, str]) -> None:
    samples = Samples(models[0], 16, 16, maps=Pieces())
    assert ["maker" in samples.facts_of(seed) for seed in (0, 1)] == [True, False]


def test_a_kept_picture_is_refused_if_it_was_made_without_the_label_that_is_asked_for(
    labelled: str, tmp_path: Path
) -> None:
    (free,) = Samples(labelled, 8, 8).pictures(1, tmp_path)
    (bark,) = Samples(labelled, 8, 8, label="bark").pictures(1)
    assert not np.array_equal(free, bark)
    with pytest.raises(ValueError, match=r"000000.png: was made with label unknown, not bark; give an empty"):
        list(Samples(labelled, 8, 8, label="bark").pictures(1, tmp_path))


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The file of a model that knows two labels."""
    changes = {"layout.classes": (), "layout.labels": ("bark", "moss"), "model.given_channels": 2}
    return written(tmp_path_factory.mktemp("model") / "labels.safetensors", changes)
