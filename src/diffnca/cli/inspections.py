"""Commands that look at an image or a model: check, view, describe, measure, compare, time."""

import contextlib
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import tyro

from diffnca.cli import console
from diffnca.comparison.tables import Terms
from diffnca.config.recipes import RECIPES, recipe_named
from diffnca.evaluation.options import Options
from diffnca.files import check_target, local, replace_atomically

MOST_PROBLEMS = 10
"""Largest number of problems in the message for a damaged image."""

MOST_LISTED, FEW = 20, 3
"""Longest list that is shown as it is, and how much is shown of a longer one."""


@dataclass(frozen=True)
class Verify:
    """Check a finished OME-Zarr image: shapes, checksums, missing files.

    Attributes:
        image: the folder of the image, or an address of fsspec.
    """

    verb: ClassVar = "verify"

    image: tyro.conf.Positional[str]

    def run(self) -> int:
        """Check the image; return the exit code."""
        from diffnca.formats.ome_zarr import verify

        with console.progress() as progress:
            problems = verify(local(self.image), lambda done, total: progress("verify", done, total))
        if problems:
            more = f"; and {len(problems) - MOST_PROBLEMS} more" if len(problems) > MOST_PROBLEMS else ""
            raise ValueError(f"{self.image}: {'; '.join(problems[:MOST_PROBLEMS])}{more}")
        console.say(f"{self.image}: complete")
        return 0


@dataclass(frozen=True)
class View:
    """View an image of any size in the browser.

    Attributes:
        image: an OME-Zarr image, a slide, or a picture (TIFF, PNG, JPEG).
        port: port of the local address; 0 takes a free port.
        no_open: print the address, but do not open the browser.
    """

    verb: ClassVar = "view"

    image: tyro.conf.Positional[str]
    port: int = 0
    no_open: bool = False

    def run(self) -> int:
        """Serve the image; return the exit code."""
        from diffnca.view.server import serve

        serve(self.image, self.port, not self.no_open, console.say)
        return 0


@dataclass(frozen=True)
class Info:
    """Describe a recipe or a model; without a name, this installation.

    Attributes:
        name: a recipe, a bundled model, a model file, a run's folder, or a hub id.
        json: print JSON, for programs.
    """

    verb: ClassVar = "info"

    name: tyro.conf.Positional[str | None] = None
    json: bool = False

    def run(self) -> int:
        """Print the facts; return the exit code."""
        facts = installation() if self.name is None else facts_of(self.name)
        console.say(json.dumps(facts, indent=1, sort_keys=True) if self.json else as_text(facts))
        return 0


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

    def run(self) -> int:
        """Measure; return the exit code."""
        from diffnca.evaluation.protocol import measure
        from diffnca.evaluation.scores import as_table

        if self.out is not None:
            check_target(self.out, (".json",))
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

    def run(self) -> int:
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
    """Time a call of a model: in the engine, eager, compiled, its matrix products alone, and a UNet.

    It takes about a minute, most of it to compile.

    Attributes:
        name: a recipe, a bundled model, a model file, a run's folder, or a hub id.
        height: height of the images in pixels.
        width: width of the images in pixels.
        batch: images in a call of the denoiser, and crops in a training step; without it, 8 images and the
            crops of the recipe.
        rounds: number of measurements; the command shows medians.
        training: also time a training step, on crops of the recipe.
        compiled: time what `torch.compile` makes of calls and steps too; it compiles for two minutes at most.
        against: other models to time in turn with this model: unet_4m, unet_17m, or any model of cells; none
            without a name.
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
    compiled: bool = True
    against: tuple[str, ...] = ("unet_4m",)
    device: str = "auto"
    json: bool = False

    def run(self) -> int:
        """Time the model; return the exit code."""
        from diffnca.benchmark.timing import as_json, as_table
        from diffnca.benchmark.works import bench

        with console.progress() as progress:
            measured = bench(
                self.name,
                (self.height, self.width),
                self.batch,
                self.rounds,
                against=self.against,
                is_training=self.training,
                is_compiled=self.compiled,
                device=self.device,
                report=progress,
            )
        console.say((as_json if self.json else as_table)(measured))
        return 0


def as_text(facts: Mapping[str, Any], depth: int = 0) -> str:
    """Return facts as lines; facts of a group stand indented below its name."""
    lines = []
    for key, value in facts.items():
        name = f"{'  ' * depth}{key.replace('_', ' ') if depth == 0 else key}:"
        if isinstance(value, Mapping) and value:
            lines += [name, as_text(value, depth + 1)]
        elif isinstance(value, list | tuple) and any(isinstance(each, Mapping) for each in value):
            lines += [name, *(f"{'  ' * (depth + 1)}{in_one_line(each)}" for each in value)]
        elif isinstance(value, list | tuple):
            lines.append(f"{name} {listed(value)}")
        else:
            lines.append(f"{name} {value:,}" if type(value) is int else f"{name} {value}")
    return "\n".join(lines)


def in_one_line(facts: Mapping[str, Any]) -> str:
    """Return a group of facts as a line, which begins with those in words."""
    in_words_first = sorted(facts.items(), key=lambda fact: not isinstance(fact[1], str))
    return ", ".join(f"{key} {value}" for key, value in in_words_first)


def listed(values: Sequence[Any]) -> str:
    """Return values with commas between them; of a long list, the first ones and the number of the others."""
    if len(values) <= MOST_LISTED:
        return ", ".join(map(str, values))
    return f"{', '.join(map(str, values[:FEW]))} and {len(values) - FEW:,} more (--json has all)"


def installation() -> dict[str, Any]:
    """Return versions, recipes and bundled models."""
    from diffnca.models.file import bundled_models

    versions = {"python": platform.python_version()}
    for package in ("diffnca", "torch", "accelerate", "safetensors", "numpy", "pillow", "tiffslide"):
        with contextlib.suppress(PackageNotFoundError):
            versions[package] = version(package)
    return {"versions": versions, "recipes": list(RECIPES), "models": list(bundled_models())}


def facts_of(name: str) -> dict[str, Any]:
    """Return facts about a recipe or a model; if both have the name, about the recipe."""
    from diffnca.models.build import build_network
    from diffnca.models.file import find_model, read_card, read_config

    if name in RECIPES:
        config, card = recipe_named(name), {}
    else:
        path = find_model(name)
        config, card = read_config(path), read_card(path)
    network = build_network(config.model)
    facts = {"name": name, "recipe": config.name, "parameters": sum(p.numel() for p in network.parameters())}
    radius = "the whole image" if network.radius is None else network.radius
    facts |= {"radius_px": radius, **card}
    fields = asdict(config)
    if not config.layout.is_used:
        del fields["layout"]
    if config.layout.classes:
        facts["legend"] = {str(number): text for number, text in enumerate(config.layout.classes)}
    if config.layout.labels:
        facts["labels"] = list(config.layout.labels)
    if config.layout.style:
        facts["style"] = list(config.layout.style_numbers(config.model.image_channels))
        del fields["layout"]["styles"]
    return {**facts, "config": fields}
