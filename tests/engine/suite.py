"""The suite that every engine inherits: it computes what the network computes, wherever a cell lies."""

from dataclasses import replace
from functools import cache
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from diffnca.canvas.noise import Noise
from diffnca.canvas.region import Boundary, Canvas, Region
from diffnca.config.networks import CellConfig, CoarseConfig, NCAConfig
from diffnca.config.recipes import recipe_named
from diffnca.models.build import build_network
from diffnca.networks.cell import CellNoise, Rule, SelfGuidance, run_cells
from diffnca.networks.patches import PatchGrid

LOCAL = ("diff_nca", "fourier_diff_nca", "diff_nca_npj", "fourier_diff_nca_npj")
ODD = CellConfig(hidden=18, num_cell_steps=2, dilations=(2, 1), embedding_width=8, embedding_channels=5)
COARSE = CoarseConfig(4, 61, 3, replace(ODD, hidden=16, dilations=(1, 2)))
T = 0.3
CHOICES = [
    ("none", "none", False, "reflect"),
    ("none", "relative", True, "zeros"),
    ("none", "pixels", True, "reflect"),
    ("gate", "none", True, "reflect"),
    ("gate", "relative", False, "reflect"),
    ("gate", "pixels", False, "zeros"),
    ("scale_shift", "none", True, "zeros"),
    ("scale_shift", "relative", True, "reflect"),
    ("scale_shift", "pixels", False, "zeros"),
]
"""Modulation, positions, whether the embedding is perceived, padding. Any two choices meet in one of them."""


@cache
def network_of(name: str, num_cell_steps: int = 2, image_channels: int = 3, channels: int = 16) -> nn.Module:
    """Return a small network with random weights; its cells reach 1 cell, then 2.

    Args:
        name: of a recipe; with "+2" of cells of 2 px, of which some update, with "+coarse" also behind a
            coarse stage.
        num_cell_steps: of the image stage.
        image_channels: of the images.
        channels: of the state, beside what larger cells take.
    """
    recipe, _, more = name.partition("+")
    model = recipe_named(recipe).model
    patch, coarse = (2, COARSE) if more == "coarse" else (int(more or 1), None)
    fourier = model.fourier and replace(model.fourier, window=4, cell=small(model.fourier.cell, 2))
    channels += 2 * image_channels * (patch**2 - 1)
    model = replace(model, image_channels=image_channels, patch=patch, channels=channels, coarse=coarse)
    cell = small(model.cell, num_cell_steps)
    cell = replace(cell, update_probability=0.8) if more else cell
    return random_network(replace(model, cell=cell, fourier=fourier))


def small(cell: CellConfig, num_cell_steps: int) -> CellConfig:
    """Return the rule with few channels."""
    return replace(cell, hidden=24, num_cell_steps=num_cell_steps, dilations=(1, 2), embedding_width=16)


def random_network(model: NCAConfig) -> nn.Module:
    """Return a network whose layers are not at zero, where training begins."""
    torch.manual_seed(0)
    network = build_network(model)
    for parameter in network.parameters():
        inputs = parameter[0].numel()
        nn.init.normal_(parameter, std=inputs**-0.5 if parameter.dim() > 1 else 0.1)
    return network.requires_grad_(False)


def noisy(region: Region, images: int = 1, channels: int = 3) -> Tensor:
    shape = (images, channels, region.height, region.width)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def relative_error(found: Tensor, expected: Tensor) -> float:
    return ((found.cpu() - expected).norm() / expected.norm()).item()


