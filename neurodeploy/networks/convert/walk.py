"""A walk over an ONNX graph that finds a chain of convolutions and activations, or everything that keeps it from one.

What lies before the first and behind the last convolution may be any operations; :mod:`.probe` finds out what they do.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import Finding, FindingsError
from neurodeploy.extras import require
from neurodeploy.graph.passes import fold_batch_norm
from neurodeploy.networks.convert.values import Active, Chain, Head, Layer, Pre, Tail, Value

ACTIVATIONS = ("Relu", "Clip (0 to a limit)")
LINEAR = ("Conv", "BatchNormalization", "Add, Sub, Mul, Div by a number a channel", "Add of two convolutions")
SILENT = ("Identity", "Dropout", "Cast", "Pad (zeros)")


def find_chain(model: Any, path: str) -> Chain:
    """The chain of convolutions and activations in a graph.

    Args:
        model: An ``onnx.ModelProto``.
        path: Where it came from, for messages.

    Raises:
        FindingsError: Everything in it that does not convert, in one message.
    """
    return _Walk(model, path).run()


class _Walk:
    def __init__(self, model: Any, path: str) -> None:
        self.onnx = require("onnx")
        self.graph, self.path = model.graph, path
        self.constants = known_constants(model)
        self.values: dict[str, Value] = {
            entry.name: Head() for entry in self.graph.input if entry.name not in self.constants
        }
        self.chain = Chain()
        self.findings: list[Finding] = []
        self.uses: dict[str, int] = {}
        for node in self.graph.node:
            for name in node.input:
                self.uses[name] = self.uses.get(name, 0) + 1

    def run(self) -> Chain:
        for node in self.graph.node:
            if all(name in self.constants for name in node.output):
                continue
            live = [self.values[name] for name in node.input if name in self.values]
            value = self._value(node, live)
            for name in node.output:
                self.values[name] = value
        self._finish()
        if self.findings:
            raise FindingsError(f"{self.path}: does not convert to a spiking student", self.findings, exit_code=2)
        return self.chain

    def _value(self, node: Any, live: list[Value]) -> Value:
        if node.op_type == "Conv":
            return self._conv(node, live)
        if all(isinstance(value, Head) for value in live):
            return Head()
        rule = _RULES.get(node.op_type)
        found = rule(self, node, live) if rule is not None else None
        return found if found is not None else self._other(node, live)

    def _other(self, node: Any, live: list[Value]) -> Value:
        """An operation without a rule: behind the last convolution it may be anything, elsewhere it is refused."""
        name = _label(node)
        behind: list[tuple[int, ...]] = []
        nodes: tuple[tuple[str, str], ...] = ()
        cut = ""
        for tensor in node.input:
            value = self.values.get(tensor)
            if isinstance(value, Active):
                self._refuse(name, f"{node.op_type} is not supported on an activation")
                return Active(value.layer)
            if isinstance(value, Pre):
                behind.append(value.layers)
                cut = tensor
            elif isinstance(value, Tail):
                behind.append(value.layers)
                nodes += value.nodes
                cut = value.cut
        if len({layers for layers in behind}) > 1:
            self._refuse(name, f"{node.op_type} joins the outputs of several convolutions")
        return Tail(behind[0], cut, (*nodes, (name, node.op_type)))

    def _refuse(self, node: str, rule: str, have: str = "", limit: str = "", instead: str = "") -> None:
        self.findings.append(Finding(node, rule, have, limit, instead))

    # convolutions

    def _conv(self, node: Any, live: list[Value]) -> Value:
        name, seen = _label(node), self.values.get(node.input[0], Head())
        source, padding, head = -1, 0, ""
        if isinstance(seen, Active):
            source, padding = seen.layer, seen.padding
        elif isinstance(seen, Pre):
            self._refuse(name, "follows a convolution without an activation between them")
            source = seen.layers[-1]
        elif isinstance(seen, Tail):
            for where, operation in seen.nodes:
                self._refuse(where, f"{operation} between convolutions is not supported")
            source = seen.layers[-1]
        else:
            head = node.input[0]
        weight = self.constants.get(node.input[1])
        if weight is None or weight.ndim != 4:
            self._refuse(name, "its weights are not constant, or it is not over two axes")
            weight = np.zeros((1, 1, 1, 1))
        bias = self.constants.get(node.input[2]) if len(node.input) > 2 and node.input[2] else np.zeros(len(weight))
        dilation = self._geometry(node, name, weight, padding)
        self.chain.layers.append(
            Layer(
                name,
                weight.astype(np.float64),
                np.asarray(bias, np.float64).reshape(-1),
                dilation,
                source,
                head,
            )
        )
        return Pre((len(self.chain.layers) - 1,))

    def _geometry(self, node: Any, name: str, weight: NDArray[Any], padding: int) -> int:
        """The dilation; refuses whatever else than a square kernel with zero padding to the same size."""
        attributes = {entry.name: self.onnx.helper.get_attribute_value(entry) for entry in node.attribute}
        rows, columns = weight.shape[2:] if weight.ndim == 4 else (1, 1)
        strides, dilations = (list(attributes.get(key, [1, 1])) for key in ("strides", "dilations"))
        kind = attributes.get("auto_pad", b"NOTSET")
        kind = kind.decode() if isinstance(kind, bytes) else str(kind)
        pads = [int(pad) + padding for pad in attributes.get("pads", [0] * 4)]
        if rows != columns or rows % 2 == 0:
            self._refuse(name, "its kernel is not square and odd", have=f"{rows}x{columns}")
        if any(stride != 1 for stride in strides):
            self._refuse(name, "has a stride", have=str(strides), limit="1")
        if int(attributes.get("group", 1)) != 1:
            self._refuse(name, "has groups", have=str(attributes["group"]), limit="1")
        if len(set(dilations)) > 1 or not 1 <= dilations[0] <= 16:
            self._refuse(name, "its dilation differs between the axes or is too large", have=str(dilations), limit="16")
        same = [int(dilations[0]) * (rows // 2)] * 4
        if (not kind.startswith("SAME") or padding) and pads != same:
            self._refuse(name, "does not keep the size of its input", have=f"pads {pads}", limit=f"pads {same}")
        return int(dilations[0])

    # what folds into a convolution, or is one of its activations

    def _one_layer(self, tensor: str) -> Layer | None:
        """The layer whose output this is, if nothing else looks at it."""
        value = self.values.get(tensor)
        if isinstance(value, Pre) and len(value.layers) == 1 and self.uses.get(tensor) == 1:
            return self.chain.layers[value.layers[0]]
        return None

    def batch_norm(self, node: Any, live: list[Value]) -> Value | None:
        layer = self._one_layer(node.input[0])
        numbers = [self.constants.get(name) for name in node.input[1:5]]
        if layer is None or any(value is None for value in numbers):
            return None
        gamma, beta, mean, var = (np.asarray(value, np.float64) for value in numbers)
        epsilon = next((float(entry.f) for entry in node.attribute if entry.name == "epsilon"), 1e-5)
        weight, bias = fold_batch_norm(layer.weight, layer.bias, mean, var, gamma, beta, epsilon)
        layer.weight, layer.bias = weight.astype(np.float64), bias.astype(np.float64)
        return live[0]

    def arithmetic(self, node: Any, live: list[Value]) -> Value | None:
        if node.op_type == "Add" and len(live) == 2 and all(isinstance(value, Pre) for value in live):
            joined = [layer for value in live if isinstance(value, Pre) for layer in value.layers]
            return Pre(tuple(sorted(joined)))
        place = next((k for k, name in enumerate(node.input) if name in self.constants), None)
        if place is None or len(node.input) != 2:
            return None
        layer = self._one_layer(node.input[1 - place])
        if layer is None or (place == 0 and node.op_type in ("Div",)):
            return None
        number = self._channel_numbers(self.constants[node.input[place]], len(layer.bias))
        if number is None:
            return None
        if node.op_type in ("Mul", "Div"):
            factor = number if node.op_type == "Mul" else 1 / number
            layer.weight, layer.bias = layer.weight * factor[:, None, None, None], layer.bias * factor
        elif node.op_type == "Sub" and place == 0:
            layer.weight, layer.bias = -layer.weight, number - layer.bias
        else:
            layer.bias = layer.bias + (number if node.op_type == "Add" else -number)
        return live[0]

    @staticmethod
    def _channel_numbers(value: NDArray[Any], channels: int) -> NDArray[np.float64] | None:
        """One number a channel of something that broadcasts over (B, C, h, w); None if it is something else."""
        shape = (1,) * (4 - value.ndim) + value.shape
        if len(shape) != 4 or shape[0] != 1 or shape[1] not in (1, channels) or shape[2:] != (1, 1):
            return None
        numbers: NDArray[np.float64] = np.broadcast_to(value.reshape(-1).astype(np.float64), (channels,)).copy()
        return numbers

    def activation(self, node: Any, live: list[Value]) -> Value | None:
        value = live[0]
        if isinstance(value, Active):
            return value if node.op_type == "Relu" else None
        if not isinstance(value, Pre):
            return None
        cap = math.inf
        if node.op_type == "Clip":
            attributes = {entry.name: entry.f for entry in node.attribute}
            low, high = (
                self.constants.get(node.input[place]) if len(node.input) > place else attributes.get(key)
                for place, key in ((1, "min"), (2, "max"))
            )
            if low is None or float(np.asarray(low).reshape(-1)[0]) != 0.0:
                return None
            cap = math.inf if high is None else float(np.asarray(high).reshape(-1)[0])
        layer, before = value.layers[-1], value.layers[:-1]
        if layer in self.chain.caps:
            self._refuse(_label(node), "is a second activation of the same convolution")
        self.chain.caps[layer] = cap
        self.chain.edges += [(source, layer) for source in before]
        return Active(layer)

    def silent(self, node: Any, live: list[Value]) -> Value | None:
        if node.op_type == "Pad":
            return self._pad(node, live)
        return live[0] if not isinstance(live[0], Tail) else None

    def _pad(self, node: Any, live: list[Value]) -> Value | None:
        mode = next((entry.s.decode() for entry in node.attribute if entry.name == "mode"), "constant")
        pads = self.constants.get(node.input[1]) if len(node.input) > 1 else None
        zero = len(node.input) < 3 or not node.input[2] or not np.any(self.constants.get(node.input[2], np.ones(1)))
        value = live[0]
        if not isinstance(value, Active) or mode != "constant" or pads is None or not zero:
            return None
        sides = {int(pads.reshape(-1)[place]) for place in (2, 3, 6, 7)}
        outer = {int(pads.reshape(-1)[place]) for place in (0, 1, 4, 5)}
        return Active(value.layer, value.padding + sides.pop()) if len(sides) == 1 and outer == {0} else None

    # the whole

    def _finish(self) -> None:
        layers, caps = self.chain.layers, self.chain.caps
        final = self.values.get(self.graph.output[0].name, Head())
        if not layers:
            self._refuse(self.path, "has no convolution")
            return
        last = len(layers) - 1
        if isinstance(final, Active):
            self._refuse(layers[final.layer].name, "the network ends with an activation", instead="a plain convolution")
        elif isinstance(final, Pre | Tail) and final.layers != (last,):
            self._refuse(layers[last].name, "the output does not come from the last convolution alone")
        if last == 0 and not self.findings:
            self._refuse(layers[0].name, "one convolution alone has nothing that spikes")
        for place, layer in enumerate(layers):
            if place == 0 and layer.source != -1:
                self._refuse(layer.name, "the first convolution does not see the image")
            if place > 0 and layer.source == -1:
                self._refuse(layer.name, "sees the image again, beside the first convolution")
            if place > 0 and layer.source not in (-1, place - 1):
                self._refuse(layer.name, f"sees the activation of {layers[layer.source].name}, not that before it")
            if place < last and place not in caps and not self.findings:
                self._refuse(layer.name, "has no activation")
        for source, target in self.chain.edges:
            if source == 0:
                self._refuse(layers[target].name, "adds the output of the first convolution, which sees codes")
        self.chain.head = layers[0].head
        self.chain.cut = final.cut if isinstance(final, Tail) else self.graph.output[0].name


def known_constants(model: Any) -> Mapping[str, NDArray[Any]]:
    """Every tensor that depends on no input, by name; computed by onnx's own evaluator where it is computed."""
    onnx = require("onnx")
    graph = model.graph
    known = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    opsets = list(model.opset_import)
    for node in graph.node:
        if any(name and name not in known for name in node.input) or any(
            entry.HasField("g") for entry in node.attribute
        ):
            continue
        inputs = [name for name in node.input if name]
        infos = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.UNDEFINED, None) for name in inputs]
        outputs = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.UNDEFINED, None) for name in node.output]
        one = onnx.helper.make_model(onnx.helper.make_graph([node], "c", infos, outputs), opset_imports=opsets)
        evaluator = importlib.import_module("onnx.reference").ReferenceEvaluator(one)
        values = evaluator.run(None, {name: known[name] for name in inputs})
        known |= {name: np.asarray(value) for name, value in zip(node.output, values, strict=True)}
    return known


def _label(node: Any) -> str:
    return str(node.name or (node.output[0] if node.output else node.op_type))


Rule = Callable[[_Walk, Any, list[Value]], Value | None]

_RULES: dict[str, Rule] = {
    "BatchNormalization": _Walk.batch_norm,
    "Add": _Walk.arithmetic,
    "Sub": _Walk.arithmetic,
    "Mul": _Walk.arithmetic,
    "Div": _Walk.arithmetic,
    "Relu": _Walk.activation,
    "Clip": _Walk.activation,
    "Identity": _Walk.silent,
    "Dropout": _Walk.silent,
    "Cast": _Walk.silent,
    "Pad": _Walk.silent,
}
