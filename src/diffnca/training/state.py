"""The folder of a run: its state, its log (for people only), and checks before a run goes on."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffnca.config.json import from_json, object_of, to_json
from diffnca.config.model import Config, TrainingConfig
from diffnca.errors import one_line
from diffnca.files import PARTIAL, check_place, replace_atomically
from diffnca.models.file import MODEL_FILE, STATE_FILE, read_config, read_header, read_tensors, write_tensors
from diffnca.training.averages import Averages, under
from diffnca.training.objectives import Player
from diffnca.training.transfer import fits

LOG_FILE = "log.jsonl"
SAMPLE_FOLDER = "samples"
TRACKER_FOLDER = "diffnca"


NETWORK_FIELDS = ("model", "prediction", "schedule")
"""Fields of a configuration on which the meaning of weights depends."""

FROM = ", from "
"""Stands in the fingerprint of a run before its first weights."""


@dataclass
class Progress:
    """Counters of a run, stored in its checkpoint."""

    step: int = 0
    images: int = 0
    seconds: float = 0.0
    """Training time, without the first step of a compiled network."""
    waiting_seconds: float = 0.0
    """Part of `seconds`: the wait for clean images."""
    loss: float = math.nan
    best_loss: float = math.inf

    def share(self, training: TrainingConfig) -> float:
        """Return the share of the budget that is spent, in [0, 1]."""
        done, total = self.budget(training)
        return min(done / total, 1.0)

    def budget(self, training: TrainingConfig) -> tuple[float, float]:
        """Return the spent part of the budget, and the budget; both in seconds or both in images."""
        if training.minutes is not None:
            return float(self.seconds), 60.0 * training.minutes
        return float(self.images), float(training.images)

    def __str__(self) -> str:
        return f"{self.images:,} images in {self.seconds / 60.0:.1f} minutes"


@dataclass(frozen=True)
class Run:
    """Facts in the state of a run; `data` is the fingerprint of images, first weights and teacher."""

    config: Config
    progress: Progress
    data: str
    processes: str | None
    """Number of processes in training; `None` in runs of former versions."""

    @property
    def start(self) -> str | None:
        """The model whose weights the run began with; `None` if it began from scratch."""
        return self.data.partition(FROM)[2] or None


def stored_run(out: Path) -> Run | None:
    """Return the run in a folder, `None` if there is none; raise `ValueError` if its state is damaged."""
    path = out / STATE_FILE
    if not path.is_file():
        return None
    header = read_header(path)
    missing = [name for name in ("config", "progress", "data") if name not in header]
    if missing:
        raise ValueError(f"{path}: has no `{missing[0]}`: must be the state of a run; give another --out")
    config, progress = from_json(header["config"], str(path)), _progress_of(header["progress"], path)
    return Run(config, progress, header["data"], header.get("processes"))


def _progress_of(text: str, path: Path) -> Progress:
    try:
        values = object_of(text, "progress")
        progress = Progress(**values)
        is_whole = all(type(values[name]) is int and values[name] >= 0 for name in ("step", "images"))
        is_number = all(type(value) in (int, float) for value in values.values())
        if not (is_whole and is_number and 0.0 <= values["seconds"] < math.inf):
            raise ValueError("a number is missing or impossible")
        return progress
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{path}: its progress is damaged ({one_line(error)}); give another --out") from None


def write_state(out: Path, players: Sequence[Player], averages: Averages, run: Run) -> None:
    """Replace the state of the run in `out`."""
    tensors = averages.tensors()
    for prefix, player in _prefixed(players):
        tensors |= {f"{prefix}network.{name}": w for name, w in player.module.state_dict().items()}
        for index, values in player.optimizer.state_dict()["state"].items():
            tensors |= {f"{prefix}adam.{index}.{name}": torch.as_tensor(v) for name, v in values.items()}
    header = {"config": to_json(run.config), "progress": json.dumps(asdict(run.progress)), "data": run.data}
    write_tensors(out / STATE_FILE, tensors, header | {"processes": str(run.processes)})


def restore(out: Path, players: Sequence[Player], averages: Averages) -> None:
    """Load the state of a run into players and averages; raise `ValueError` if it does not fit."""
    path = out / STATE_FILE
    tensors, _ = read_tensors(path)
    try:
        for prefix, player in _prefixed(players):
            player.module.load_state_dict(under(f"{prefix}network.", tensors))
            _restore_optimizer(player.optimizer, under(f"{prefix}adam.", tensors))
        averages.restore(tensors)
    except (RuntimeError, ValueError, KeyError) as error:
        raise ValueError(
            f"{path}: is not the state of such a run ({one_line(error)[:200]}); give another --out"
        ) from None


def _restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Load the state of an optimiser; tensors have names like `INDEX.NAME`, with the index of a parameter."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        number, _, key = name.partition(".")
        index = int(number)
        if index >= len(parameters) or value.shape not in (parameters[index].shape, ()):
            raise ValueError(f"adam.{name} has shape {tuple(value.shape)}")
        state.setdefault(index, {})[key] = value
    if not state:
        raise ValueError("nothing of the optimiser is there")
    for index, values in state.items():
        if values.keys() not in ({"step", "exp_avg", "exp_avg_sq"}, {"step", "momentum"}):
            raise ValueError(f"adam.{index} holds {', '.join(sorted(values))}")
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def _prefixed(players: Sequence[Player]) -> Iterator[tuple[str, Player]]:
    for number, player in enumerate(players):
        yield f"{player.name}." if number else "", player


def check_same_network(start: Path, wanted: Config, advice: str = "") -> None:
    """Raise `ValueError` if a model to fine-tune has another network, prediction, schedule or legend.

    A model without labels may learn some; one that knows nothing may learn everything. `advice` says what to
    do about another network; without it, which options to leave out.
    """
    stored = read_config(start)
    old, new = stored.layout, wanted.layout
    for option, kind, is_kept, told in (
        ("layouts", "classes", old.is_used, old.told),
        ("layout.coarse", "coarse", bool(old.classes), str(old.coarse)),
        ("labels", "labels", bool(old.labels), ", ".join(old.labels)),
    ):
        if is_kept and getattr(old, kind) != getattr(new, kind):
            fix = f"give --layout.{kind} {told}" if told else f"leave out --{option}, as it was trained"
            raise ValueError(f"--from {start}: has other {kind}; {fix}")
    if old.style and not new.style:
        raise ValueError(f"--from {start}: follows styles; give --layout.style, as it was trained")
    for name in NETWORK_FIELDS:
        is_fit = name == "model" and fits(stored, wanted)
        if getattr(stored, name) != getattr(wanted, name) and not is_fit:
            fix = advice or f"leave out --recipe and all --{name} options"
            raise ValueError(f"--from {start}: has another `{name}`; {fix}")


def check_same_run(out: Path, stored: Config, wanted: Config) -> None:
    """Raise `ValueError` if a run goes on with choices other than budget, cache, sampling."""
    free = ("images", "minutes", "late_batch")
    training = replace(stored.training, **{name: getattr(wanted.training, name) for name in free})
    data = replace(stored.data, cache_bytes=wanted.data.cache_bytes)
    stored = replace(stored, training=training, data=data, sampling=wanted.sampling)
    old, new = _flat(asdict(stored)), _flat(asdict(wanted))
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            raise ValueError(
                f"{out}: began with {name}={old.get(name)}, not {new.get(name)}; "
                "repeat the command it began with, or give another --out"
            )


def check_goes_on(out: Path, stored: Run, wanted: Run) -> None:
    """Raise `ValueError` if configuration, data or number of processes differ from the stored run."""
    check_same_run(out, stored.config, wanted.config)
    if stored.data != wanted.data:
        raise ValueError(f"{out}: began with other images, weights or another teacher; give a new --out")
    if stored.processes not in (None, wanted.processes):  # the images of each step would change
        raise ValueError(
            f"{out}: began on {stored.processes} processes, not {wanted.processes}; take as many, or begin a "
            "new run --from it"
        )


def with_spent_budget(config: Config, stored: Run) -> Config:
    """Return the configuration of a run that goes on; a finished run keeps its budget if it needs no more."""
    spent, asked = stored.config.training, config.training
    if min(stored.progress.share(spent), stored.progress.share(asked)) < 1.0:
        return config
    return replace(config, training=replace(asked, minutes=spent.minutes, images=spent.images))


def check_folder(out: Path) -> None:
    """Raise `ValueError` if the parent of a folder is missing or the folder holds files of no run."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out}: is a file; give a folder")
    check_place(out)
    if out.is_dir() and not (out / STATE_FILE).exists():
        known = {LOG_FILE, SAMPLE_FOLDER, TRACKER_FOLDER, ".lock"}  # former versions left their lock
        other = {path.name for path in out.iterdir() if not is_leftover(path)} - known
        if other:
            raise ValueError(
                f"--out {out}: holds other files ({min(other)}); give a new folder or that of a run"
            )


def is_leftover(path: Path) -> bool:
    """Return whether a killed run of this or a former version left this partial file."""
    stored = path.name.removeprefix(".").startswith((STATE_FILE, MODEL_FILE, LOG_FILE))
    return stored and path.suffix in (".partial", PARTIAL)


def remove_leftovers(out: Path) -> None:
    """Remove the partial files of killed runs."""
    for path in filter(is_leftover, out.iterdir()):
        path.unlink(missing_ok=True)


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def log(out: Path, values: Mapping[str, int | float]) -> None:
    """Append one line to the log."""
    path = out / LOG_FILE
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")
    except OSError as error:
        raise OSError(
            f"{path}: cannot be written ({error.strerror}); free some space and repeat the command"
        ) from None


def trim_log(out: Path, last_step: int) -> None:
    """Drop damaged lines of the log, and lines of later steps: training takes these steps again."""
    path = out / LOG_FILE
    if not path.is_file():
        return
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    kept = [line for line in lines if 0 <= _step_of(line) <= last_step]
    with replace_atomically(path) as partial:
        partial.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")


def _step_of(line: str) -> int:
    try:
        step = object_of(line, LOG_FILE).get("step")
    except ValueError:
        return -1
    return step if type(step) is int else -1
