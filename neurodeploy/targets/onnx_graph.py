"""Putting an ONNX graph together: names, constants (each once), nodes, inputs and outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurodeploy.extras import require

OPSET, IR_VERSION = 17, 8

Dims = Sequence[int | str]


class Graph:
    """A graph that grows; every method hands back the name of the tensor that it makes."""

    def __init__(self) -> None:
        self.onnx = require("onnx")
        self.types = self.onnx.TensorProto
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []
        self._kept: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    def add(self, operation: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """A node with one output."""
        self.nodes.append(self.onnx.helper.make_node(operation, list(inputs), [output], name=output, **attributes))
        return output

    def split(self, x: str, parts: int, size: int, output: str) -> list[str]:
        """Equal parts along axis 1."""
        names = [f"{output}.{part}" for part in range(parts)]
        sizes = self.constant(np.full(parts, size, np.int64))
        self.nodes.append(self.onnx.helper.make_node("Split", [x, sizes], names, name=output, axis=1))
        return names

    def smallest(self, x: str, count: str, output: str) -> str:
        """The largest of the ``count`` smallest values along axis 1: (B, 1) of (B, N)."""
        names = [f"{output}.smallest", f"{output}.places"]
        node = self.onnx.helper.make_node("TopK", [x, count], names, name=names[0], axis=1, largest=0, sorted=1)
        self.nodes.append(node)
        last = self.add("Sub", [count, self.constant(np.array([1], np.int64))], f"{output}.last")
        return self.add("Gather", [names[0], last], output, axis=1)

    def constant(self, value: NDArray[Any] | np.generic, name: str | None = None) -> str:
        """An initializer; without a name, equal values share one."""
        array = np.asarray(value)
        key = array.dtype.str, array.shape, array.tobytes()
        if name is None:
            if key in self._kept:
                return self._kept[key]
            name = self._kept[key] = f"const{len(self._kept)}"
        self.constants[name] = self.onnx.numpy_helper.from_array(array, name)
        return name

    def input(self, name: str, kind: str, dims: Dims) -> str:
        """An input of the graph; ``kind`` is a name of ``onnx.TensorProto``."""
        self.inputs.append(self._info(name, kind, dims))
        return name

    def output(self, name: str, kind: str, dims: Dims) -> str:
        """Makes a tensor an output of the graph."""
        self.outputs.append(self._info(name, kind, dims))
        return name

    def _info(self, name: str, kind: str, dims: Dims) -> Any:
        return self.onnx.helper.make_tensor_value_info(name, getattr(self.types, kind), list(dims))

    def model(self, name: str, metadata: dict[str, str]) -> Any:
        """The ``onnx.ModelProto``."""
        helper = self.onnx.helper
        graph = helper.make_graph(self.nodes, name, self.inputs, self.outputs, list(self.constants.values()))
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="neurodeploy"
        )
        helper.set_model_props(model, metadata)
        return model
