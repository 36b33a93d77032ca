"""Commands that edit given images: fill, grow, enlarge, vary."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from diffnca.cli import console
from diffnca.cli.images import Making, make
from diffnca.errors import Interrupted
from diffnca.progress import part_of

if TYPE_CHECKING:
    from diffnca.data.given import Given
    from diffnca.jobs.request import Request
    from diffnca.jobs.tasks import Edit, Method


@dataclass(frozen=True, kw_only=True)
class Editing(Making):
    """Options of all commands that edit given images.

    Attributes:
        image: the image, 8 bits, gray or colour, or a folder of images. The command keeps these files.
        layout: what stands where, as for sample, in the proportions of the whole result; for a folder, one
            layout, or a folder of label images with equal names.
        label: what the result shows, as for sample.
        like: a picture whose colours and texture the result has, as for sample; without it, those of the
            image, where it is known.
        obey: how closely to follow layout and label, as for sample.
    """

    image: Path
    layout: Path | None = None
    label: str | None = None
    like: Path | None = None
    obey: float = 1.0

    @abstractmethod
    def _edit(self, given: Given) -> Edit: ...

    def _task(self, given: Given) -> Edit:
        from diffnca.jobs.request import SEAMLESS, canvas_of_edit
        from diffnca.models.file import find_model, read_config
        from diffnca.sampling.layouts import read_layout
        from diffnca.sampling.styles import read_style

        task, layout, config = self._edit(given), None, read_config(find_model(self.model))
        if self.layout is not None:
            canvas = canvas_of_edit(task, SEAMLESS[self.choices.seamless])
            size = (canvas.height, canvas.width)
            layout = read_layout(self._layout_of(given.path, self.layout), config, size)
        like = None if self.like is None else read_style(self.like, config)
        return replace(task, layout=layout, label=self.label, like=like, obey=self.obey)

    def _reads(self, image: Path) -> list[Path]:
        """Return the files that the edit of an image reads."""
        layouts = [] if self.layout is None else [self._layout_of(image, self.layout)]
        return [image, *layouts, *([] if self.like is None else [self.like])]

    def _layout_of(self, image: Path, layouts: Path) -> Path:
        from diffnca.data.given import companion_of

        return companion_of(image, layouts, "layout")

    def _request(self, image: Path) -> Request:
        from diffnca.data.given import read_image
        from diffnca.jobs.request import asked
        from diffnca.models.file import find_model, read_config

        given = read_image(image, read_config(find_model(self.model)).model.image_channels)
        compression = self.output.compression_of(self.place.out)
        return asked(self.model, self._task(given), self.choices, compression=compression)

    def run(self) -> int:
        """Edit an image, or all images of a folder; return the exit code."""
        from diffnca.jobs.target import check_kept

        if self.image.is_dir():
            return self._run_folder()
        request = self._request(self.image)
        check_kept(self._reads(self.image), [self.place], request.count)
        return make(request, self.place, self.output.dry_run)

    def _run_folder(self) -> int:
        from diffnca.jobs.plan import check
        from diffnca.jobs.target import check_kept, places_in

        if self.place.film is not None or self.output.dry_run:
            raise ValueError("--film and --dry-run: must be of a single --image")
        places = places_in(self.place, self.image)
        for image, place in places.items():  # before the first file is written
            check(self._request(image), place)
        check_kept(
            [path for image in places for path in self._reads(image)], places.values(), self.choices.count
        )
        Path(self.place.out).mkdir(exist_ok=True)
        with console.progress() as progress:
            for done, (image, place) in enumerate(places.items()):
                try:
                    report = part_of(progress, "images", done, 1, len(places))
                    make(self._request(image), place, report=report)
                except KeyboardInterrupt:
                    raise Interrupted(f"stopped after {done} of {len(places)} images", "goes on") from None
        return 0


@dataclass(frozen=True, kw_only=True)
class Completing(Editing):
    """Options of all edits that keep known pixels.

    Attributes:
        method: repaint adds noise to known pixels as the walk does to the image, and repeats parts of the
            walk; paste inserts known pixels without noise, as published.
        jump: diffusion steps in a part of the walk that repaint repeats; by default 5.
        rounds: how often repaint walks each part; the time grows by this factor; by default 4.
    """

    method: Literal["repaint", "paste"] = "repaint"
    jump: int | None = None
    rounds: int | None = None

    def _imposing(self) -> Method:
        from diffnca.jobs.tasks import Paste, Repaint
        from diffnca.sampling.inpaint import JUMP, ROUNDS

        asked = {"jump": self.jump, "rounds": self.rounds}
        given = {name: value for name, value in asked.items() if value is not None}
        if self.method == "repaint":
            return Repaint(given.get("jump", JUMP), given.get("rounds", ROUNDS))
        for name, value in given.items():
            raise ValueError(f"{name}={value}: must be left out for --method paste, which repeats nothing")
        return Paste()


@dataclass(frozen=True, kw_only=True)
class Inpaint(Completing):
    """Fill holes of an image; all other pixels stay as they are.

    The command always fills pixels that are not opaque; --mask and --box add more pixels.

    Attributes:
        mask: an image of equal size, white where to fill; for a folder, one mask, or a folder of masks with
            equal names.
        box: fill this box, TOP,LEFT,HEIGHT,WIDTH in pixels (commas or spaces between the numbers).
    """

    verb: ClassVar = "inpaint"

    mask: Path | None = None
    box: tuple[int, int, int, int] | None = None

    def _edit(self, given: Given) -> Edit:
        from diffnca.jobs import tasks

        return tasks.Inpaint(given, tasks.holes_of(given, self.mask, self.box), self._imposing())

    def _reads(self, image: Path) -> list[Path]:
        from diffnca.data.given import companion_of

        reads = super()._reads(image)
        return reads if self.mask is None else [*reads, companion_of(image, self.mask, "mask")]


@dataclass(frozen=True, kw_only=True)
class Extend(Completing):
    """Grow an image at its sides; its own pixels stay as they are. With --seamless, it repeats without seams.

    Attributes:
        top: pixels to add above.
        bottom: pixels to add below.
        left: pixels to add on the left.
        right: pixels to add on the right.
    """

    verb: ClassVar = "extend"

    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0

    def _edit(self, given: Given) -> Edit:
        from diffnca.jobs import tasks

        return tasks.Extend(given, self.top, self.bottom, self.left, self.right, self._imposing())


@dataclass(frozen=True, kw_only=True)
class Upscale(Editing):
    """Make an image larger; the model adds detail.

    Attributes:
        factor: how many times as high and wide, above 1 and at most 8.
        method: consistent keeps the mean of each block equal to the given image; noise is the published
            method, which keeps no mean.
        strength: where the walk starts; 1 is pure noise, values near 0 change only fine detail; without it,
            0.7 for consistent and 0.1 for noise.
    """

    verb: ClassVar = "upscale"

    factor: float = 2.0
    method: Literal["consistent", "noise"] = "consistent"
    strength: float | None = None

    def _edit(self, given: Given) -> Edit:
        from diffnca.jobs import tasks

        return tasks.Upscale(given, self.factor, self.method, self.strength)


@dataclass(frozen=True, kw_only=True)
class Vary(Editing):
    """Make variations of an image: add some noise to the image, then denoise it.

    Attributes:
        strength: where the walk starts; values near 0 change little, 1 is pure noise.
    """

    verb: ClassVar = "vary"

    strength: float = 0.5

    def _edit(self, given: Given) -> Edit:
        from diffnca.jobs import tasks

        return tasks.Vary(given, self.strength)
