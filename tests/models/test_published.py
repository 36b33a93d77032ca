"""The published networks against stored vectors, and the authors' checkpoints in their own layout."""

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffnca.config.model import Config
from diffnca.config.networks import CellConfig
from diffnca.config.recipes import recipe_named
from diffnca.models.build import build_network
from diffnca.models.published import network_from_arrays, read_published_checkpoint
from diffnca.networks.automaton import Automaton

REFERENCE = Path(__file__).parents[1] / "reference"
PUBLISHED = ("diff_nca_arxiv_v1", "fourier_diff_nca_arxiv_v1", "diff_nca_npj", "fourier_diff_nca_npj")

each_reference = pytest.mark.parametrize("reference", ["arxivv1_small", "npj2025_small"])
each_family = pytest.mark.parametrize("family", ["diff_nca", "fourier_diff_nca"])


def stored(reference: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    with np.load(REFERENCE / f"{reference}.npz") as file:
        arrays = dict(file)
    return arrays, json.loads(str(arrays.pop("meta")))


@each_reference
@each_family
def test_a_published_network_predicts_the_stored_noise(reference: str, family: str) -> None:
    arrays, meta = stored(reference)
    network = network_from_arrays(arrays, meta, family)
    with torch.no_grad():
        found = network(torch.from_numpy(arrays["input"]), torch.from_numpy(arrays["time"]))
    expected = torch.from_numpy(arrays[f"{family}.noise"])
    assert (found - expected).norm() / expected.norm() < 1e-5
    assert (found - expected).abs().max() / expected.abs().max() < 1e-5


@each_reference
def test_diff_nca_needs_no_fourier_arrays(reference: str) -> None:
    arrays, meta = stored(reference)
    only_image = {name: values for name, values in arrays.items() if name.startswith("image.")}
    sizes = {name: value for name, value in meta.items() if not name.startswith("fourier")}
    assert network_from_arrays(only_image, sizes, "diff_nca").fourier is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"variant": "v3"}, "variant='v3': must be one of arxiv-v1, npj-2025"),
        ({"hidden": 20}, r"has shape .*: must be"),
        ({"channels": None}, "meta without 'channels'"),
        ({"variant": "arxiv-v1"}, "arrays: unexpected fourier.gate_hidden"),
    ],
)
def test_sizes_that_do_not_fit_the_arrays_are_refused_in_one_line(change: dict, message: str) -> None:
    arrays, meta = stored("npj2025_small")
    changed = {name: value for name, value in {**meta, **change}.items() if value is not None}
    arrays |= (
        {"fourier.norm.weight": np.ones(24), "fourier.norm.bias": np.ones(24)} if "variant" in change else {}
    )
    with pytest.raises(ValueError, match=message) as error:
        network_from_arrays(arrays, changed, "fourier_diff_nca")
    assert "\n" not in str(error.value)


def test_an_unknown_family_is_refused() -> None:
    arrays, meta = stored("npj2025_small")
    with pytest.raises(ValueError, match="family='unet': must be one of diff_nca, fourier_diff_nca"):
        network_from_arrays(arrays, meta, "unet")


def test_a_missing_array_is_named() -> None:
    arrays, meta = stored("npj2025_small")
    del arrays["image.project.bias"]
    with pytest.raises(ValueError, match="arrays: image.project.bias is missing"):
        network_from_arrays(arrays, meta, "diff_nca")


# The authors' checkpoints


def published(name: str) -> tuple[Automaton, Config]:
    """Return a published network with few channels and random weights."""
    config = recipe_named(name)

    def narrow(cell: CellConfig) -> CellConfig:
        return replace(cell, hidden=16)

    fourier = config.model.fourier and replace(config.model.fourier, cell=narrow(config.model.fourier.cell))
    model = replace(config.model, channels=8, cell=narrow(config.model.cell), fourier=fourier)
    torch.manual_seed(0)
    network = build_network(model)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    return network.eval(), replace(config, model=model)


def as_the_authors_write_it(network: Automaton) -> dict[str, Tensor]:
    """Return the weights by the authors' names, with the plane of the kernels transposed."""
    written = {
        "bn.weight": torch.ones(16),
        "bn.running_mean": torch.zeros(16),
    }  # in their files, but not used
    for stage, rule, embedding in (("fourier", "fourier", "net"), ("rgb", "image", "network")):
        layers = {
            "perceive": f"p0_{stage}",
            "expand": f"fc0_{stage}",
            "project": f"fc1_{stage}",
            "norm": f"norm_{stage}",
            "embedding.features.net": f"embedding_{embedding}_{stage}",
            "gate_perception.net": f"embedding_map_1_{stage}",
            "gate_hidden.net": f"embedding_map_2_{stage}",
        }
        for name, values in network.state_dict().items():
            for ours, theirs in layers.items():
                if name.startswith(f"{rule}.{ours}."):
                    name = name.replace(f"{rule}.{ours}", theirs)
                    name = name.replace("parametrizations.weight.original0", "weight_g")
                    name = name.replace("parametrizations.weight.original1", "weight_v")
                    written[name] = values.transpose(2, 3) if values.ndim == 4 else values
    return written


