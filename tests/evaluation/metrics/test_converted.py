"""`benchmarks/judges.py` reads the packages of networks in both of their forms."""

import base64
import json
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

from diffnca.models.tensorflow import RANGE, as_float

CONVERTER = runpy.run_path(str(Path(__file__).parents[3] / "benchmarks" / "judges.py"))
QUANTIZED = {"dtype": "uint8", "scale": 0.5, "min": -1.0}


def entry(name: str, shape: list[int], **quantization: object) -> dict[str, object]:
    return {"name": name, "shape": shape, "dtype": "float32", **quantization}


def test_bytes_and_floats_of_face_api_get_their_names_and_axes(tmp_path: Path) -> None:
    entries = [
        entry("a/depthwise_filter", [1, 2, 3, 1], quantization=QUANTIZED),
        entry("a/pointwise_filter", [1, 1, 3, 2], quantization=QUANTIZED),
        entry("a/bias", [2], quantization=QUANTIZED),
        entry("b/scale/biases", [1], quantization=QUANTIZED),
        entry("fc", [2, 1]),
    ]
    content = bytes(range(15)) + np.array([0.25, 0.75], np.float32).tobytes()
    (tmp_path / "m-weights_manifest.json").write_text(json.dumps([{"weights": entries}]))
    (tmp_path / "m.bin").write_bytes(content)
    tensors = CONVERTER["tensors_of_faces"](list(CONVERTER["weights_in_manifest"](tmp_path, "m")))
    assert tensors["a.depthwise.weight"].tolist() == [[[[0, 3]]], [[[1, 4]]], [[[2, 5]]]]
    assert tensors["a.pointwise.weight"][:, :, 0, 0].tolist() == [[6, 8, 10], [7, 9, 11]]
    assert tensors["a.pointwise.bias"].tolist() == [12, 13]
    assert as_float(tensors["b.scale.bias"], tensors["b.scale.bias" + RANGE]).tolist() == [14 * 0.5 - 1]
    assert tensors["fc.weight"].tolist() == [[0.25, 0.75]]


def test_a_file_of_another_length_is_refused(tmp_path: Path) -> None:
    entries = [entry("fc", [2, 1])]
    (tmp_path / "m-weights_manifest.json").write_text(json.dumps([{"weights": entries}]))
    (tmp_path / "m.bin").write_bytes(bytes(7))
    with pytest.raises(SystemExit, match="7 bytes of weights, not 8"):
        list(CONVERTER["weights_in_manifest"](tmp_path, "m"))


def test_the_scripts_of_nsfwjs_are_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    table = '{name:"k",shape:[2,1000],dtype:"float32",quantization:{min:-.5,scale:2e-3,dtype:"uint8"}}'
    (tmp_path / "model.min.js").write_text(f"x={{weights:[{table}]}}")
    for number, byte in ((1, 7), (2, 9)):
        text = base64.b64encode(bytes([byte]) * 1000).decode()
        (tmp_path / f"group1-shard{number}of2.min.js").write_text(f'module.exports="{text}"')
    (weights,) = CONVERTER["weights_in_scripts"](tmp_path)
    assert (weights.name, weights.limits) == ("k", (0.002, -0.5))
    assert torch.from_numpy(weights.values).float().mean(1).tolist() == [7, 9]
