"""Who does the cell steps of a training: native code, code that torch compiles, or torch as it is."""

import warnings
from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn

from diffnca.config.model import TrainingConfig
from diffnca.engine.learning import learn_natively
from diffnca.engine.machine import fast_dtype, has_compiler


def precision_of(training: TrainingConfig, device: torch.device) -> torch.dtype:
    """Return the type of the matrix products of a training on a device."""
    choices = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    return choices.get(training.precision) or fast_dtype(device)


def prepare_steps(
    parts: Sequence[nn.Module], choice: Literal["auto", "on", "off"], dtype: torch.dtype, device: torch.device
) -> bool:
    """Prepare parts of a network for fast steps on `device`; return whether torch compiles a part.

    `choice` is that of `TrainingConfig.compile`; `dtype` is the type of matrix products.
    """
    is_possible = has_compiler(device)
    if choice == "on" and not is_possible:
        raise ValueError("training.compile=on: no C++ compiler or no Python headers here; choose auto or off")
    if choice == "auto" and device.type == "cpu":
        parts = learn_natively(parts, dtype)
    is_faster = choice == "on" or (choice == "auto" and dtype == torch.bfloat16)
    if not (parts and is_possible and is_faster):
        return False
    # diffusers caches a check of its own version: tracing through that cache is harmless
    warnings.filterwarnings("ignore", r"Dynamo detected a call to a `functools.lru_cache`")
    for part in parts:
        part.compile(dynamic=False)
    return True
