"""The kernels of the GPU engine, in Triton; only `diffnca.engine.gpu` starts them.

Each program computes a block with a fixed number of cells (or rows). So the numbers of a cell do not depend
on its place in an image, tile or batch. Arguments that are known at compile time are `constexpr`. A layer
that is wider than its block is a tuple of blocks. Arguments of a cell step, with shapes:

| argument | meaning |
|---|---|
| `state` | (images, cells, channels_width) in float32, changed in place |
| `seen` | (images, cells, seen_width), the state and the embedding as cells perceive them |
| `following` | `seen` of the next cell step, to be filled |
| `rows` | (3, height), the rows that each row perceives; -1 is a row of zeros |
| `columns` | (3, width), likewise |
| `share` | (images, cells), the share of its change that a cell takes |
| `times` | (images), index of the time of each image |
| `modulations` | (times, modulated_cells, ...), see `diffnca.engine.gpu.Modulators` |
| `perceive` | (9, seen_width, channels_width) |
| `perceive_bias` | (channels_width) |
| `expand` | (seen_width + channels_width, hidden_width) |
| `expand_bias` | (hidden_width) |
| `project` | (hidden_width, channels_width) |
| `project_bias` | (channels_width) |
| `height`, `width` | rows and columns of cells |
| `share_of_image`, `share_of_cell` | strides of `share` |
| `modulated_cells` | 1 if all cells share a modulation |
| `hidden_channels` | channels of the hidden layer without padding |
| `kind` | kind of the modulation |
| `block` | cells of a block |
| `modulated_block` | 1 if all cells share a modulation, else `block` |
| `seen_width` | numbers that are seen of a cell, padded |
| `channels_width`, `hidden_width` | channels of the state and of the hidden layer, padded |
| `seen_block`, `channels_block`, `hidden_block` | parts of these widths that are multiplied at once |
"""

from __future__ import annotations

from typing import no_type_check  # a type checker cannot read what Triton compiles

import triton
import triton.language as tl

from diffnca.networks import cell

EPSILON = tl.constexpr(cell.NORMALISATION_EPSILON)
LEAKY_SLOPE = tl.constexpr(cell.LEAKY_SLOPE)


@triton.jit
@no_type_check
def cell_step(
    state, seen, following, rows, columns, share, times, modulations,
    perceive, perceive_bias, expand, expand_bias, project, project_bias,
    height, width, share_of_image, share_of_cell, modulated_cells, hidden_channels,
    kind: tl.constexpr, block: tl.constexpr, modulated_block: tl.constexpr,
    seen_width: tl.constexpr, seen_block: tl.constexpr, channels_width: tl.constexpr,
    channels_block: tl.constexpr, hidden_width: tl.constexpr, hidden_block: tl.constexpr,
):  # fmt: skip
    """Do a cell step for a block of cells of an image; the table above explains the arguments."""
    image = tl.program_id(1).to(tl.int64)
    first = tl.program_id(0) * block
    cell = first + tl.arange(0, block)
    is_cell = cell < height * width
    cells = image * height * width  # number of cells before this image

    perceived_width: tl.constexpr = seen_width + channels_width
    modulation_width: tl.constexpr = perceived_width + (3 if kind == "scale_shift" else 1) * hidden_width
    of_cell = tl.minimum(first + tl.arange(0, modulated_block), modulated_cells - 1)
    of_cell += tl.load(times + image) * modulated_cells
    modulation = modulations + of_cell.to(tl.int64)[:, None] * modulation_width

    near = perceive_near(
        seen + cells * seen_width, rows, columns, perceive, perceive_bias, cell, is_cell, height, width,
        block, seen_width, seen_block, channels_width, channels_block,
    )  # fmt: skip
    perception = modulate_perception(
        near, seen + cells * seen_width, modulation, cell, is_cell, kind,
        seen_width, seen_block, channels_width, channels_block,
    )  # fmt: skip
    hidden = expand_perception(
        perception, expand, expand_bias, modulation + perceived_width, kind,
        block, seen_width, seen_block, channels_width, channels_block, hidden_width, hidden_block,
    )  # fmt: skip
    hidden = activate_hidden(
        hidden, modulation + perceived_width, hidden_channels, kind, block, hidden_width, hidden_block
    )

    taken = tl.load(share + image * share_of_image + cell * share_of_cell, mask=is_cell, other=0.0)
    update_state(
        hidden, taken, state + cells * channels_width, following + cells * seen_width, project, project_bias,
        cell, is_cell, block, seen_width, channels_width, channels_block, hidden_width, hidden_block,
    )  # fmt: skip


