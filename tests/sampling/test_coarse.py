"""Maps that a model makes: planes of any region of a larger image, and images that follow them."""

from dataclasses import replace

import pytest
import torch

from diffnca.canvas.noise import Noise
from diffnca.canvas.region import Canvas, Region
from diffnca.config.model import Config, with_fields
from diffnca.config.networks import CellConfig, NCAConfig
from diffnca.diffusion.schedule import CLEAN
from diffnca.sampling.coarse import MadeMap, Pixels, coarse_planes, largest_shares, make_map
from diffnca.sampling.generate import generate
from diffnca.sampling.known import KnownClasses

from .conftest import denoiser_of

CLASSES = {"layout.classes": ("stroma", "gland"), "sampling.steps": 2}
CELL = CellConfig(hidden=16, num_cell_steps=2, embedding_width=8, embedding_channels=8)
PLAIN = Config(model=NCAConfig(channels=16, cell=CELL))
MAKER = with_fields(PLAIN, CLASSES | {"layout.made": True, "model.made_channels": 2})
FILLER = with_fields(PLAIN, CLASSES | {"layout.coarse": 4, "model.given_channels": 6, "data.crop": 16})
CANVASES = [Canvas(33, 42), Canvas(32, 40, ("circular", "circular")), Canvas(17, 40, ("reflect", "circular"))]


def made(canvas: Canvas) -> MadeMap:
    return make_map(denoiser_of(MAKER), denoiser_of(FILLER), canvas.whole, 2, Noise((3, 4)))


@pytest.mark.parametrize("canvas", CANVASES)
def test_a_part_of_a_canvas_has_the_planes_of_the_whole(canvas: Canvas) -> None:
    whole = made(canvas)(canvas.whole)
    starts = [(0, 0), (5, 7)] + ([(-3, -6), (29, 38)] if canvas.boundary[0] == "circular" else [])
    for top, left in starts:
        part = Region(top, left, 11, 9, canvas)
        assert torch.equal(made(canvas)(part), part.crop(whole, canvas.whole))


def test_planes_are_classes_colours_and_trust() -> None:
    planes = made(CANVASES[0])(CANVASES[0].whole)
    assert planes.shape == (2, 6, 33, 42)
    assert torch.equal(planes[:, :2].sum(dim=1), torch.ones(2, 33, 42))
    assert planes[:, 5].unique().tolist() == pytest.approx([0.8])


def test_colours_that_nobody_trusts_are_unknown() -> None:
    colours, noise = torch.randn(2, 2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    planes = coarse_planes(colours, noise, torch.tensor([0.0, 1.0]))
    assert planes[0].abs().max() == 0
    assert torch.equal(planes[1, :3], colours[1])


def test_between_small_pixels_the_class_of_the_larger_share_changes_halfway() -> None:
    canvas, small = Canvas(4, 16), Canvas(1, 4)
    shares = torch.tensor([[[[255, 255, 0, 0]], [[0, 0, 255, 255]]]], dtype=torch.uint8)
    planes = largest_shares(shares, small.whole, canvas.whole, 4)
    assert planes[0, 1].tolist() == 4 * [8 * [0.0] + 8 * [1.0]]


def test_a_corner_of_a_class_becomes_round() -> None:
    canvas, small = Canvas(16, 16), Canvas(2, 2)
    shares = torch.zeros(1, 2, 2, 2, dtype=torch.uint8)
    shares[0, 1, 0, 0], shares[0, 0] = 255, 255
    shares[0, 0, 0, 0] = 0
    corner = largest_shares(shares, small.whole, canvas.whole, 8)[0, 1]
    assert corner[7, 3] == 1 and corner[3, 7] == 1 and corner[7, 7] == 0 and corner[5, 5] == 1


@pytest.mark.parametrize("region", [Region(0, 0, 40, 48, Canvas(40, 48)), Region(5, 9, 7, 8, Canvas(40, 48))])
def test_a_region_of_an_image_with_a_map_is_the_crop_of_the_image(region: Region) -> None:
    filler, maker = denoiser_of(FILLER), denoiser_of(MAKER)
    whole = generate(filler, height=40, width=48, maker=maker)
    part = generate(filler, height=40, width=48, maker=maker, region=region)
    assert torch.equal(part, region.crop(whole, region.canvas.whole))


def test_known_classes_replace_the_planes_of_a_clean_map_and_nothing_else() -> None:
    region = Canvas(1, 3).whole
    x = torch.tensor([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6], [0.7, 0.8, 0.9]])[None, :, None]
    layout = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])[None, :, None]  # the last place is free
    known = KnownClasses(lambda _: layout, colours=1).impose(x, CLEAN, 0, region, Noise((0,)))
    expected = torch.tensor([[0.1, 0.2, 0.3], [1.0, -1.0, 0.6], [-1.0, 1.0, 0.9]])[None, :, None]
    assert torch.equal(known, expected)


def test_an_image_depends_on_its_map() -> None:
    filler = denoiser_of(FILLER)
    one, other = denoiser_of(MAKER), denoiser_of(MAKER)
    other.network.image.project.bias.data += 1.0
    made = [generate(filler, height=16, width=16, maker=each) for each in (one, other)]
    assert not torch.equal(*made)


@pytest.mark.parametrize(
    ("filler", "maker", "message"),
    [
        (PLAIN, MAKER, "maker: must be left out for a model that knows no coarse colours"),
        (FILLER, PLAIN, "maker: must be a model that makes maps"),
        (
            FILLER,
            with_fields(MAKER, {"layout.classes": ("a", "b")}),
            "makes maps of a, b: must be of",
        ),
    ],
)
def test_a_model_that_makes_other_maps_is_refused(filler: Config, maker: Config, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        generate(denoiser_of(filler), height=16, width=16, maker=denoiser_of(maker))


def test_a_seamless_image_needs_sides_that_the_map_divides() -> None:
    both = ("circular", "circular")
    with pytest.raises(ValueError, match=r"18x16 px: circular sides must be multiples of \d+ px"):
        generate(denoiser_of(FILLER), height=18, width=16, maker=denoiser_of(MAKER), boundary=both)


def test_the_size_that_a_seamless_image_is_told_to_have_fits_the_cells_of_its_map_too() -> None:
    maker, both = (
        denoiser_of(with_fields(MAKER, {"model.patch": 2, "model.channels": 48})),
        ("circular", "circular"),
    )
    with pytest.raises(ValueError, match="8x12 px: circular sides must be multiples of 8 px; .* 8x16$"):
        generate(denoiser_of(FILLER), height=8, width=12, maker=maker, boundary=both)
    assert generate(denoiser_of(FILLER), height=8, width=16, maker=maker, boundary=both).shape[-2:] == (8, 16)


def test_pixels_in_memory_are_those_of_their_part() -> None:
    canvas = Canvas(9, 9)
    part = Region(2, 3, 5, 4, canvas)
    pixels = torch.arange(20, dtype=torch.uint8).reshape(1, 1, 5, 4)
    assert Pixels(pixels, part)(replace(part, top=3, height=2)).tolist() == pixels[..., 1:3, :].tolist()


def test_of_equal_shares_the_smaller_number_counts() -> None:
    shares = torch.full((1, 3, 2, 2), 85, dtype=torch.uint8)
    assert largest_shares(shares, Canvas(2, 2).whole, Canvas(6, 6).whole, 3)[0, 0].min() == 1
