"""Models with their cards: folders, the hub, torch.hub."""

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import HfApi, ModelCard

from diffnca import generate, load
from diffnca.config.model import Config
from diffnca.config.networks import CellConfig, NCAConfig
from diffnca.models.build import build_denoiser
from diffnca.models.hub import Pretrained

ROOT = Path(__file__).parents[2]
CELL = CellConfig(hidden=8, num_cell_steps=2, embedding_width=8, embedding_channels=4)
CARD = {"description": "Moss", "licence": "CC0", "limits": ["small", "green | blue"], "scores": {"kid": 5}}


def small() -> Pretrained:
    return Pretrained(build_denoiser(Config(name="moss", model=NCAConfig(channels=8, cell=CELL))), CARD)


def image_of(model: Any) -> torch.Tensor:
    return generate(model, height=8, width=8, seed=1, steps=2, engine="eager")


def test_a_saved_model_makes_the_image_that_it_made(tmp_path: Path) -> None:
    own = small()
    found = Pretrained.from_pretrained(own.save_pretrained(tmp_path / "new" / "moss"))
    assert torch.equal(image_of(found.model), image_of(own.model))
    assert found.card == CARD


def test_a_folder_is_a_model_for_every_command(tmp_path: Path) -> None:
    small().save_pretrained(tmp_path)
    assert load(str(tmp_path)).config.name == "moss"


def test_the_type_of_the_weights_can_be_chosen(tmp_path: Path) -> None:
    sizes = [
        (small().save_pretrained(tmp_path / str(dtype), dtype) / "model.safetensors").stat().st_size
        for dtype in (None, torch.float16)
    ]
    assert sizes[1] < sizes[0]


def test_the_page_shows_the_card_and_the_hub_can_read_it(tmp_path: Path) -> None:
    page = ModelCard((small().save_pretrained(tmp_path) / "README.md").read_text())
    assert page.data.library_name == "diffnca"
    for text in (
        "# moss",
        "Moss.",
        "| licence | CC0 |",
        "| limits | small; green &#124; blue |",
        "| scores | kid 5 |",
    ):
        assert text in page.text


@pytest.mark.parametrize(
    ("fact", "message"),
    [
        ({"microns_per_px": "0.5"}, "card: microns_per_px='0.5': must be a number above 0"),
        ({"microns_per_px": 0}, "card: microns_per_px=0: must be a number above 0"),
        ({"seen": np.float32(3)}, r"card: seen=.*3\.0.*: must be a JSON value"),
        ({"data": Path("a")}, r"card: data=PosixPath\('a'\): must be a JSON value"),
        ({"data": [Path("a")]}, r"card: data=\[PosixPath\('a'\)\]: must be a JSON value"),
    ],
    ids=str,
)
@pytest.mark.skipif(os.name == "nt", reason="paths have another name on Windows")
def test_a_card_that_no_file_holds_is_refused_before_a_folder_is_made(
    tmp_path: Path, fact: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=f"^{message}[^\n]*$"):
        Pretrained(small().model, fact).save_pretrained(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_fact_of_none_counts_as_missing(tmp_path: Path) -> None:
    nothing = dict.fromkeys(("description", "licence", "microns_per_px"))
    folders = [tmp_path / "none", tmp_path / "missing"]
    for folder, card in zip(folders, (nothing, {}), strict=True):
        Pretrained.from_pretrained(Pretrained(small().model, card).save_pretrained(folder))
    assert (folders[0] / "README.md").read_text() == (folders[1] / "README.md").read_text()


@pytest.mark.parametrize("place", ["file", "file/moss"])
def test_a_file_in_the_place_of_the_folder_is_one_line(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"^[^\n]*: is a file, or lies in one; give a folder$"):
        small().save_pretrained(tmp_path / place)


def test_the_hub_receives_the_files_of_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    received: dict[str, Any] = {}

    def upload(self: HfApi, *, repo_id: str, folder_path: str, commit_message: str) -> str:
        received.update(repo_id=repo_id, files={path.name for path in Path(folder_path).iterdir()})
        received["model"] = load(folder_path)
        return "https://hub/commit"

    monkeypatch.setattr(HfApi, "create_repo", lambda self, repo_id, **options: received.update(made=repo_id))
    monkeypatch.setattr(HfApi, "upload_folder", upload)
    own = small()
    assert own.push_to_hub("me/moss") == "https://hub/commit"
    assert received["made"] == received["repo_id"] == "me/moss"
    assert received["files"] == {"model.safetensors", "README.md"}
    assert torch.equal(image_of(received["model"]), image_of(own.model))


def test_a_hub_that_refuses_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: HfApi, repo_id: str, **options: Any) -> None:
        raise OSError("401 Client Error\nUnauthorized")

    monkeypatch.setattr(HfApi, "create_repo", refuse)
    with pytest.raises(ValueError, match=r"^model 'me/moss': the hub does not take it \(401 Client"):
        small().push_to_hub("me/moss")


def test_torch_hub_loads_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))  # the entry adds its folder
    folder = small().save_pretrained(tmp_path)
    model = torch.hub.load(str(ROOT), "model", str(folder), source="local")
    assert torch.equal(image_of(model), image_of(load(folder)))
