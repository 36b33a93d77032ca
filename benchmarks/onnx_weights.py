"""What smaller weights of an ONNX file cost: size, change of the images, KID x 1000 to held-out pictures.

    python benchmarks/onnx_weights.py

All types make the images of the same seeds, so that their scores differ by the weights alone.
"""

from pathlib import Path

import numpy as np
import onnxruntime
import torch

from diffnca.canvas.noise import Noise, Stream
from diffnca.canvas.pixels import to_uint8
from diffnca.canvas.region import Canvas
from diffnca.evaluation.metrics.distances import kid, kid_difference
from diffnca.evaluation.metrics.features import efficientnet_lite0, extract
from diffnca.export.graph import WEIGHTS
from diffnca.export.onnx import Options, model_of
from diffnca.models.file import load_denoiser

REFERENCES = Path(__file__).parents[1] / "tests" / "reference"
CROP = 64
COLUMNS = [
    *("model", "weights", "file, kB", "mean change, levels of 255", "largest", "KID x 1000"),
    "less that of float32",
]
MODELS = {"pathology-4step": ("pathology", 256, 8), "faces-4step": ("faces", 64, 128)}
"""Whose held-out pictures a student is compared with, the side of its images, and their number."""


def images_of(file: bytes, side: int, count: int, channels: int = 3) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session, region = onnxruntime.InferenceSession(file, options), Canvas(side, side).whole
    noises = (Noise((seed,)).normal(Stream.INITIAL, 0, region, channels).numpy() for seed in range(count))
    images = np.concatenate([session.run(None, {"noise": noise})[0] for noise in noises])
    return to_uint8(torch.from_numpy(images))


def crops_of(pictures: np.ndarray) -> torch.Tensor:
    crops = torch.from_numpy(pictures).unfold(1, CROP, CROP).unfold(2, CROP, CROP)
    return crops.flatten(0, 2).contiguous()


def main() -> None:
    """Print a row of a table for each model and type of weights."""
    extractor = efficientnet_lite0()
    print(f"| {' | '.join(COLUMNS)} |")
    print(f"{'|---' * len(COLUMNS)}|")
    for name, (kind, side, count) in MODELS.items():
        with np.load(REFERENCES / f"features_{kind}.npz") as stored:
            reference = torch.from_numpy(stored["features"]).float()
        full, known = None, None
        for weights in WEIGHTS:
            model = model_of(load_denoiser(name), Options(weights=weights, loop=True)).SerializeToString()
            pictures = images_of(model, side, count)
            full = pictures if full is None else full
            change = np.abs(pictures.astype(int) - full.astype(int))
            features = extract(extractor, crops_of(pictures))
            known = features if known is None else known
            score, apart = kid(features, reference), kid_difference(features[None], known[None], reference)
            numbers = (
                f"{change.mean():.2f} | {change.max()} | {1000 * score.value:.0f} ± {1000 * score.error:.0f}"
            )
            numbers += f" | {1000 * apart.mean:.1f} ± {1000 * apart.error:.1f}"
            print(f"| `{name}` | {weights} | {len(model) / 1000:.0f} | {numbers} |", flush=True)


if __name__ == "__main__":
    main()
