"""Which configuration may go on with which run, or start from which model."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from diffnca.config.model import Config
from diffnca.models.file import read_config


def check_same_network(start: Path, wanted: Config) -> None:
    """Refuse to fine-tune a model as something that it is not.

    Raises:
        ValueError: network, prediction or schedule differ.
    """
    stored = read_config(start)
    for name in ("model", "prediction", "schedule"):
        if getattr(stored, name) != getattr(wanted, name):
            raise ValueError(
                f"--from {start}: has another `{name}`; leave out --recipe and all --{name} options"
            )


def check_same_run(out: Path, stored: Config, wanted: Config) -> None:
    """Refuse to go on with a run under another configuration.

    Only what changes none of its numbers may differ: the budget, the cache, the sampling.

    Raises:
        ValueError: a field differs.
    """
    budget = {"images": wanted.training.images, "minutes": wanted.training.minutes}
    training = replace(stored.training, **budget)  # type: ignore[arg-type]
    data = replace(stored.data, cache_bytes=wanted.data.cache_bytes)
    stored = replace(stored, training=training, data=data, sampling=wanted.sampling)
    old, new = _fields(asdict(stored)), _fields(asdict(wanted))
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            raise ValueError(
                f"{out}: began with {name}={old.get(name)}, not {new.get(name)}; "
                "repeat the command it began with, or give another --out"
            )


def check_same_processes(out: Path, stored: str | None, now: int) -> None:
    """Refuse to go on with a run on another number of processes: batch and images of a step would be others.

    Raises:
        ValueError: it began on another number; `None` is that of a run which did not note it.
    """
    if stored not in (None, str(now)):
        raise ValueError(
            f"{out}: began on {stored} processes, not {now}; take as many, or begin a new run --from it"
        )


def _fields(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested fields as one level of dotted names."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _fields(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat
