"""A graph of ONNX, written as arithmetic: each operation on a `Value` adds a node.

The operators are those of opset 13, which old and small runtimes know too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from torch import Tensor

from diffnca.export.packed import LARGEST_INT8

try:
    import onnx
    from onnx import helper, numpy_helper
except ImportError:
    raise ImportError("ONNX files need the package onnx: pip install 'diffnca[export]'") from None

OPSET = 13
IR_VERSION = 7
"""The version of the file format that came with this opset."""

Weights = Literal["float32", "float16", "int8"]
WEIGHTS = get_args(Weights)


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor of a graph; Python numbers beside it become constants of its type."""

    graph: Graph
    name: str
    dtype: type[np.generic]

    def __add__(self, other: Value | int | float) -> Value:
        return self.graph.add("Add", self, other)

    def __sub__(self, other: Value | int | float) -> Value:
        return self.graph.add("Sub", self, other)

    def __mul__(self, other: Value | int | float) -> Value:
        return self.graph.add("Mul", self, other)

    def __truediv__(self, other: Value | int | float) -> Value:
        return self.graph.add("Div", self, other)

    def __matmul__(self, other: Value) -> Value:
        return self.graph.add("MatMul", self, other)

    def __pow__(self, exponent: int | float) -> Value:
        return self.graph.add("Pow", self, exponent)

    def __neg__(self) -> Value:
        return self.graph.add("Neg", self)

    def to(self, dtype: type[np.generic]) -> Value:
        """Return the numbers as another type."""
        code = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return self.graph.add("Cast", self, dtype=dtype, to=code)

    def channels(self, first: int, end: int) -> Value:
        """Return the channels from `first` to before `end`."""
        bounds = (self.graph.constant(np.array([number], np.int32)) for number in (first, end, 1))
        return self.graph.add("Slice", self, *bounds)

    def shaped(self, *shape: int) -> Value:
        """Return the numbers in another shape, in which 0 keeps a side and -1 takes what is left."""
        return self.graph.add("Reshape", self, self.graph.constant(np.array(shape, np.int64)))

    def side(self, axis: int) -> Value:
        """Return the number of entries along an axis, as a single int32."""
        shape = self.graph.add("Shape", self, dtype=np.int64)
        return self.graph.add("Gather", shape, self.graph.constant(np.array(axis, np.int32))).to(np.int32)


class Graph:
    """The nodes of a model, each once: equal operations on equal values are one node."""

    def __init__(self, weights: Weights = "float32") -> None:
        """Begin a graph that stores its weights in this type."""
        self.weights = weights
        self.nodes: dict[tuple[Any, ...], Value] = {}
        self.protos: list[Any] = []
        self.inputs: list[Any] = []
        self.constants: dict[tuple[Any, ...], Any] = {}

    def input(self, name: str, dtype: type[np.generic], shape: Sequence[int | str]) -> Value:
        """Add an input; sides with a name are free."""
        code = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        self.inputs.append(helper.make_tensor_value_info(name, code, shape))
        return Value(self, name, dtype)

    def constant(self, array: np.ndarray) -> Value:
        """Add numbers that are part of the file."""
        array = np.asarray(array)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self.constants:
            self.constants[key] = numpy_helper.from_array(array, f"constant_{len(self.constants)}")
        return Value(self, self.constants[key].name, array.dtype.type)

    def weight(self, weight: Tensor) -> Value:
        """Add the weights of a layer, in the type of the file; the graph computes in float32."""
        array = weight.detach().cpu().float().numpy()
        if self.weights == "float32":
            return self.constant(array)
        if self.weights == "float16" or array.ndim == 1:
            return self.constant(array.astype(np.float16)).to(np.float32)
        whole, factor = nearest_eight_bits(array)
        return self.constant(whole).to(np.float32) * self.constant(factor)

    def add(
        self, op: str, *inputs: Value | int | float, dtype: type[np.generic] | None = None, **attributes: Any
    ) -> Value:
        """Add a node; its result has the type of its first input, if no other is given."""
        first = inputs[0]
        assert isinstance(first, Value), "a node begins with a value"
        values = [
            each if isinstance(each, Value) else self.constant(np.array(each, first.dtype)) for each in inputs
        ]
        key = (op, *(each.name for each in values), repr(attributes))
        if key not in self.nodes:
            name = f"{op}_{len(self.nodes)}"
            self.protos.append(helper.make_node(op, [each.name for each in values], [name], **attributes))
            self.nodes[key] = Value(self, name, dtype or first.dtype)
        return self.nodes[key]

    def range(self, first: Value | int, end: Value) -> Value:
        """Return the whole numbers from `first` to before `end`."""
        start = first if isinstance(first, Value) else self.constant(np.array(first, np.int32))
        return self.add("Range", start, end, 1)

    def concat(self, values: Sequence[Value]) -> Value:
        """Return all channels of several values."""
        return self.add("Concat", *values, axis=1) if len(values) > 1 else values[0]

    def model(self, output: Value, name: str, shape: Sequence[int | str], facts: Mapping[str, str]) -> Any:
        """Return the model with one output, and with facts for its users."""
        code = helper.np_dtype_to_tensor_dtype(np.dtype(output.dtype))
        result = helper.make_tensor_value_info(name, code, shape)
        nodes = [*self.protos, helper.make_node("Identity", [output.name], [name])]
        used = {name for node in nodes for name in node.input}
        constants = [each for each in self.constants.values() if each.name in used]
        graph = helper.make_graph(nodes, "diffnca", self.inputs, [result], constants)
        opset = helper.make_opsetid("", OPSET)
        model = helper.make_model(
            graph, opset_imports=[opset], producer_name="diffnca", ir_version=IR_VERSION
        )
        helper.set_model_props(model, dict(facts))
        onnx.checker.check_model(model)
        return model


def nearest_eight_bits(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return weights as whole numbers from -127 to 127, and the factor of each output channel.

    A factor has all bits of float32, as the graph computes in it; so weights change less than in a page.
    """
    largest = np.abs(array).max(axis=tuple(range(1, array.ndim)), keepdims=True)
    factor = np.where(largest > 0.0, largest / LARGEST_INT8, 1.0).astype(np.float32)
    return np.rint(array / factor).astype(np.int8), factor
