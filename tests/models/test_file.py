"""Model files: what is written is what is read, and damage is told in one line."""

import os
from pathlib import Path

import pytest
import torch

from diffnca.config.model import Config
from diffnca.config.networks import CellConfig, NCAConfig
from diffnca.models.build import build_denoiser
from diffnca.models.file import find_model, load, read_card, read_config, write_model

CONFIG = Config(model=NCAConfig(channels=8, cell=CellConfig(hidden=16, num_cell_steps=2)))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "model.safetensors"
    write_model(path, build_denoiser(CONFIG).network.state_dict(), CONFIG, {"licence": "CC0"})
    return path


def test_a_loaded_model_gives_the_same_output(model: Path) -> None:
    torch.manual_seed(0)
    written = build_denoiser(CONFIG).network
    x_t, t = torch.randn(1, 3, 9, 7), torch.tensor([0.5])
    assert torch.equal(load(model).network(x_t, t), written(x_t, t))


def test_the_configuration_comes_back(model: Path) -> None:
    assert read_config(model) == CONFIG


def test_the_card_comes_back(model: Path) -> None:
    assert read_card(model) == {"licence": "CC0"}


def test_a_run_folder_is_a_model(model: Path) -> None:
    assert find_model(model.parent) == model


def test_half_precision_weights_load_as_float32(model: Path, tmp_path: Path) -> None:
    half = tmp_path / "half.safetensors"
    write_model(half, load(model).network.state_dict(), CONFIG, {}, torch.float16)
    assert {p.dtype for p in load(half).network.parameters()} == {torch.float32}


def test_a_bare_name_is_never_looked_up_online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffnca.models.file._download", lambda name: pytest.fail("went online"))
    with pytest.raises(ValueError, match="model 'nothing': no such file or folder"):
        find_model("nothing")


def test_a_damaged_file_is_one_line(model: Path) -> None:
    model.write_bytes(model.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"model\.safetensors: not a readable safetensors file"):
        load(model)


def test_a_file_without_configuration_is_told_from_a_model(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"w": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="no diffnca configuration"):
        load(tmp_path / "other.safetensors")


def test_a_hub_id_may_have_a_dot(monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    asked: list[str] = []
    monkeypatch.setattr("diffnca.models.file._download", lambda name: asked.append(name) or model)
    assert find_model("owner/model-1.5") == model
    assert asked == ["owner/model-1.5"]


def test_a_folder_of_other_things_does_not_hide_a_bundled_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pathology").mkdir()
    monkeypatch.chdir(tmp_path)
    assert find_model("pathology").name == "pathology.safetensors"


@pytest.mark.skipif(os.name == "nt", reason="no rights of groups on Windows")
def test_a_model_file_has_the_rights_that_new_files_have_here(model: Path, tmp_path: Path) -> None:
    (tmp_path / "new").touch()
    assert model.stat().st_mode == (tmp_path / "new").stat().st_mode
