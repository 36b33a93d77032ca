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
from torch.utils.checkpoint import checkpoint

from diffnca.canvas.region import Region
from diffnca.config.networks import CellConfig
from diffnca.engine.cells import Grid
from diffnca.engine.layers import LANES, Places, columns
from diffnca.engine.native import built, line_of, name_of, panels, pointer_of
from diffnca.engine.threads import computing_alone, work_off
from diffnca.networks.cell import CellRule, edges

MOST_GROUPS = 8
"""Groups of images with own sums of gradients; so many threads can share a batch."""

BOUNDARIES = {"zeros": 0, "reflect": 1, "circular": 2}
MODULATIONS = {"none": 0, "gate": 1, "scale_shift": 2}

INTEGERS = (
    "lines", "length", "halo", "stride_y", "stride_x", "state_width", "seen", "stride", "near", "perceived",
    "hidden", "activated", "first", "plain_hidden", "num_steps", "images", "first_image", "last_image",
    "boundary_y", "boundary_x", "modulation", "modulated", "rows",
)  # fmt: skip
POINTERS = (
    "dilations", "perceive", "perceive_bias", "expand", "expand_bias", "project", "project_bias",
    "perceive_back", "expand_back", "project_back", "modulations", "embedding", "zeros", "taken", "state",
    "shown", "modulation_gradient", "embedding_gradient", "perceive_gradient", "expand_gradient",
    "project_gradient", "perceive_bias_gradient", "expand_bias_gradient", "project_bias_gradient",
)  # fmt: skip