@triton.jit
@no_type_check
def perceive_near(
    seen, rows, columns, perceive, perceive_bias, cell, is_cell, height, width,
    block: tl.constexpr, seen_width: tl.constexpr, seen_block: tl.constexpr,
    channels_width: tl.constexpr, channels_block: tl.constexpr,
):  # fmt: skip
    """Return what the cells perceive of their neighbours: the 3x3 convolution as nine shifted products."""
    near = ()
    for start in tl.static_range(0, channels_width, channels_block):
        bias = tl.load(perceive_bias + start + tl.arange(0, channels_block))
        near += (tl.zeros([block, channels_block], tl.float32) + bias[None, :],)
    for tap in range(9):
        row = tl.load(rows + (tap // 3) * height + cell // width, mask=is_cell, other=-1)
        column = tl.load(columns + (tap % 3) * width + cell % width, mask=is_cell, other=-1)
        is_there = (row >= 0) & (column >= 0)
        neighbour = row.to(tl.int64) * width + column
        for start in tl.static_range(0, seen_width, seen_block):
            number = start + tl.arange(0, seen_block)
            at = neighbour[:, None] * seen_width + number[None, :]
            part = tl.load(seen + at, mask=is_there[:, None], other=0.0)
            summed = ()
            for i in tl.static_range(channels_width // channels_block):
                channel = i * channels_block + tl.arange(0, channels_block)
                of_tap = (tap * seen_width + number[:, None]) * channels_width
                weight = tl.load(perceive + of_tap + channel[None, :])
                summed += (tl.dot(part, weight, near[i], input_precision="ieee"),)
            near = summed
    return near


@triton.jit
@no_type_check
def modulate_perception(
    near, seen, modulation, cell, is_cell, kind: tl.constexpr,
    seen_width: tl.constexpr, seen_block: tl.constexpr,
    channels_width: tl.constexpr, channels_block: tl.constexpr,
):  # fmt: skip
    """Return what the cells perceive of themselves and `near` them, modulated, in the type of `seen`."""
    perception = ()
    for start in tl.static_range(0, seen_width, seen_block):
        number = start + tl.arange(0, seen_block)
        at = cell.to(tl.int64)[:, None] * seen_width + number[None, :]
        own = tl.load(seen + at, mask=is_cell[:, None], other=0.0)
        perception += (scaled(own.to(tl.float32), modulation, number, kind).to(seen.dtype.element_ty),)
    for i in tl.static_range(channels_width // channels_block):
        number = seen_width + i * channels_block + tl.arange(0, channels_block)
        perception += (scaled(near[i], modulation, number, kind).to(seen.dtype.element_ty),)
    return perception


@triton.jit
@no_type_check
def scaled(layer, modulation, number, kind: tl.constexpr):
    """Return a modulated part of the perception; the shift is in the bias of the next layer."""
    if kind == "none":
        return layer
    return layer * tl.load(modulation + number[None, :]).to(tl.float32)


@triton.jit
@no_type_check
def expand_perception(
    perception, expand, expand_bias, modulation, kind: tl.constexpr,
    block: tl.constexpr, seen_width: tl.constexpr, seen_block: tl.constexpr,
    channels_width: tl.constexpr, channels_block: tl.constexpr,
    hidden_width: tl.constexpr, hidden_block: tl.constexpr,
):  # fmt: skip
    """Return the hidden layer, in the type of the matrix products, so that it stays in registers."""
    own_parts: tl.constexpr = seen_width // seen_block
    hidden = ()
    for start in tl.static_range(0, hidden_width, hidden_block):
        output = start + tl.arange(0, hidden_block)
        total = tl.zeros([block, hidden_block], tl.float32)
        if kind == "scale_shift":
            total += tl.load(modulation + output[None, :]).to(tl.float32)
        else:
            total += tl.load(expand_bias + output)[None, :]
        for i in tl.static_range(own_parts):
            number = i * seen_block + tl.arange(0, seen_block)
            weight = tl.load(expand + number[:, None] * hidden_width + output[None, :])
            total = tl.dot(perception[i], weight, total, input_precision="ieee")
        for i in tl.static_range(channels_width // channels_block):
            number = seen_width + i * channels_block + tl.arange(0, channels_block)
            weight = tl.load(expand + number[:, None] * hidden_width + output[None, :])
            total = tl.dot(perception[own_parts + i], weight, total, input_precision="ieee")
        hidden += (total.to(expand.dtype.element_ty),)
    return hidden


@triton.jit
@no_type_check
def activate_hidden(
    hidden, modulation, hidden_channels, kind: tl.constexpr,
    block: tl.constexpr, hidden_width: tl.constexpr, hidden_block: tl.constexpr,
):  # fmt: skip
    """Return the hidden layer, normalised over the channels of each cell, activated and modulated."""
    total = tl.zeros([block], tl.float32)
    for i in tl.static_range(hidden_width // hidden_block):
        total += tl.sum(hidden[i].to(tl.float32), axis=1)
    mean = (total / hidden_channels)[:, None]
    squares = tl.zeros([block], tl.float32)
    for i in tl.static_range(hidden_width // hidden_block):
        is_channel = i * hidden_block + tl.arange(0, hidden_block) < hidden_channels
        centred = tl.where(is_channel[None, :], hidden[i].to(tl.float32) - mean, 0.0)
        squares += tl.sum(centred * centred, axis=1)
    factor = (1.0 / tl.sqrt(squares / hidden_channels + EPSILON))[:, None]
    active = ()
    for i in tl.static_range(hidden_width // hidden_block):
        channel = (i * hidden_block + tl.arange(0, hidden_block))[None, :]
        part = (hidden[i].to(tl.float32) - mean) * factor
        if kind == "scale_shift":
            part = part * tl.load(modulation + hidden_width + channel).to(tl.float32)
            part += tl.load(modulation + 2 * hidden_width + channel).to(tl.float32)
        part = tl.where(part > 0.0, part, part * LEAKY_SLOPE)
        if kind == "gate":
            part = part * tl.load(modulation + channel).to(tl.float32)
        active += (part.to(hidden[i].dtype),)
    return active


@triton.jit
@no_type_check
def update_state(
    hidden, taken, state, following, project, project_bias, cell, is_cell,
    block: tl.constexpr, seen_width: tl.constexpr, channels_width: tl.constexpr,
    channels_block: tl.constexpr, hidden_width: tl.constexpr, hidden_block: tl.constexpr,
):  # fmt: skip
    """Add the `taken` share of their change to the cells; write them for the next cell step."""
    for start in tl.static_range(0, channels_width, channels_block):
        channel = start + tl.arange(0, channels_block)
        change = tl.zeros([block, channels_block], tl.float32) + tl.load(project_bias + channel)[None, :]
        for i in tl.static_range(hidden_width // hidden_block):
            number = i * hidden_block + tl.arange(0, hidden_block)
            weight = tl.load(project + number[:, None] * channels_width + channel[None, :])
            change = tl.dot(hidden[i], weight, change, input_precision="ieee")
        at = cell.to(tl.int64)[:, None] * channels_width + channel[None, :]
        updated = tl.load(state + at, mask=is_cell[:, None], other=0.0) + change * taken[:, None]
        tl.store(state + at, updated, mask=is_cell[:, None])
        at = cell.to(tl.int64)[:, None] * seen_width + channel[None, :]
        tl.store(following + at, updated.to(following.dtype.element_ty), mask=is_cell[:, None])


@triton.jit
@no_type_check
def dense(
    rows, weight, bias, made, count, inputs, outputs,
    block: tl.constexpr, inputs_block: tl.constexpr, outputs_block: tl.constexpr,
):  # fmt: skip
    """Fill `made` (count, outputs) with `rows @ weight + bias`, for a block of rows and of outputs."""
    row = (tl.program_id(0) * block + tl.arange(0, block))[:, None]
    output = (tl.program_id(1) * outputs_block + tl.arange(0, outputs_block))[None, :]
    total = tl.zeros([block, outputs_block], tl.float32)
    total += tl.load(bias + output, mask=output < outputs, other=0.0).to(tl.float32)
    for start in range(0, inputs, inputs_block):
        number = start + tl.arange(0, inputs_block)
        is_part = (row < count) & (number[None, :] < inputs)
        part = tl.load(rows + row.to(tl.int64) * inputs + number[None, :], mask=is_part, other=0.0)
        is_weight = (number[:, None] < inputs) & (output < outputs)
        weights = tl.load(weight + number[:, None] * outputs + output, mask=is_weight, other=0.0)
        total = tl.dot(part, weights, total, input_precision="ieee")
    is_made = (row < count) & (output < outputs)
    tl.store(made + row.to(tl.int64) * outputs + output, total.to(made.dtype.element_ty), mask=is_made)


@triton.jit(do_not_specialize=["place", "clock"])
@no_type_check
def draw_share(share, seeds, rows, columns, place, clock, threshold, height, width, block: tl.constexpr):
    """Fill `share` (images, cells) with 1 where a cell updates (as in `canvas.noise`), else 0."""
    image = tl.program_id(1).to(tl.int64)
    cell = tl.program_id(0) * block + tl.arange(0, block)
    is_cell = cell < height * width
    row = tl.load(rows + cell // width, mask=is_cell, other=0)
    column = tl.load(columns + cell % width, mask=is_cell, other=0)
    place, clock = tl.cast(row * 0 + place, tl.uint32), tl.cast(row * 0 + clock, tl.uint32)
    words = tl.philox(tl.load(seeds + image), row, column // 4, place, clock)
    lower = tl.where(column % 4 == 0, words[0], words[1])
    upper = tl.where(column % 4 == 2, words[2], words[3])
    word = tl.where(column % 4 < 2, lower, upper)
    updates = word.to(tl.int64) < threshold
    tl.store(share + image * height * width + cell, updates.to(tl.float32), mask=is_cell)
