"""Cell steps that learn, in native code: a way forwards that keeps what cells see, and a way back.

The way back computes each cell step again, in the cache. Matrix products have the type that mixed precision
asks for; sums, states and gradients are float32. Gradients of weights are summed in groups of images that do
not depend on the number of threads, so a training is equal to the bit for any number of threads.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from diffnca.canvas.region import Region
from diffnca.config.networks import CellConfig
from diffnca.engine.cells import Grid
from diffnca.engine.embeddings import Code, Embeddings, in_groups
from diffnca.engine.layers import LANES, NOTHING, Places, Plain, columns, two_layers
from diffnca.engine.native import built, laid, line_of, name_of, pointer_of
from diffnca.engine.threads import computing_alone, work_off
from diffnca.networks.cell import CellRule, edges
from diffnca.networks.embedding import positions

BOUNDARIES = {"zeros": 0, "reflect": 1, "circular": 2}
MODULATIONS = {"none": 0, "gate": 1, "scale_shift": 2}

INTEGERS = (
    "lines", "length", "halo", "stride_y", "stride_x", "state_width", "seen", "stride", "near", "perceived",
    "hidden", "activated", "first", "plain_hidden", "num_steps", "images", "first_image", "last_image",
    "boundary_y", "boundary_x", "modulation", "modulated", "rows", "told", "signals", "gate",
)  # fmt: skip
WEIGHTS = ("perceive", "expand", "project", "inner", "gates")
LAYERS = tuple(each for name in WEIGHTS for each in (name, f"{name}_bias"))
POINTERS = (
    "dilations", *LAYERS, "perceive_back", "expand_back", "project_back", "inner_back", "near_gate_back",
    "hidden_gate_back", "modulations", "embedding", "zeros", "taken", "state", "shown",
    "modulation_gradient", "embedding_gradient", *(f"{name}_gradient" for name in LAYERS),
)  # fmt: skip


class Steps(ctypes.Structure):
    """The arguments of cell steps: in this order, those of `Steps` in training.cpp."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in INTEGERS),
        *((name, ctypes.c_void_p) for name in POINTERS),
        ("share", ctypes.c_float),
    )


class Layers(NamedTuple):
    """The layers of a rule as `Places` gives them, or their gradients.

    `inner` and `gates` are the layers of both gates where cells know their places; else they are empty.
    """

    perceive: Float[Tensor, "n i"]
    perceive_bias: Float[Tensor, " n"]
    expand: Float[Tensor, "h i"]
    expand_bias: Float[Tensor, " h"]
    project: Float[Tensor, "w i"]
    project_bias: Float[Tensor, " w"]
    inner: Float[Tensor, "s e"]
    inner_bias: Float[Tensor, " s"]
    gates: Float[Tensor, "m g"]
    gates_bias: Float[Tensor, " m"]


class Told(NamedTuple):
    """What cells are told in each cell step.

    Attributes:
        modulations: of an image; `None` where the gates of each cell make them, or nobody takes them.
        embedding: one for an image, or one for each of its cells; `None` if nobody takes it.
    """

    modulations: Float[Tensor, "k b m"] | None
    embedding: Float[Tensor, "k b r e"] | None


@dataclass(frozen=True)
class Plan:
    """What the cell steps are, and who does them.

    Attributes:
        boundaries: what stands beyond the edges of the grid, in numbers of `BOUNDARIES`.
        dilations: of each cell step.
        taken: which cells update in each cell step; `None` if all take the expected share.
    """

    library: ctypes.CDLL
    dtype: torch.dtype
    config: CellConfig
    places: Places
    grid: Grid
    boundaries: list[int]
    dilations: list[int]
    taken: UInt8[Tensor, "k b lines length"] | None
    num_threads: int

    def empty(self, images: int) -> Tensor:
        """Return memory for what cells see before each cell step; zeros."""
        places = (self.grid.lines + 2 * self.grid.halo) * self.grid.pitch + LANES
        width = self.places.widths.stride
        return torch.zeros(len(self.dilations), images, places, width, dtype=self.dtype)

    def run(
        self,
        way: str,
        state: Tensor,
        shown: Tensor,
        told: Told,
        layers: Layers,
        more: dict[str, Tensor | None],
    ) -> list[Layers]:
        """Do the cell steps in place, `forward` or `backward`; return gradients of the layers by groups."""
        images, dilations = len(state), torch.tensor(self.dilations)
        tensors = {**told._asdict(), **layers._asdict(), **more, "dilations": dilations, "taken": self.taken}
        tensors |= {name: laid(getattr(layers, name), self.dtype) for name in WEIGHTS}
        steps = Steps(*self.grid, *self.places.widths, len(dilations), images, 0, images, *self.boundaries)
        steps.modulation, steps.share = MODULATIONS[self.config.modulation], self.config.update_probability
        modulations = layers.gates_bias if told.modulations is None else told.modulations
        steps.modulated = modulations.shape[-1]
        steps.rows, steps.told = (1, 0) if told.embedding is None else told.embedding.shape[2:]
        steps.signals, steps.gate = len(layers.inner_bias) or layers.gates.shape[1], layers.gates.shape[1]
        for name, tensor in {**tensors, "state": state, "shown": shown}.items():
            setattr(steps, name, pointer_of(tensor))
        function = getattr(self.library, f"diffnca_{way}_{name_of(self.dtype)}")
        groups = in_groups(images)
        sums = [Layers(*map(torch.zeros_like, layers)) for _ in groups if way == "backward"]

        def work(group: int) -> None:
            own = Steps.from_buffer_copy(steps)
            own.first_image, own.last_image = groups[group]
            for name, tensor in sums[group]._asdict().items() if sums else ():
                setattr(own, f"{name}_gradient", pointer_of(tensor))
            function(ctypes.byref(own))

        work_off(work, range(len(groups)), self.num_threads)
        return sums


