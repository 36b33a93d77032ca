"""Model files: what is written is what is read, and damage is one line that names the file."""

import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from diffnca.config.json import to_json
from diffnca.config.model import Config
from diffnca.config.networks import CellConfig, NCAConfig
from diffnca.models.build import build_denoiser
from diffnca.models.file import (
    find_model,
    load,
    model_name,
    models_by_name,
    read_card,
    read_config,
    read_tensors,
    write_model,
    write_tensors,
)

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
    save_file({"w": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="no diffnca configuration"):
        load(tmp_path / "other.safetensors")


def test_a_hub_id_may_have_a_dot(monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    asked: list[str] = []
    monkeypatch.setattr("diffnca.models.file._download", lambda name: asked.append(name) or model)
    assert find_model("owner/model-1.5") == model
    assert asked == ["owner/model-1.5"]


def test_what_a_folder_here_lacks_is_never_looked_up_online(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diffnca.models.file._download", lambda name: pytest.fail("went online"))
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ValueError, match=r"^model 'runs/moss': no such file or folder \(nor a hub id, as the"
    ):
        find_model("runs/moss")


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[bool]:
    """Let no request reach the hub; return, for each request, whether the library of the hub may log it."""
    may_log: list[bool] = []

    def ask(*_: Any, **__: Any) -> str:
        may_log.append(logging.getLogger("huggingface_hub.utils").isEnabledFor(logging.ERROR))
        raise OSError("no route\nto the hub")

    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", ask)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_: ask() and pytest.fail("asks again"))
    monkeypatch.chdir(tmp_path)
    return may_log


def test_a_hub_out_of_reach_is_asked_once_and_nothing_is_logged(unreachable: list[bool]) -> None:
    with pytest.raises(ValueError, match=r"^model 'a/b': no such path, and [^\n]* \(no route to the hub\)$"):
        find_model("a/b")
    assert unreachable == [False]


def test_the_library_of_the_hub_logs_again_afterwards(unreachable: list[bool]) -> None:
    logger = logging.getLogger("huggingface_hub")
    before = logger.level
    with pytest.raises(ValueError, match="the hub does not give it"):
        find_model("a/b")
    assert logger.level == before


def test_a_model_of_the_hub_that_is_here_needs_no_hub(
    unreachable: list[bool], monkeypatch: pytest.MonkeyPatch, model: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: str(model))
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_: str(model))  # as it does without hub
    assert find_model("a/b") == model
    assert unreachable == []


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("aerial-4step", "aerial-4step"),
        ("runs/leaves-1.5", "leaves-1.5"),
        ("runs/leaves/", "leaves"),
        (".", "here"),
        ("model.safetensors", "here"),
        ("runs/leaves-1.5/model.safetensors", "leaves-1.5"),
        ("leaves-1.5.safetensors", "leaves-1.5"),
        ("owner/model-1.5", "model-1.5"),
    ],
)
def test_a_model_is_called_as_its_folder_or_its_file(
    given: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert model_name(given) == name and model_name(Path(given)) == name


def test_two_models_of_one_name_are_refused_in_one_line(tmp_path: Path) -> None:
    files = [tmp_path / folder / "leaves" / "model.safetensors" for folder in ("ra", "rb")]
    for file in files:
        file.parent.mkdir(parents=True)
        file.touch()
    named = models_by_name([files[0], files[0].parent, "aerial"])  # one of them is given twice
    assert named == {"leaves": str(files[0]), "aerial": "aerial"}
    with pytest.raises(ValueError, match="^models .*ra.* and .*rb.*: must have different names, .*") as error:
        models_by_name(files)
    assert "\n" not in str(error.value)


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


class TestChecksum:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
    def test_tensors_of_any_type_come_back(self, tmp_path: Path, dtype: torch.dtype) -> None:
        tensors = {"a": torch.arange(6).reshape(2, 3).to(dtype), "b": torch.zeros((), dtype=dtype)}
        write_tensors(tmp_path / "x.safetensors", tensors, {"said": "this"})
        there, header = read_tensors(tmp_path / "x.safetensors")
        assert all(torch.equal(there[name], tensor) for name, tensor in tensors.items())
        assert header["said"] == "this"

    def test_a_flipped_bit_is_found(self, model: Path) -> None:
        content = bytearray(model.read_bytes())
        content[-5] ^= 1
        model.write_bytes(content)
        with pytest.raises(ValueError, match=r"model\.safetensors: is damaged, its tensors do not match"):
            load(model)

    def test_a_file_of_before_without_one_is_read(self, model: Path) -> None:
        save_file(load_file(model), model, {"config": to_json(CONFIG)})
        assert read_config(model) == CONFIG and load(model)


class TestHeader:
    def write(self, model: Path, **header: str) -> None:
        save_file(load_file(model), model, header)

    @pytest.mark.parametrize(
        "text", ["null", "[]", "1", "{", "[" * 100_000, '{"format_version": 1, "loss": 0}']
    )
    def test_a_broken_configuration_is_one_line_that_names_the_file(self, model: Path, text: str) -> None:
        self.write(model, config=text)
        with pytest.raises(ValueError, match=rf"^{model}: [^\n]*$"):
            read_config(model)

    @pytest.mark.parametrize("text", ["null", "[]", "1", "{", "[" * 100_000, '{"microns_per_px": "0,5"}'])
    def test_a_broken_card_is_one_line_that_names_the_file(self, model: Path, text: str) -> None:
        self.write(model, config=to_json(CONFIG), card=text)
        with pytest.raises(ValueError, match=rf"^{model}: [^\n]*$"):
            read_card(model)

    def test_a_model_without_image_channels_is_refused(self, model: Path) -> None:
        values = json.loads(to_json(CONFIG))
        values["model"]["image_channels"] = 0
        self.write(model, config=json.dumps(values))
        with pytest.raises(ValueError, match="image_channels=0: must be 1 or 3"):
            load(model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weight: None, "is missing"),
        (lambda weight: weight[..., None], r"has shape \(16, 1\): must be \(16,\)"),
        (lambda weight: weight.long(), "holds torch.int64 values that are no finite numbers"),
        (lambda weight: weight * torch.nan, "holds torch.float32 values that are no finite numbers"),
    ],
    ids=["missing", "shape", "type", "values"],
)
def test_weights_of_another_network_are_named(model: Path, change: Any, message: str) -> None:
    tensors, header = read_tensors(model)
    tensors["image.expand.bias"] = change(tensors["image.expand.bias"])
    write_tensors(model, {name: value for name, value in tensors.items() if value is not None}, header)
    with pytest.raises(ValueError, match=rf"^{model}: image.expand.bias {message}"):
        load(model)


def test_a_pointer_of_git_lfs_is_called_one(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\n")
    with pytest.raises(ValueError, match="is a pointer of Git LFS; fetch the file with `git lfs pull`"):
        load(tmp_path / "model.safetensors")


@pytest.mark.parametrize("is_published", [True, False])
def test_conversion_is_advised_where_it_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_published: bool
) -> None:
    torch.save({"fc0_rgb.bias": torch.zeros(4)}, tmp_path / "model0.pth")
    if is_published:
        monkeypatch.setattr("diffnca.models.published.read_published_checkpoint", lambda path: None)
    with pytest.raises(ValueError, match="not a readable safetensors file") as error:
        load(tmp_path / "model0.pth")
    assert ("`diffnca convert`" in str(error.value)) == is_published
