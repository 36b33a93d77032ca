"""Films of sampling: the noisy image, and beside it the estimate after each cell step."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from diffnca.canvas.pixels import to_uint8
from diffnca.diffusion.denoiser import Denoiser, ImageDenoiser, Query
from diffnca.engine import Engine
from diffnca.formats.png import contact_sheet
from diffnca.networks.automaton import Automaton
from diffnca.sampling.guidance import AroundDenoiser, prepare

MOST_FRAMES = 120
"""Approximate limit of the frames of a film; more cell steps are thinned out."""

Frame = UInt8[np.ndarray, "y x c"]


@dataclass(frozen=True)
class Filmed(AroundDenoiser):
    """A denoiser that films its work: the cells of the model as trained, in some of all its `calls`."""

    denoiser: ImageDenoiser
    calls: int
    cells: ImageDenoiser | None = None
    shown: list[Frame] = field(default_factory=list)

    def prepare(self, device: torch.device, engine: Engine) -> "Filmed":
        """Return a film of the prepared denoiser; both films share the frames."""
        trained = self.denoiser
        cells = trained.to(device) if isinstance(trained, Denoiser) else None
        return Filmed(prepare(trained, device, engine), self.calls, cells, self.shown)

    def estimate(self, query: Query) -> Float[Tensor, "b n h w"]:
        """Return the estimate of the clean image, and film its cell steps."""
        estimate, colours = self.denoiser.estimate(query), self.config.model.image_channels
        growing = [*watched(self.cells, query)[:-1], estimate]  # the last may be guided, or of a pyramid
        stride = -(-self.calls * len(growing) // MOST_FRAMES)
        for shown in growing[::-1][::stride][::-1]:  # always keeps the last
            both = to_uint8(torch.cat([query.x_t[:1, :colours], shown[:1, :colours]]))
            self.shown.append(contact_sheet(both, columns=2, gap_px=max(2, query.x_t.shape[-1] // 32)))
        return estimate

    def frames(self) -> Iterator[Frame]:
        """Yield the frames, all in the size of the last frame, with pixels as rectangles."""
        height, width = self.shown[-1].shape[:2]
        for frame in self.shown:
            rows = np.arange(height) * frame.shape[0] // height
            columns = np.arange(width) * frame.shape[1] // width
            yield frame[rows[:, None], columns]


def watched(denoiser: ImageDenoiser | None, query: Query) -> list[Tensor]:
    """Return the estimate after each cell step of the image stage; empty for a model without cells.

    The query covers its canvas, so the network makes its own context.
    """
    if not isinstance(denoiser, Denoiser) or not isinstance(denoiser.network, Automaton):
        return []
    outputs: list[Tensor] = []
    asked = (query.x_t, denoiser.times(query), query.region, query.cell_noise)
    planes = denoiser.planes(query.x_t, query.given)
    denoiser.network(*asked, **planes, observe=outputs.append)
    return [denoiser.clean(output.float(), query) for output in outputs]
