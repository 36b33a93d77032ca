"""Commands that measure: one model, all models of a table, the speed."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro

from diffnca.cli.console import Console
from diffnca.evaluation.options import Options
from diffnca.files import check_target, replace_atomically


@dataclass(frozen=True)
class Evaluate:
    """Measure a model, or a folder of generated images, against real images.

    Attributes:
        model: a bundled model, a model file, a run's folder, a hub id, or a folder of images.
        options: what is compared with what.
        out: write all numbers to this file, as JSON.
        json: print JSON, for machines.
    """

    verb: ClassVar = "evaluate"

    model: tyro.conf.Positional[str]
    options: Annotated[Options, tyro.conf.arg(name="")]
    out: Path | None = None
    json: bool = False

    def run(self, console: Console) -> int:
        """Measure; return the exit code."""
        from diffnca.evaluation.protocol import measure
        from diffnca.evaluation.table import as_table

        if self.out is not None:
            check_target(self.out)
        with console.progress() as progress:
            measured = measure(self.model, self.options, progress)
        for place, files in measured.skipped.items():
            for name, why in files:
                console.note(f"left out {name} ({place}): {why}")
        facts = json.dumps(asdict(measured.evaluation), indent=1)
        if self.out is not None:
            with replace_atomically(self.out) as partial:
                partial.write_text(facts + "\n", encoding="utf-8")
        console.say(facts if self.json else as_table(measured.evaluation))
        return 0


@dataclass(frozen=True)
class Reproduce:
    """Train all models of a table on your images, on equal terms, and measure them; the same command goes on.

    A larger budget later trains the same models on.

    Attributes:
        table: faces64 and pathology compare networks, ablation takes single choices back, stages changes the
            Fourier stage and the cell steps, textures the cells of diff_nca.
        data: folders (searched recursively), zip files, images or whole slides.
        out: folder of the table: results.json, table.md, a picture of each row.
        minutes: training time of each row.
        images: training images of each row, instead of --minutes.
        rows: train only these; others that are finished stay in the table.
        reduce: make images smaller by this whole factor; faces64 becomes 32x32 with 2.
        microns_per_px: scale at which slides are read, for pathology and textures.
        n: generated images of each row to measure.
        sampler: of all denoisers.
        steps: diffusion steps of all denoisers.
        seeds: trainings of each row, with different seeds.
        features: the network that looks at the images.
        weights: local file of the weights of inception.
        device: where to sample; auto takes a GPU where there is one. Training takes all GPUs there are.
    """

    verb: ClassVar = "reproduce"

    table: tyro.conf.Positional[Literal["faces64", "pathology", "ablation", "stages", "textures"]]
    out: Path
    data: tuple[Path, ...] = ()
    minutes: float | None = None
    images: int | None = None
    rows: tuple[str, ...] = ()
    reduce: int = 1
    microns_per_px: float | None = None
    n: int = 2048
    sampler: Literal["ddpm", "ddim", "dpmpp2m"] = "dpmpp2m"
    steps: int = 20
    seeds: int = 1
    features: Literal["efficientnet_lite0", "inception"] = "efficientnet_lite0"
    weights: Path | None = None
    device: str = "auto"

    def run(self, console: Console) -> int:
        """Train and measure the rows; return the exit code."""
        from diffnca.comparison.run import run

        return run(self)


@dataclass(frozen=True)
class Bench:
    """Time a model here: a call and a training step, next to the matrix products they cannot do without.

    Attributes:
        name: a recipe, a bundled model, a model file, a run's folder, or a hub id.
        height: of the images in pixels.
        width: of the images in pixels.
        batch: images in a call of the denoiser, and crops in a training step; without it, 8 and the recipe's
            own number.
        rounds: how often each is timed; the medians are shown.
        training: time a training step too, on the recipe's own crops.
        compiled: time the compiled network too, as training runs it; compiling takes a minute.
        against: other models, timed in the same turns: unet_4m, unet_17m, or any model of cells.
        device: where to compute; auto takes a GPU where there is one.
        json: print JSON, for machines.
    """

    verb: ClassVar = "bench"

    name: tyro.conf.Positional[str] = "diff_nca"
    height: int = 64
    width: int = 64
    batch: int | None = None
    rounds: int = 5
    training: bool = False
    compiled: bool = False
    against: tuple[str, ...] = ()
    device: str = "auto"
    json: bool = False

    def run(self, console: Console) -> int:
        """Time the model; return the exit code."""
        from diffnca.benchmark.timing import as_json, as_table
        from diffnca.benchmark.works import bench

        found = bench(
            self.name,
            (self.height, self.width),
            self.batch,
            self.rounds,
            against=self.against,
            is_training=self.training,
            is_compiled=self.compiled,
            device=self.device,
        )
        console.say((as_json if self.json else as_table)(found.facts, found.timings))
        return 0
