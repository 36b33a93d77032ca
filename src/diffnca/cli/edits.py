"""Commands that edit given images: fill, grow, enlarge, vary."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from diffnca.cli.console import Console
from diffnca.cli.images import Making


@dataclass(frozen=True, kw_only=True)
class Editing(Making):
    """What all editing of given images has in common.

    Attributes:
        image: the image, 8 bits, gray or colour; or a folder, all images of which are edited. It is kept.
        out: the file: .png, or of any size .ome.zarr or .ome.tif; for a folder, another folder. With --count
            above 1, a number is added to its name. A stopped folder or large image goes on with the same
            command.
        count: how many results of each image.
        seamless: axes along which the result continues at the opposite edge.
    """

    image: Path
    out: str
    count: int = 1
    seamless: Literal["none", "x", "y", "both"] = "none"


@dataclass(frozen=True, kw_only=True)
class Inpaint(Editing):
    """Fill holes of an image; all other pixels stay as they are.

    All that is not opaque is filled, with what --mask or --box says or without them.

    Attributes:
        mask: an image of the same size, white where to fill; for a folder, a folder with masks of the same
            names, or one mask for all.
        box: fill this box, TOP,LEFT,HEIGHT,WIDTH in pixels (or with spaces between them).
        method: repaint noises what is known as the image and walks each part of the way --rounds times; paste
            puts it in as it is, as published.
        jump: diffusion steps of a part of the way.
        rounds: how often repaint walks each part; it takes so many times as long.
    """

    verb: ClassVar = "inpaint"

    mask: Path | None = None
    box: tuple[int, int, int, int] | None = None
    method: Literal["repaint", "paste"] = "repaint"
    jump: int = 5
    rounds: int = 4

    def run(self, console: Console) -> int:
        """Edit the images; return the exit code."""
        from diffnca.jobs.edit import edit

        return edit(self)


@dataclass(frozen=True, kw_only=True)
class Extend(Editing):
    """Grow an image at its sides; its own pixels stay as they are. With --seamless it becomes a tile.

    Attributes:
        top: pixels to add above.
        bottom: pixels to add below.
        left: pixels to add on the left.
        right: pixels to add on the right.
        method: as for inpaint.
        jump: as for inpaint.
        rounds: as for inpaint.
    """

    verb: ClassVar = "extend"

    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0
    method: Literal["repaint", "paste"] = "repaint"
    jump: int = 5
    rounds: int = 4

    def run(self, console: Console) -> int:
        """Edit the images; return the exit code."""
        from diffnca.jobs.edit import edit

        return edit(self)


@dataclass(frozen=True, kw_only=True)
class Upscale(Editing):
    """Make an image larger, with detail that the model knows.

    Attributes:
        factor: how many times as high and wide, above 1 and at most 8.
        method: consistent keeps the mean of every block as the image says; noise is the published method,
            which keeps nothing.
        strength: where the walk starts: 1 is pure noise, near 0 only fine detail is new. Without it, 0.7 for
            consistent and 0.1 for noise.
    """

    verb: ClassVar = "upscale"

    factor: float = 2.0
    method: Literal["consistent", "noise"] = "consistent"
    strength: float | None = None

    def run(self, console: Console) -> int:
        """Edit the images; return the exit code."""
        from diffnca.jobs.edit import edit

        return edit(self)


@dataclass(frozen=True, kw_only=True)
class Vary(Editing):
    """Make images that are like a given one: noised in part and denoised.

    Attributes:
        strength: where the walk starts: near 0 little is changed, 1 is pure noise.
    """

    verb: ClassVar = "vary"

    strength: float = 0.5

    def run(self, console: Console) -> int:
        """Edit the images; return the exit code."""
        from diffnca.jobs.edit import edit

        return edit(self)


Edit = Inpaint | Extend | Upscale | Vary
"""Any of them."""