class CellSteps(torch.autograd.Function):
    """Cell steps, from the first state to the final state (`b lines length c`)."""

    @staticmethod
    def forward(
        ctx: Any,
        plan: Plan,
        first: Tensor,
        modulations: Tensor | None,
        embedding: Tensor | None,
        *layers: Tensor,
    ) -> Tensor:
        """Return the final state."""
        shown, state = plan.empty(len(first)), first.clone(memory_format=torch.contiguous_format)
        told = Told(modulations, embedding)
        plan.run("forward", state, shown, told, Layers(*layers), {})
        ctx.plan = plan
        ctx.save_for_backward(shown, *told, *layers)
        return state

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of the first state, of what the cells were told, and of the layers."""
        plan, (shown, *others) = ctx.plan, ctx.saved_tensors
        told, layers, widths = Told(*others[:2]), Layers(*others[2:]), plan.places.widths
        state = gradient.clone(memory_format=torch.contiguous_format)
        of_told = Told(*(None if each is None else torch.zeros_like(each) for each in told))
        first = MODULATIONS[plan.config.modulation] * widths.perceived
        taps = layers.perceive.view(-1, 9, widths.stride)[..., : widths.seen].permute(1, 2, 0)
        more = {
            "modulation_gradient": of_told.modulations,
            "embedding_gradient": of_told.embedding,
            "perceive_back": laid(taps, plan.dtype),
            "expand_back": laid(layers.expand.mT, plan.dtype),
            "project_back": laid(layers.project[:, : widths.hidden].mT, plan.dtype),
            "inner_back": laid(layers.inner.mT, plan.dtype),
            "near_gate_back": laid(layers.gates[:first].mT, plan.dtype),
            "hidden_gate_back": laid(layers.gates[first:].mT, plan.dtype),
            "zeros": torch.zeros(max(widths.hidden, widths.perceived, layers.inner.shape[1])),
        }
        with computing_alone():
            sums = plan.run("backward", state, shown, told, layers, more)
        return None, state, *of_told, *(torch.stack(parts).sum(0) for parts in zip(*sums, strict=True))


class LearningCells:
    """Cells of a rule that learns; cell steps wait until somebody asks for the state."""

    def __init__(
        self, rule: CellRule, state: Tensor, t: Tensor, region: Region, origin: tuple[int, int] | None
    ) -> None:
        self.rule, self.t, self.region, self.origin = rule, t.float(), region, origin
        mixed, config = torch.is_autocast_enabled("cpu"), rule.config
        self.dtype = torch.get_autocast_dtype("cpu") if mixed else torch.float32
        self.places = Places.of(rule, line_of(self.dtype))
        self.grid = Grid.of(region, max(config.dilations[: config.num_cell_steps]))
        rows = self.grid.laid(state).movedim(1, -1).float()
        self.cells = F.pad(rows, (0, self.places.widths.state - state.shape[1]))
        self.waiting: list[tuple[int, Tensor | None]] = []

    def advance(self, k: int, mask: Bool[Tensor, "b 1 h w"] | None, needed: Region) -> None:
        """Remember cell step `k`; the arguments are those of `cell.Cells.advance`."""
        self.waiting.append((k, None if mask is None else self.grid.laid(mask[:, 0])))

    def state(self) -> Float[Tensor, "b c h w"]:
        """Return the current state."""
        waiting, self.waiting = self.waiting, []
        if waiting:
            self.cells = self._advanced(waiting)
        return self.grid.laid(self.cells[..., : self.rule.channels].movedim(-1, 1))

    @property
    def _know_places(self) -> bool:
        return self.rule.config.positions != "none"

    def _gates(self) -> tuple[Plain, Plain]:
        """Return the layers of gates that make the modulations of each cell."""
        if self._know_places and self.rule.config.modulation != "none":
            return self.places.gates(self.rule, line_of(self.dtype))
        return NOTHING, NOTHING

    def _advanced(self, waiting: list[tuple[int, Tensor | None]]) -> Tensor:
        """Return the cells after some cell steps."""
        steps = [k for k, _ in waiting]
        masks = [mask for _, mask in waiting if mask is not None]
        taken = torch.stack(masks).contiguous().view(torch.uint8) if masks else None
        layers = [each for layer in (*self.places.layers(self.rule), *self._gates()) for each in layer]
        config = self.rule.config
        beyond = [edge if config.padding == "reflect" else "zeros" for edge in edges(self.region)]
        boundaries = [BOUNDARIES[each] for each in (beyond[::-1] if self.grid.is_turned else beyond)]
        library = built((), "training")
        assert library is not None
        with torch.autocast("cpu", enabled=False), computing_alone() as num_threads:
            told = self._told(steps)
            plan = Plan(
                library, self.dtype, config, self.places, self.grid, boundaries,
                [config.dilation(k) for k in steps], taken, num_threads,
            )  # fmt: skip
            advanced: Tensor = CellSteps.apply(plan, self.cells, *told, *layers)  # type: ignore[no-untyped-call]
        return advanced

    def _told(self, steps: list[int]) -> Told:
        """Return what the cells are told in these cell steps."""
        config, embedding = self.rule.config, self._embedding(steps)
        has_gates = self._know_places and config.modulation != "none"
        modulations = None if self._know_places else self._modulations(embedding)
        return Told(modulations, embedding if has_gates or config.perceive_embedding else None)

    def _modulations(self, embedding: Float[Tensor, "k b 1 e"]) -> Float[Tensor, "k b m"] | None:
        """Return the modulations of images whose cells do not know their places."""
        rule, places = self.rule, self.places
        pixels = embedding[:, :, 0, : rule.config.embedding_channels].movedim(-1, 0)[None]
        gates = ((rule.gate_perception, places.inputs), (rule.gate_hidden, places.hidden))
        ordered = [(part, order) for gate, order in gates for part in gate(pixels) if part is not None]
        parts = [columns(part[0].movedim(0, -1), order) for part, order in ordered]
        return torch.cat(parts, dim=-1).contiguous() if parts else None

    def _embedding(self, steps: list[int]) -> Float[Tensor, "k b r e"]:
        """Return the embedding of each cell, or of each image if its cells do not know their places."""
        library = built((), "training")
        assert library is not None
        embedding, dtype = self.rule.embedding, self.dtype if self._know_places else torch.float32
        clocks = torch.tensor(steps, dtype=torch.float32)[:, None, None] / embedding.period
        places = positions(self.rule.config.positions, self.region, self.t.device, self.origin)
        axes = () if places is None else self.grid.laid(places).flatten(1).unbind()
        numbers = torch.broadcast_tensors(*axes, self.t[:, None], clocks)
        spread = embedding.features.spread(torch.stack(numbers).flatten(1)[None, :, :, None])
        rows, line = spread[0, :, :, 0].mT, line_of(dtype)
        rows = F.pad(rows, (0, -rows.shape[1] % line)).contiguous()
        layers = [each for layer in two_layers(embedding.features.net, line) for each in layer]
        found: Tensor = Embeddings.apply(Code(library, dtype), rows, *layers)  # type: ignore[no-untyped-call]
        return F.pad(found, (0, -found.shape[1] % line_of(self.dtype))).view(*numbers[0].shape, -1)


def learn_natively(parts: Sequence[nn.Module], dtype: torch.dtype) -> list[nn.Module]:
    """Let cell rules on this CPU learn in native code, with products in `dtype`; return all other parts."""
    others = []
    for part in parts:
        if isinstance(part, CellRule) and can_learn(part, dtype):
            part.cells_of = LearningCells
        else:
            others.append(part)
    return others


def can_learn(rule: CellRule, dtype: torch.dtype) -> bool:
    """Return whether native code can train a rule on this CPU, with products in `dtype`."""
    if rule.config.normalisation != "cell":  # statistics over space
        return False
    library = built((), "training")
    return library is not None and hasattr(library, f"diffnca_forward_{name_of(dtype)}")
