"""Cell steps that learn in native code: the gradients of autograd, equal to the bit on all threads."""

import copy
import platform
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from diffnca.canvas.noise import Noise
from diffnca.canvas.region import Boundary, Canvas, Region
from diffnca.config.networks import CellConfig, NCAConfig
from diffnca.config.recipes import recipe_named
from diffnca.engine import learning, native
from diffnca.engine.learning import LearningCells, learn_natively
from diffnca.models.build import build_network
from diffnca.networks.cell import CellsOf, EagerCells

from .suite import CHOICES, ODD, network_of, noisy, random_network, relative_error

pytestmark = pytest.mark.skipif(
    native.built((), "training") is None, reason="no C++ compiler here that builds the native code"
)

SMALL = Canvas(9, 21).whole
NETWORKS = ("diff_nca+2", "diff_nca+coarse", "diff_nca_npj+1", "fourier_diff_nca", "fourier_diff_nca_npj")


def gradients(
    network: nn.Module,
    cells: CellsOf,
    region: Region = SMALL,
    images: int = 2,
    dtype: torch.dtype = torch.float32,
    given: Tensor | None = None,
) -> dict[str, Tensor]:
    """Return the prediction of a network with these cells, and the gradients of its weights and its input."""
    network = copy.deepcopy(network).requires_grad_(True)  # others use it too
    for part in network.compiled_parts():
        part.cells_of = cells
    x_t, t = noisy(region, images).requires_grad_(), torch.linspace(0.2, 0.8, images)
    noise = Noise(tuple(range(images))).at(0)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        predicted = network(x_t, t, region, noise, given=given)
    predicted.float().square().sum().backward()
    found = {name: weight.grad for name, weight in network.named_parameters() if weight.grad is not None}
    return {"prediction": predicted.detach().float(), "input": x_t.grad, **found}


def errors(network: nn.Module, **options: object) -> dict[str, float]:
    """Return relative errors of native cells in float32, next to autograd."""
    expected = gradients(network, EagerCells, **options)
    found = gradients(network, LearningCells, **options)
    assert found.keys() == expected.keys()
    return {name: relative_error(found[name], each) for name, each in expected.items() if each.norm() > 0}


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_are_those_of_autograd(name: str) -> None:
    assert max(errors(network_of(name)).values()) < 1e-5


@pytest.mark.parametrize(("modulation", "positions", "perceived", "padding"), CHOICES)
def test_gradients_of_all_cell_rules_are_those_of_autograd(
    modulation: str, positions: str, perceived: bool, padding: str
) -> None:
    cell = replace(
        ODD, modulation=modulation, positions=positions, perceive_embedding=perceived, padding=padding
    )
    network = random_network(NCAConfig("diff_nca", channels=21, cell=cell))
    assert max(errors(network).values()) < 1e-5


def test_gradients_of_cells_that_see_given_planes_are_those_of_autograd() -> None:
    network = random_network(NCAConfig("diff_nca", channels=21, cell=ODD, given_channels=3))
    assert max(errors(network, given=noisy(SMALL, 2)).values()) < 1e-5


@pytest.mark.parametrize("name", ["fourier_diff_nca", "fourier_diff_nca_npj"])
def test_gradients_of_large_embeddings_are_those_of_autograd(name: str) -> None:
    network = copy.deepcopy(network_of(name))
    for part in network.compiled_parts():
        bias = part.embedding.features.net[-1].bias
        bias += torch.tensor([-200.0, -20.0, 20.0, 200.0]).repeat(16)[: len(bias)]
    assert max(errors(network).values()) < 1e-5


@pytest.mark.parametrize(
    "edges", [("circular", "circular"), ("reflect", "circular"), ("circular", "reflect")]
)
@pytest.mark.parametrize("sides", [(1, 1), (2, 3), (33, 5), (4, 17)])
def test_gradients_at_all_edges_are_those_of_autograd(
    sides: tuple[int, int], edges: tuple[Boundary, Boundary]
) -> None:
    region = Canvas(*sides, edges).whole
    assert max(errors(network_of("diff_nca"), region=region).values()) < 1e-5


