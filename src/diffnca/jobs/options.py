"""What can be chosen for an image: how it is sampled, and where it is made."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from diffnca.config.model import Engine, SamplerName
from diffnca.errors import require
from diffnca.files import local

Seamless = Literal["none", "x", "y", "both"]


@dataclass(frozen=True, kw_only=True)
class Choices:
    """How images are sampled; `None` leaves a choice to the model.

    Attributes:
        seed: of the first image; image i has seed + i.
        count: how many images, or how many results of each given image.
        seamless: axes along which the image continues at the opposite edge.
        sampler: ddpm, ddim or dpmpp2m; without it, the model's own choice.
        steps: diffusion steps from pure noise on; without it, the model's own choice.
        guidance: how far the model is led away from the errors of a weaker one, from 1 (not at all) to 10;
            without it, the model's own choice, or 2 with --guide.
        guide: the weaker model, of the same images; without it, the model without its last cell steps.
        windows: side of overlapping windows, for models that must see a whole image: blends their estimates.
        engine: auto runs the network as is fast and exact on the device, eager as it was trained.
    """

    seed: int = 0
    count: int = 1
    seamless: Seamless = "none"
    sampler: SamplerName | None = None
    steps: int | None = None
    guidance: float | None = None
    guide: str | None = None
    windows: int | None = None
    engine: Engine = "auto"


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where an image is made and kept. No choice here changes the image.

    Attributes:
        out: the file: .png, or of any size .ome.zarr (also an address of fsspec) or .ome.tif; for a folder of
            given images, another folder. With --count above 1, a number is added to its name. A stopped
            command goes on if you give it again.
        film: write a film (.gif, .webp, .png or .mp4) of a small image in the making: left the noisy image,
            right the estimate of the clean one as it grows from cell step to cell step.
        save_layout: also write the map of the image (.png): its pixels are the numbers of the classes.
        device: where to compute; auto takes a GPU where there is one.
        batch: how many images at once; changes speed and memory, not the images.
        tile: side of the tiles of a large image in pixels; changes speed and memory, not the image.
        workers: processes that make the tiles of a large image, sharing the cores.
        scheduler: address of a Dask cluster whose workers make the tiles instead (tcp://...).
    """

    out: str
    film: Path | None = None
    save_layout: Path | None = None
    device: str = "auto"
    batch: int = 1
    tile: int | None = None
    workers: int = 1
    scheduler: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "out", local(self.out).rstrip("/"))
        require(self.batch >= 1, "batch", self.batch, ">= 1")
        require(self.workers >= 1, "workers", self.workers, ">= 1")
