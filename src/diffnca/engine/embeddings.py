"""Embeddings in native code: the small network of an embedding for many rows, in the cache, both ways.

Gradients of weights are summed in groups of rows that do not depend on the number of threads.
"""

import ctypes
import itertools
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from diffnca.engine.native import laid, name_of, pointer_of
from diffnca.engine.threads import computing_alone, work_off

ROWS = 64
"""Rows that the native code takes together."""

MOST_GROUPS = 8
"""Groups of rows or images with own sums of gradients; so many threads can share a batch."""


class TwoLayers(NamedTuple):
    """A small network, or the gradients of its weights; SiLU stands between the layers."""

    inner: Float[Tensor, "w i"]
    inner_bias: Float[Tensor, " w"]
    outer: Float[Tensor, "o w"]
    outer_bias: Float[Tensor, " o"]


INTEGERS = ("first", "last", "inputs", "width", "outputs")
POINTERS = (
    "numbers", "embedding", "inner", "inner_bias", "outer", "outer_bias", "outer_back", "zeros",
    *(f"{name}_gradient" for name in TwoLayers._fields),
)  # fmt: skip


class Embed(ctypes.Structure):
    """The arguments of the native code: in this order, those of `Embed` in embedding.h."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in INTEGERS),
        *((name, ctypes.c_void_p) for name in POINTERS),
    )


class Code(NamedTuple):
    """The native code, and the type of its matrix products."""

    library: ctypes.CDLL
    dtype: torch.dtype


def in_groups(count: int, together: int = 1) -> list[tuple[int, int]]:
    """Return where each group of rows or images begins and ends; no group divides `together` of them."""
    packs = -(-count // together)
    number = min(packs, MOST_GROUPS)
    bounds = [min(packs * group // number * together, count) for group in range(number + 1)]
    return [*itertools.pairwise(bounds)]


def run(code: Code, way: str, numbers: Tensor, embedding: Tensor, layers: TwoLayers) -> list[TwoLayers]:
    """Fill `embedding`, or take its gradient (`way` is "embed_back"); return gradients by groups."""
    width, rows, (library, dtype) = len(layers.inner), len(numbers), code
    tensors = {**layers._asdict(), "numbers": numbers, "embedding": embedding, "zeros": torch.zeros(width)}
    tensors |= {name: laid(getattr(layers, name), dtype) for name in ("inner", "outer")}
    tensors["outer_back"] = laid(layers.outer.mT, dtype)
    embed = Embed(0, 0, numbers.shape[1], width, embedding.shape[1])
    for name, tensor in tensors.items():
        setattr(embed, name, pointer_of(tensor))
    function = getattr(library, f"diffnca_{way}_{name_of(dtype)}")
    groups = in_groups(rows, ROWS)
    sums = [TwoLayers(*map(torch.zeros_like, layers)) for _ in groups if way == "embed_back"]

    def work(group: int) -> None:
        own = Embed.from_buffer_copy(embed)
        own.first, own.last = groups[group]
        for name, tensor in sums[group]._asdict().items() if sums else ():
            setattr(own, f"{name}_gradient", pointer_of(tensor))
        function(ctypes.byref(own))

    with computing_alone() as num_threads:
        work_off(work, range(len(groups)), num_threads)
    return sums


class Embeddings(torch.autograd.Function):
    """Embeddings of rows of numbers, by a small network; the numbers have no gradient."""

    @staticmethod
    def forward(ctx: Any, code: Code, numbers: Tensor, *layers: Tensor) -> Tensor:
        """Return the embeddings."""
        embedding = torch.empty(len(numbers), len(layers[2]))
        run(code, "embed", numbers, embedding, TwoLayers(*layers))
        ctx.code = code
        ctx.save_for_backward(numbers, *layers)
        return embedding

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of the layers."""
        numbers, *layers = ctx.saved_tensors
        with computing_alone():
            sums = run(ctx.code, "embed_back", numbers, gradient.contiguous(), TwoLayers(*layers))
        return None, None, *(torch.stack(parts).sum(0) for parts in zip(*sums, strict=True))
