"""Commands that measure a model, all models of a table, or speed."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro

from diffnca.cli.console import Console
from diffnca.comparison.terms import Terms
from diffnca.evaluation.options import Options
from diffnca.files import check_target, replace_atomically


@dataclass(frozen=True)
class Evaluate:
    """Measure a model, or a folder of generated images, against real images.

    Attributes:
        model: a bundled model, a model file, a run's folder, a hub id, or a folder of images.
        options: images and terms of the comparison.
        out: write all numbers to this JSON file.
        json: print JSON, for programs.
    """

    verb: ClassVar = "evaluate"

    model: tyro.conf.Positional[str]
    options: Annotated[Options, tyro.conf.arg(name="")]
    out: Path | None = None
    json: bool = False

    def run(self, console: Console) -> int:
        """Measure; return the exit code."""
        from diffnca.evaluation.protocol import measure
        from diffnca.evaluation.scores import as_table

        if self.out is not None:
            check_target(self.out)
        with console.progress() as progress:
            evaluation, skipped = measure(self.model, self.options, progress)
        for place, files in skipped.items():
            for name, why in files:
                console.note(f"left out {name} ({place}): {why}")
        facts = json.dumps(asdict(evaluation), indent=1)
        if self.out is not None:
            with replace_atomically(self.out) as partial:
                partial.write_text(facts + "\n", encoding="utf-8")
        console.say(facts if self.json else as_table(evaluation))
        return 0


@dataclass(frozen=True)
class Reproduce:
    """Train all models of a table on your images, on equal terms, and measure them.

    Repeat the command to continue a stopped run, or with a larger budget to train these models further.

    Attributes:
        table: faces64 and pathology compare networks; ablation reverts single choices; stages varies the
            Fourier stage and the cell steps; textures varies the cells of diff_nca.
        terms: common terms of all rows.
    """

    verb: ClassVar = "reproduce"

    table: tyro.conf.Positional[Literal["faces64", "pathology", "ablation", "stages", "textures"]]
    terms: Annotated[Terms, tyro.conf.arg(name="")]

    def run(self, console: Console) -> int:
        """Train and measure the rows; return the exit code: 2 if a row has failed."""
        from diffnca.comparison.report import brief
        from diffnca.comparison.reproduction import reproduce

        num_results, has_failed = 0, False
        with console.progress() as progress:
            for report in reproduce(self.table, self.terms, progress):
                for result in report.results[num_results:]:
                    console.say(brief(result))
                num_results, has_failed = len(report.results), bool(report.failed)
        console.say(str(self.terms.out / "table.md"))
        return 2 if has_failed else 0


@dataclass(frozen=True)
class Bench:
    """Time a call and a training step of a model, next to the time of their matrix products alone.

    Attributes:
        name: a recipe, a bundled model, a model file, a run's folder, or a hub id.
        height: height of the images in pixels.
        width: width of the images in pixels.
        batch: images in a call of the denoiser, and crops in a training step; without it, 8 images and the
            crops of the recipe.
        rounds: number of measurements; the command shows medians.
        training: also time a training step, on crops of the recipe.
        compiled: also time the compiled network, as in training; compiling takes a minute.
        against: other models to time in turn with this model: unet_4m, unet_17m, or any model of cells.
        device: where to compute; auto takes a GPU where there is one.
        json: print JSON, for programs.
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

        facts, timings = bench(
            self.name,
            (self.height, self.width),
            self.batch,
            self.rounds,
            against=self.against,
            is_training=self.training,
            is_compiled=self.compiled,
            device=self.device,
        )
        console.say((as_json if self.json else as_table)(facts, timings))
        return 0
