"""Sample a student of few steps in plain numpy: the file of its weights is enough.

    python examples/numpy_sampler.py src/diffnca/weights/pathology-4step.safetensors tissue.png --seed 0

It needs no torch and no diffnca. docs/noise.md says how the noise is made. This file knows the students that
have a coarse stage and see no given planes.
"""

import argparse
import json
import struct
import zlib
from pathlib import Path
from statistics import NormalDist

import numpy as np


def read(path):
    """Return weights and configuration of a safetensors file: a length, a header of JSON, the numbers."""
    data = Path(path).read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    config = json.loads(header.pop("__metadata__")["config"])
    types = {"F16": np.float16, "F32": np.float32}
    weights = {}
    for name, about in header.items():
        first, last = about["data_offsets"]
        numbers = np.frombuffer(data[end + first : end + last], types[about["dtype"]])
        weights[name] = numbers.reshape(about["shape"]).astype(np.float32)
    return weights, config


def normal(seed, stream, step, height, width, channels):
    """Return the standard normal numbers of an image: Philox4x32-10 of the place, then the quantile."""
    rows, columns, groups = np.ogrid[:height, :width, : -(-channels // 4)]
    counter = [rows, columns, (stream << 24) + groups, np.array(step << 16)]
    w = [np.broadcast_to(each, (height, width, groups.size)).astype(np.uint64) for each in counter]
    low, high, word = seed & 0xFFFFFFFF, seed >> 32, 0xFFFFFFFF
    for _ in range(10):
        a, b = w[0] * 0xD2511F53, w[2] * 0xCD9E8D57
        w = [(b >> 32) ^ w[1] ^ low, b & word, (a >> 32) ^ w[3] ^ high, a & word]
        low, high = (low + 0x9E3779B9) & word, (high + 0xBB67AE85) & word
    words = np.stack(w, axis=-1).reshape(height, width, -1)[..., :channels]
    quantile = np.vectorize(NormalDist().inv_cdf)  # by algorithm AS 241, as the specification says
    return np.moveaxis(quantile((words + 0.5) / 2**32), -1, 0).astype(np.float32)


def silu(x):
    """Return each number times its sigmoid."""
    return x / (1.0 + np.exp(-x))


def conv(weights, name, x, dilation=1):
    """Return a convolution of numbers (c, y, x) with the weights of a layer, without padding."""
    weight, side = weights[f"{name}.weight"], weights[f"{name}.weight"].shape[-1]
    height, width = (size - dilation * (side - 1) for size in x.shape[1:])
    total = weights[f"{name}.bias"][:, None, None]
    for i in range(side):
        for j in range(side):
            top, left = i * dilation, j * dilation
            total = total + np.tensordot(weight[:, :, i, j], x[:, top : top + height, left : left + width], 1)
    return total


def run_cells(weights, stage, config, state, protected, channels, t):
    """Return the state after all cell steps of a stage; the first `protected` channels stay."""
    state = np.concatenate([state, np.zeros((channels - len(state), *state.shape[1:]), np.float32)])
    for k in range(config["num_cell_steps"]):
        clocks = np.array([t, k / config["num_cell_steps"]], np.float32)[:, None]
        angles = (clocks * (np.pi / 2 * 2.0 ** np.arange(6, dtype=np.float32))).reshape(-1, 1, 1)
        waves = np.concatenate([np.cos(angles), np.sin(angles)]).astype(np.float32)
        embedding = silu(conv(weights, f"{stage}.embedding.features.net.0", waves))
        embedding = silu(conv(weights, f"{stage}.embedding.features.net.2", embedding))

        def modulated(x, name, embedding=embedding):
            scale, shift = np.split(conv(weights, f"{stage}.{name}.net", embedding), 2)
            return x * (1.0 + scale) + shift

        dilation = config["dilations"][k % len(config["dilations"])]
        padded = np.pad(state, [(0, 0), (dilation, dilation), (dilation, dilation)], "reflect")
        near = conv(weights, f"{stage}.perceive", padded, dilation)
        hidden = conv(weights, f"{stage}.expand", modulated(np.concatenate([state, near]), "gate_perception"))
        hidden = (hidden - hidden.mean(0)) / np.sqrt(hidden.var(0) + 1e-5)
        hidden = modulated(hidden, "gate_hidden")
        change = conv(weights, f"{stage}.project", np.where(hidden > 0, hidden, 0.01 * hidden))
        state[protected:] += change[protected:]
    return state


def squares(image, side):
    """Return the pixels of each square as channels; the mirror image fills squares beyond the edge."""
    channels, height, width = image.shape
    image = np.pad(image, [(0, 0), (0, -height % side), (0, -width % side)], "reflect")
    parts = image.reshape(channels, image.shape[1] // side, side, -1, side)
    return parts.transpose(0, 2, 4, 1, 3).reshape(channels * side**2, *parts.shape[1:4:2])


def pixels(cells, side, height, width):
    """Return the image whose pixels the squares hold."""
    parts = cells.reshape(-1, side, side, *cells.shape[1:]).transpose(0, 3, 1, 4, 2)
    return parts.reshape(len(parts), parts.shape[1] * side, -1)[:, :height, :width]


def predict(weights, model, x_t, t):
    """Return the output of the network: cells of large squares, then cells of small ones."""
    coarse, patch, handed = model["coarse"], model["patch"], model["coarse"]["handed"]
    large, small = squares(x_t, coarse["patch"]), squares(x_t, patch)
    state = run_cells(weights, "coarse", coarse["cell"], large, len(large), coarse["channels"], t)
    factor, first = coarse["patch"] // patch, len(large)
    below = pixels(state[first : first + handed * factor**2], factor, *small.shape[1:])
    start = np.concatenate([small, np.zeros_like(small), below])
    state = run_cells(weights, "image", model["cell"], start, len(small), model["channels"], t)
    return pixels(state[len(small) : 2 * len(small)], patch, *x_t.shape[1:])


def sample(path, height, width, seed):
    """Return an image (c, y, x) in [-1, 1]: from noise, in the steps that the student has learnt."""
    weights, config = read(path)
    schedule, steps = config["schedule"], config["sampling"]["visited"]
    kind = config["sampling"]["sampler"], schedule["kind"], config["prediction"]
    assert kind == ("ddim", "cosine", "velocity"), f"a student by other means: {kind}"
    count = schedule["num_diffusion_steps"]
    progress = (np.arange(count + 1) / count + schedule["offset"]) / (1.0 + schedule["offset"])
    table = np.cos(progress * (np.pi / 2)) ** 2
    kept = np.cumprod(1.0 - np.clip(1.0 - table[1:] / table[:-1], schedule["min_beta"], schedule["max_beta"]))
    levels = [(kept[step] ** 0.5, (1.0 - kept[step]) ** 0.5) for step in steps] + [(1.0, 0.0)]
    x = normal(seed, 0, 0, height, width, config["model"]["image_channels"])
    for step, (alpha, sigma), (next_alpha, next_sigma) in zip(steps, levels, levels[1:], strict=False):
        clean = alpha * x - sigma * predict(weights, config["model"], x, step / count)
        share = next_sigma / sigma
        x = (share * x + (next_alpha - share * alpha) * clean).astype(np.float32)
    return x.clip(-1.0, 1.0)


def write_png(path, image):
    """Write an image (3, y, x) in [-1, 1] as a PNG file."""
    array = (np.moveaxis(image, 0, -1).astype(np.float64) * 127.5 + 128.0).clip(0, 255).astype(np.uint8)
    height, width = array.shape[:2]
    lines = b"".join(b"\0" + line.tobytes() for line in array)
    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", size), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")]
    chunks = (struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in parts)
    Path(path).write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights")
    parser.add_argument("out")
    for name, default in (("height", 96), ("width", 96), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    write_png(asked.out, sample(asked.weights, asked.height, asked.width, asked.seed))