@pytest.mark.parametrize("name", PUBLISHED)
def test_an_authors_checkpoint_gives_the_network_it_came_from(name: str, tmp_path: Path) -> None:
    network, config = published(name)
    torch.save(as_the_authors_write_it(network), tmp_path / "model0.pth")
    found, found_config = read_published_checkpoint(tmp_path / "model0.pth")
    assert found_config == config
    x_t, t = torch.randn(1, 3, 9, 7, generator=torch.Generator().manual_seed(1)), torch.tensor([0.4])
    with torch.no_grad():
        assert torch.equal(found(x_t, t), network(x_t, t))


def test_the_kernels_of_a_checkpoint_work_on_a_transposed_plane(tmp_path: Path) -> None:
    theirs = as_the_authors_write_it(published("diff_nca_arxiv_v1")[0])
    torch.save(theirs, tmp_path / "model0.pth")
    ours, _ = read_published_checkpoint(tmp_path / "model0.pth")
    x = torch.randn(1, 12, 9, 7, generator=torch.Generator().manual_seed(1))
    transposed = F.conv2d(x.transpose(2, 3), theirs["p0_rgb.weight"], theirs["p0_rgb.bias"]).transpose(2, 3)
    torch.testing.assert_close(ours.image.perceive(x), transposed)


def test_the_older_file_format_is_read_as_well(tmp_path: Path) -> None:
    network, config = published("diff_nca_npj")
    weights = as_the_authors_write_it(network)
    torch.save(weights, tmp_path / "model0.pth", _use_new_zipfile_serialization=False)
    assert read_published_checkpoint(tmp_path / "model0.pth")[1] == config


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.path), "w")


def test_code_in_a_checkpoint_is_not_executed(tmp_path: Path) -> None:
    torch.save({"p0_rgb.weight": Trap(tmp_path / "sprung")}, tmp_path / "model0.pth")
    with pytest.raises(ValueError, match="must be a PyTorch file of tensors only"):
        read_published_checkpoint(tmp_path / "model0.pth")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", bytes(range(256)), pickle.dumps([1, 2])])
def test_a_file_that_is_no_checkpoint_is_refused_in_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model0.pth").write_bytes(content)
    with pytest.raises(ValueError, match=r"model0.pth: ") as error:
        read_published_checkpoint(tmp_path / "model0.pth")
    assert "\n" not in str(error.value)


def test_a_cut_checkpoint_is_refused(tmp_path: Path) -> None:
    torch.save(as_the_authors_write_it(published("diff_nca_npj")[0]), tmp_path / "model0.pth")
    content = (tmp_path / "model0.pth").read_bytes()
    (tmp_path / "model0.pth").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="must be a PyTorch file of tensors only"):
        read_published_checkpoint(tmp_path / "model0.pth")


def test_a_missing_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="No such file or directory: must be a readable model0.pth"):
        read_published_checkpoint(tmp_path / "model0.pth")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conv9.weight": torch.ones(1)}, "unexpected entry 'conv9.weight'"),
        ({"fc1_rgb.bias": None}, "image.project.bias is missing"),
        ({"embedding_map_1_rgb.2.bias": None}, "image.gate_perception.net.2.bias is missing"),
        (
            {"fc0_rgb.weight_v": torch.ones(16, 5, 1, 1)},
            r"has shape \(16, 5, 1, 1\): must be \(16, 20, 1, 1\)",
        ),
        ({"p0_rgb.weight": torch.ones(8, 12, 3, 3)}, "unexpected image.perceive.weight"),
    ],
)
def test_what_does_not_belong_to_a_published_network_is_named(
    change: dict, message: str, tmp_path: Path
) -> None:
    weights = {**as_the_authors_write_it(published("diff_nca_npj")[0]), **change}
    torch.save({name: value for name, value in weights.items() if value is not None}, tmp_path / "model0.pth")
    with pytest.raises(ValueError, match=message):
        read_published_checkpoint(tmp_path / "model0.pth")


def test_an_empty_checkpoint_is_refused(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "model0.pth")
    with pytest.raises(ValueError, match="holds no weights"):
        read_published_checkpoint(tmp_path / "model0.pth")


@pytest.mark.filterwarnings("ignore")  # torch calls quantised tensors deprecated
@pytest.mark.parametrize(
    "entry",
    [
        torch.empty(16, device="meta"),
        torch.zeros(16).to_sparse(),
        torch.zeros(16, dtype=torch.int64),
        torch.zeros(16, dtype=torch.complex64),
        [1.0],
        None,
    ],
    ids=["meta", "sparse", "whole numbers", "complex", "list", "none"],
)
def test_an_entry_that_is_no_plain_tensor_is_refused(entry: Any, tmp_path: Path) -> None:
    weights = as_the_authors_write_it(published("diff_nca_npj")[0]) | {"fc0_rgb.bias": entry}
    torch.save(weights, tmp_path / "model0.pth")
    with pytest.raises(ValueError, match=r"model0.pth: (unexpected entry 'fc0|must be a PyTorch file)"):
        read_published_checkpoint(tmp_path / "model0.pth")


@pytest.mark.filterwarnings("ignore")
def test_a_quantised_entry_is_refused(tmp_path: Path) -> None:
    entry = torch.quantize_per_tensor(torch.zeros(16), 0.1, 0, torch.qint8)
    test_an_entry_that_is_no_plain_tensor_is_refused(entry, tmp_path)


def test_a_pointer_of_git_lfs_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "model0.pth").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\n")
    with pytest.raises(ValueError, match="is a pointer of Git LFS; fetch the file with `git lfs pull`"):
        read_published_checkpoint(tmp_path / "model0.pth")