@pytest.mark.parametrize("name", NETWORKS)
def test_bfloat16_gradients_are_as_near_as_those_of_mixed_precision(name: str) -> None:
    network = network_of(name)
    if not all(learning.can_learn(part, torch.bfloat16) for part in network.compiled_parts()):
        pytest.skip("this processor has no products in bfloat16")
    images = 12  # in few images, roundings of single cells decide
    exact = gradients(network, EagerCells, images=images)
    total = torch.cat([each.flatten() for each in exact.values()])
    distances = [
        relative_error(torch.cat([each.flatten() for each in found.values()]), total)
        for found in (
            gradients(network, cells, images=images, dtype=torch.bfloat16)
            for cells in (LearningCells, EagerCells)
        )
    ]
    assert distances[0] < 1.1 * distances[1]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="turns off instructions of x86-64")
@pytest.mark.parametrize("missing", ["amx-bf16", "avx512bf16", "avx512f"])
@pytest.mark.parametrize("name", ["diff_nca+coarse", "fourier_diff_nca_npj"])
def test_gradients_of_older_processors_are_those_of_autograd(
    missing: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = native.built((f"-mno-{missing}",), "training")
    if library is None:
        pytest.skip(f"the compiler cannot do without {missing}")
    monkeypatch.setattr(learning, "built", lambda flags, name: library)
    assert max(errors(network_of(name)).values()) < 1e-5


@pytest.mark.skipif(platform.machine() != "x86_64", reason="turns off instructions of x86-64")
def test_bfloat16_gradients_without_tiles_are_those_with_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    network = network_of("diff_nca+coarse")
    if not all(learning.can_learn(part, torch.bfloat16) for part in network.compiled_parts()):
        pytest.skip("this processor has no products in bfloat16")
    expected = gradients(network, LearningCells, dtype=torch.bfloat16)
    library = native.built(native.WITHOUT_TILES, "training")
    monkeypatch.setattr(learning, "built", lambda flags, name: library)
    found = gradients(network, LearningCells, dtype=torch.bfloat16)
    assert max(relative_error(found[name], each) for name, each in expected.items() if each.norm() > 0) < 2e-3


@pytest.mark.parametrize("name", ["diff_nca+coarse", "fourier_diff_nca", "fourier_diff_nca_npj"])
def test_gradients_are_equal_to_the_bit_for_any_number_of_threads(name: str) -> None:
    network, before = network_of(name), torch.get_num_threads()
    found = []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            found.append(gradients(network, LearningCells, images=10))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_each_state_on_the_way_is_seen() -> None:
    seen: dict[CellsOf, list[Tensor]] = {EagerCells: [], LearningCells: []}
    network = copy.deepcopy(network_of("diff_nca"))
    for cells, states in seen.items():
        network.image.cells_of = cells
        network(noisy(SMALL), torch.tensor([0.3]), observe=states.append)
    torch.testing.assert_close(*seen.values())


def test_rules_with_statistics_over_space_are_left_to_others() -> None:
    network = build_network(recipe_named("diff_nca_arxiv_v1").model)
    assert learn_natively(network.compiled_parts(), torch.float32) == network.compiled_parts()


def test_without_a_compiler_all_parts_are_left_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    missing: Callable[..., None] = lambda flags, name: None  # noqa: E731
    monkeypatch.setattr(learning, "built", missing)
    network = build_network(NCAConfig("diff_nca", cell=CellConfig(hidden=8)))
    assert learn_natively(network.compiled_parts(), torch.float32) == network.compiled_parts()


def test_all_other_rules_learn_in_native_code() -> None:
    network = copy.deepcopy(network_of("fourier_diff_nca"))
    assert not learn_natively(network.compiled_parts(), torch.float32)
    assert all(part.cells_of is LearningCells for part in network.compiled_parts())