class EngineSuite:
    """What every engine does.

    Attributes:
        device: where it runs.
        allowed: the relative errors of the types of its matrix products.
        whole: a canvas of more than one block, whose sides are no multiples of anything.
    """

    device: ClassVar[torch.device]
    allowed: ClassVar[dict[torch.dtype, float]]
    whole: ClassVar[tuple[int, int]] = (41, 37)

    def prepare(self, network: nn.Module, dtype: torch.dtype = torch.float32) -> nn.Module:
        """Return the network as this engine runs it."""
        raise NotImplementedError

    def rule(self, network: nn.Module) -> Rule:
        """Return the rule of the first stage as this engine runs it."""
        return self.prepare(network).rules[0]

    def error(
        self, network: nn.Module, region: Region, images: int = 1, seeds: tuple[int, ...] = (), **kind: Any
    ) -> float:
        """Return the relative error of one call against the network as it is."""
        x_t, t = noisy(region, images, network.image_channels), torch.full((images,), T)
        noise, own = (Noise(seeds, place).at(40_000) if seeds else None for place in ("cpu", self.device))
        with torch.no_grad():
            expected = network(x_t, t, region, noise)
        found = self.prepare(network, **kind)(x_t.to(self.device), t.to(self.device), region, own)
        return relative_error(found, expected)

    def tile_and_whole(
        self,
        network: nn.Module,
        tile: Region,
        missing_px: int = 0,
        dtype: torch.dtype = torch.float32,
    ) -> tuple[Tensor, Tensor]:
        """Return a tile computed from the pixels within the radius, less some, and the crop of the whole."""
        ready, whole, halo = self.prepare(network, dtype), tile.canvas.whole, network.radius - missing_px
        x_t, t = noisy(whole).to(self.device), torch.full((1,), T, device=self.device)
        noise, grown = Noise((7,), self.device).at(3), tile.grow(halo)
        context = ready.context(x_t, t, whole)
        expected = ready(x_t, t, whole, noise, context)
        found = ready(grown.crop(x_t, whole), t, grown, noise, context)
        return tile.crop(found, grown), tile.crop(expected, whole)

    def tiles(self, boundary: tuple[Boundary, Boundary]) -> list[Region]:
        """Return parts of a canvas: at a corner, a column at the far edge, in the middle."""
        height, width = (-(-side // 12) * 12 if "circular" in boundary else side for side in self.whole)
        canvas = Canvas(height, width, boundary)
        middle = Region(height // 3, width // 3, height // 4, width // 3, canvas)
        return [Region(0, 0, 3, 2, canvas), Region(0, width - 1, height, 1, canvas), middle]

    @pytest.mark.parametrize("name", [*LOCAL, "diff_nca+3", "fourier_diff_nca+2", "diff_nca+coarse"])
    def test_it_computes_what_the_network_computes(self, name: str) -> None:
        for dtype, allowed in self.allowed.items():
            region = Canvas(*self.whole).whole
            assert self.error(network_of(name), region, images=2, dtype=dtype) < allowed

    @pytest.mark.parametrize("name", ["diff_nca", "fourier_diff_nca_npj", "diff_nca+2"])
    @pytest.mark.parametrize(
        ("sides", "boundary"),
        [
            ((1, 1), ("reflect", "reflect")),
            ((1, 9), ("circular", "reflect")),
            ((2, 2), ("circular", "circular")),
            ((7, 1), ("reflect", "reflect")),
            ((9, 8), ("reflect", "circular")),
            ((6, 10), ("circular", "circular")),
        ],
        ids=str,
    )
    def test_it_computes_what_the_network_computes_at_any_size_and_edge(
        self, name: str, sides: tuple[int, int], boundary: tuple[Boundary, Boundary]
    ) -> None:
        if "+2" in name and boundary[0] == "circular" and sides[0] % 2:
            sides = (2, sides[1])  # larger cells fit around a circular axis
        assert self.error(network_of(name), Canvas(*sides, boundary).whole) < self.allowed[torch.float32]

    @pytest.mark.parametrize("choice", CHOICES, ids=str)
    def test_every_choice_of_a_cell_is_computed(self, choice: tuple[str, str, bool, str]) -> None:
        names = ("modulation", "positions", "perceive_embedding", "padding")
        cell = replace(ODD, **dict(zip(names, choice, strict=True)))
        network = random_network(NCAConfig(image_channels=1, channels=7, cell=cell))
        assert self.error(network, Canvas(6, 7).whole) < self.allowed[torch.float32]

    def test_gray_images_are_computed(self) -> None:
        network = network_of("diff_nca_npj", image_channels=1)
        assert self.error(network, Canvas(9, 8).whole) < self.allowed[torch.float32]

    def test_masks_are_those_of_the_network(self) -> None:
        network = network_of("fourier_diff_nca_npj")
        error = self.error(network, Canvas(9, 8).whole, images=2, seeds=(5, 2**64 - 1))
        assert error < self.allowed[torch.float32]

    def test_without_masks_the_expected_update_is_that_of_the_network(self) -> None:
        network = random_network(
            NCAConfig(image_channels=1, channels=7, cell=replace(ODD, update_probability=0.3))
        )
        assert self.error(network, Canvas(9, 8).whole) < self.allowed[torch.float32]

    def test_a_full_state_is_updated_from_its_origin_with_its_masks(self) -> None:
        cell = replace(ODD, update_probability=0.5, positions="pixels")
        network = random_network(NCAConfig(image_channels=1, channels=7, cell=cell))
        region, t = Canvas(5, 4).whole, torch.full((1,), T)
        state = noisy(region, 1, 7)
        noise, own = (Noise((5,), place).at(2) for place in ("cpu", self.device))
        expected = run_cells(network.image, state, t, region, noise, origin=(1, 0), first_mask=7)
        found = run_cells(
            self.rule(network),
            state.to(self.device),
            t.to(self.device),
            region,
            own,
            origin=(1, 0),
            first_mask=7,
        )
        assert relative_error(found, expected) < self.allowed[torch.float32]

    @pytest.mark.parametrize("region", [Canvas(40, 19).whole, Canvas(19, 40).whole], ids=["high", "wide"])
    def test_a_step_of_needed_cells_alone_gives_these_cells_the_same_bits(self, region: Region) -> None:
        rule, part = self.rule(network_of("diff_nca+2")), Region(3, 2, 9, 7, region.canvas)
        state, t, found = noisy(region, 2, 12).to(self.device), torch.full((2,), T, device=self.device), []
        for needed in (region, part):
            with rule.begin(state, t, region) as cells:
                cells.advance(0, None, needed)
                found.append(part.crop(cells.state(), of=region))
        assert torch.equal(*found)

    def test_each_image_has_its_own_time(self) -> None:
        network, region, t = network_of("fourier_diff_nca"), Canvas(9, 8).whole, torch.tensor([0.9, 0.1, 0.9])
        x_t = noisy(region, 3)
        found = self.prepare(network)(x_t.to(self.device), t.to(self.device))
        assert relative_error(found, network(x_t, t)) < self.allowed[torch.float32]

    @pytest.mark.parametrize("name", ["diff_nca", "fourier_diff_nca_npj"])
    def test_a_guided_state_is_led_on_as_that_of_the_network(self, name: str) -> None:
        network = network_of.__wrapped__(name)
        for rule in network.compiled_parts():
            rule.guidance = SelfGuidance(1.7, rule.config.num_cell_steps - 1)
        assert self.error(network, Canvas(9, 8).whole) < self.allowed[torch.float32]

    def test_an_observer_sees_the_prediction_after_each_cell_step(self) -> None:
        network, region, seen = network_of("diff_nca+2"), Canvas(9, 8).whole, []
        x_t, t = noisy(region).to(self.device), torch.full((1,), T, device=self.device)
        final = self.prepare(network)(x_t, t, region, observe=seen.append)
        assert len(seen) == 2 and torch.equal(seen[-1], final) and not torch.equal(seen[0], final)

    @pytest.mark.parametrize("name", [*LOCAL, "diff_nca+3", "fourier_diff_nca+2", "diff_nca+coarse"])
    @pytest.mark.parametrize("boundary", [("reflect", "reflect"), ("circular", "circular")], ids=str)
    def test_tiles_equal_the_whole_to_the_bit(self, name: str, boundary: tuple[Boundary, Boundary]) -> None:
        for dtype in self.allowed:
            for tile in self.tiles(boundary):
                assert torch.equal(*self.tile_and_whole(network_of(name), tile, dtype=dtype))

    def test_a_region_of_all_cells_but_not_of_all_pixels_equals_the_whole(self) -> None:
        network, canvas = network_of("diff_nca+coarse"), Canvas(72, 72, ("circular", "circular"))
        side = 71 - 2 * network.radius
        tile = Region(3, -5, side, side, canvas)
        cells = PatchGrid(tile.grow(network.radius), network.config.patch).cells
        assert cells.is_whole_y and not tile.grow(network.radius).is_whole_y
        assert torch.equal(*self.tile_and_whole(network, tile))

    @pytest.mark.parametrize("name", LOCAL)
    def test_a_halo_one_pixel_short_is_too_small(self, name: str) -> None:
        tile = self.tiles(("reflect", "reflect"))[-1]
        assert not torch.equal(*self.tile_and_whole(network_of(name), tile, missing_px=1))

    @pytest.mark.parametrize("name", ["diff_nca", "fourier_diff_nca_npj"])
    def test_a_batch_equals_single_images_to_the_bit(self, name: str) -> None:
        region, t = Canvas(*self.whole).whole, torch.full((2,), T, device=self.device)
        x_t = noisy(region, 2).to(self.device)
        for dtype in self.allowed:
            ready = self.prepare(network_of(name), dtype)
            together = ready(x_t, t, None, Noise((4, 5), self.device).at(1))
            for image in range(2):
                part = slice(image, image + 1)
                alone = ready(x_t[part], t[part], None, Noise((4 + image,), self.device).at(1))
                assert torch.equal(together[part], alone)

    @pytest.mark.parametrize("name", ["diff_nca+coarse", "fourier_diff_nca"])
    def test_autocast_changes_nothing(self, name: str) -> None:
        network, region, t = network_of(name), Canvas(12, 8).whole, torch.full((1,), T)
        ready, x_t = self.prepare(network), noisy(region).to(self.device)
        expected = ready(x_t, t.to(self.device))
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(ready(x_t, t.to(self.device)), expected)

    def test_it_runs_in_inference_mode(self) -> None:
        ready, region = self.prepare(network_of("diff_nca")), Canvas(9, 8).whole
        x_t, t = noisy(region).to(self.device), torch.full((1,), T, device=self.device)
        with torch.inference_mode():
            found = ready(x_t.clone(), t)
        assert torch.equal(found, ready(x_t, t))

    def test_masks_of_another_origin_are_taken_as_they_are(self) -> None:
        drawn = torch.rand(1, 1, 9, 8, generator=torch.Generator().manual_seed(3)) < 0.5

        class Masks:
            def __init__(self, device: torch.device) -> None:
                self.device = device

            def mask(self, cell_step: int, region: Region, probability: float) -> Tensor:
                return drawn.to(self.device)

        assert isinstance(Masks(self.device), CellNoise)
        network, x_t, t = network_of("diff_nca_npj"), noisy(Canvas(9, 8).whole), torch.full((1,), T)
        expected = network(x_t, t, None, Masks(torch.device("cpu")))
        found = self.prepare(network)(x_t.to(self.device), t.to(self.device), None, Masks(self.device))
        assert relative_error(found, expected) < self.allowed[torch.float32]
