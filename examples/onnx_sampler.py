"""Sample a student of few steps with onnxruntime: its ONNX file is enough.

    diffnca export pathology-4step --format onnx --loop --out student.onnx
    python examples/onnx_sampler.py student.onnx tissue.png --height 256 --width 256 --seed 0

It needs no torch and no diffnca. The noise is that of numpy_sampler.py, so a seed gives the image that
`diffnca sample` makes of it.
"""

import argparse

import numpy as np
import onnxruntime
from numpy_sampler import normal, write_png


def sample(path, height, width, seed):
    """Return an image (c, y, x) in [-1, 1]; given planes, if the model has some, are zero."""
    session = onnxruntime.InferenceSession(path)
    inputs = {}
    for each in session.get_inputs():
        channels = each.shape[1]
        if each.name == "noise":
            inputs["noise"] = normal(seed, 0, 0, height, width, channels)[None]
        elif each.name == "given":
            inputs["given"] = np.zeros((1, channels, height, width), np.float32)
    return session.run(None, inputs)[0][0]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("out")
    for name, default in (("height", 96), ("width", 96), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    write_png(asked.out, sample(asked.model, asked.height, asked.width, asked.seed))