class Steps(ctypes.Structure):
    """The arguments of cell steps: in this order, those of `Steps` in training.cpp."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in INTEGERS),
        *((name, ctypes.c_void_p) for name in POINTERS),
        ("share", ctypes.c_float),
    )


class Layers(NamedTuple):
    """The layers of a rule as `Places.layers` gives them, or their gradients."""

    perceive: Float[Tensor, "n i"]
    perceive_bias: Float[Tensor, " n"]
    expand: Float[Tensor, "h i"]
    expand_bias: Float[Tensor, " h"]
    project: Float[Tensor, "w i"]
    project_bias: Float[Tensor, " w"]


class Told(NamedTuple):
    """What cells are told in each cell step, by rows: one for an image, or one for each of its cells."""

    modulations: Float[Tensor, "k b r m"] | None
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
        tensors |= {name: self.laid(getattr(layers, name)) for name in ("perceive", "expand", "project")}
        steps = Steps(*self.grid, *self.places.widths, len(dilations), images, 0, images, *self.boundaries)
        steps.modulation, steps.share = MODULATIONS[self.config.modulation], self.config.update_probability
        steps.modulated = 0 if told.modulations is None else told.modulations.shape[3]
        steps.rows = next((each.shape[2] for each in told if each is not None), 1)
        for name, tensor in {**tensors, "state": state, "shown": shown}.items():
            setattr(steps, name, pointer_of(tensor))
        function = getattr(self.library, f"diffnca_{way}_{name_of(self.dtype)}")
        count = min(images, MOST_GROUPS)
        bounds = [images * group // count for group in range(count + 1)]
        sums = [Layers(*map(torch.zeros_like, layers)) for _ in range(count if way == "backward" else 0)]

        def work(group: int) -> None:
            own = Steps.from_buffer_copy(steps)
            own.first_image, own.last_image = bounds[group : group + 2]
            for name, tensor in sums[group]._asdict().items() if sums else ():
                setattr(own, f"{name}_gradient", pointer_of(tensor))
            function(ctypes.byref(own))

        work_off(work, range(count), self.num_threads)
        return sums

    def laid(self, weight: Float[Tensor, "*k o i"]) -> Tensor:
        """Return weights as products read them, with whole lines of inputs."""
        line = line_of(self.dtype)
        filled = F.pad(weight, (0, -weight.shape[-1] % line))
        return panels(filled if filled.ndim == 3 else filled[None], line).to(self.dtype)


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
        plan.run("forward", state, shown, Told(modulations, embedding), Layers(*layers), {})
        ctx.plan = plan
        ctx.save_for_backward(shown, modulations, embedding, *layers)
        return state

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of the first state, of what the cells were told, and of the layers."""
        plan, (shown, modulations, embedding, *others) = ctx.plan, ctx.saved_tensors
        told, layers, widths = Told(modulations, embedding), Layers(*others), plan.places.widths
        state = gradient.clone(memory_format=torch.contiguous_format)
        of_told = Told(*(None if each is None else torch.zeros_like(each) for each in told))
        taps = layers.perceive.view(-1, 9, widths.stride)[..., : widths.seen].permute(1, 2, 0)
        more = {
            "modulation_gradient": of_told.modulations,
            "embedding_gradient": of_told.embedding,
            "perceive_back": plan.laid(taps),
            "expand_back": plan.laid(layers.expand.mT),
            "project_back": plan.laid(layers.project[:, : widths.hidden].mT),
            "zeros": torch.zeros(max(widths.hidden, widths.perceived)),
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
        layers = [each for layer in self.places.layers(self.rule) for each in layer]
        together = 1 if self._know_places else len(waiting)  # what single cells are told takes much memory
        for start in range(0, len(waiting), together or 1):
            some = waiting[start : start + together]
            if self.rule.is_recomputed and together == 1:
                self.cells = checkpoint(self._advanced, self.cells, some, *layers, use_reentrant=False)
            else:
                self.cells = self._advanced(self.cells, some, *layers)
        return self.grid.laid(self.cells[..., : self.rule.channels].movedim(-1, 1))

    @property
    def _know_places(self) -> bool:
        return self.rule.config.positions != "none"

    def _advanced(self, cells: Tensor, waiting: list[tuple[int, Tensor | None]], *layers: Tensor) -> Tensor:
        """Return the cells after some cell steps."""
        steps = [k for k, _ in waiting]
        masks = [mask for _, mask in waiting if mask is not None]
        taken = torch.stack(masks).contiguous().view(torch.uint8) if masks else None
        told, config = self._told(steps), self.rule.config
        beyond = [edge if config.padding == "reflect" else "zeros" for edge in edges(self.region)]
        boundaries = [BOUNDARIES[each] for each in (beyond[::-1] if self.grid.is_turned else beyond)]
        library = built((), "training")
        assert library is not None
        with torch.autocast("cpu", enabled=False), computing_alone() as num_threads:
            plan = Plan(
                library, self.dtype, config, self.places, self.grid, boundaries,
                [config.dilation(k) for k in steps], taken, num_threads,
            )  # fmt: skip
            advanced: Tensor = CellSteps.apply(plan, cells, *told, *layers)  # type: ignore[no-untyped-call]
        return advanced

    def _told(self, steps: list[int]) -> Told:
        """Return what the cells are told in these cell steps."""
        rule, places, widths = self.rule, self.places, self.places.widths
        mixed = self._know_places and torch.is_autocast_enabled("cpu")
        with torch.autocast("cpu", enabled=mixed):
            embedding = self._embedding(steps)
            gates = ((rule.gate_perception, places.inputs), (rule.gate_hidden, places.hidden))
            ordered = [(part, order) for gate, order in gates for part in gate(embedding) if part is not None]
        parts = [columns(self._rows(part, steps), order) for part, order in ordered]
        modulations = torch.cat(parts, dim=-1).contiguous() if parts else None
        if not rule.config.perceive_embedding:
            return Told(modulations, None)
        missing = widths.seen - widths.state - embedding.shape[1]
        return Told(modulations, F.pad(self._rows(embedding, steps), (0, missing)).contiguous())

    def _embedding(self, steps: list[int]) -> Float[Tensor, "b e h w"]:
        """Return the embedding of cells that know their places, in one cell step.

        Else all cell steps of all images are pixels of one image.
        """
        embedding = self.rule.embedding
        if self._know_places:
            found: Tensor = embedding(self.t, torch.tensor(float(steps[0])), self.region, self.origin)
            return found
        clocks = torch.tensor(steps, dtype=torch.float32) / embedding.period
        numbers = torch.stack(torch.broadcast_tensors(self.t, clocks[:, None])).flatten(1)
        found = embedding.features(numbers[None, :, :, None])
        return found

    def _rows(self, numbers: Float[Tensor, "n c h w"], steps: list[int]) -> Float[Tensor, "k b r c"]:
        laid = self.grid.laid(numbers) if self._know_places else numbers
        return laid.movedim(1, -1).float().reshape(len(steps), len(self.t), -1, numbers.shape[1])


def learn_natively(parts: Sequence[nn.Module], dtype: torch.dtype) -> list[nn.Module]:
    """Let cell rules on this CPU learn in native code, with products in `dtype`; return all other parts.

    Rules that know places are among the others: each of their cells is told other numbers in each cell step,
    which pass through memory. That takes longer than native code saves.
    """
    others = []
    for part in parts:
        if isinstance(part, CellRule) and part.config.positions == "none" and can_learn(part, dtype):
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
