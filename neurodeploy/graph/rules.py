"""Rules for single nodes: which kinds, what breaks it, and the sentence that says so."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from typing import Any

import nir
import numpy as np

from neurodeploy.errors import Finding
from neurodeploy.graph.shapes import pair

SPIKING = (nir.LIF, nir.IF, nir.CubaLIF)
INTEGRATORS = (nir.I, nir.LI, nir.CubaLI)
NEURONS = (*SPIKING, *INTEGRATORS)
CONVOLUTIONS = (nir.Conv1d, nir.Conv2d)
MATRICES = (nir.Affine, nir.Linear)
POOLS = (nir.SumPool2d, nir.AvgPool2d)

ARRAYS: dict[type, tuple[str, ...]] = {
    nir.Conv1d: ("weight", "bias"),
    nir.Conv2d: ("weight", "bias"),
    nir.Affine: ("weight", "bias"),
    nir.Linear: ("weight",),
    nir.Scale: ("scale",),
    nir.Threshold: ("threshold",),
    nir.Delay: ("delay",),
    nir.I: ("r",),
    nir.LI: ("tau", "r", "v_leak"),
    nir.IF: ("r", "v_threshold", "v_reset"),
    nir.LIF: ("tau", "r", "v_leak", "v_threshold", "v_reset"),
    nir.CubaLI: ("tau_syn", "tau_mem", "r", "v_leak", "w_in"),
    nir.CubaLIF: ("tau_syn", "tau_mem", "r", "v_leak", "v_threshold", "v_reset", "w_in"),
}
"""Parameter arrays of every kind of node."""

Predicate = Callable[[Any], str | None]
"""Looks at a node; what it has that breaks the rule, or None."""


@dataclass(frozen=True)
class Rule:
    """A law for single nodes."""

    pattern: tuple[type, ...]
    broken: Predicate
    sentence: str
    limit: str = ""
    instead: str = ""


def _parameters(node: nir.NIRNode) -> dict[str, Any]:
    return {field: getattr(node, field) for field in ARRAYS[type(node)]}


# predicates


def _not_real(node: nir.NIRNode) -> str | None:
    for field, values in _parameters(node).items():
        kind = getattr(values, "dtype", None)
        if kind is None or kind.kind not in "iufb":
            return f"{field}: {kind if kind is not None else type(values).__name__}"
    return None


def _not_finite(node: nir.NIRNode) -> str | None:
    for field, values in _parameters(node).items():
        if not np.isfinite(values).all():
            return f"{field}: {int((~np.isfinite(values)).sum())} of {values.size} values"
    return None


def _empty(node: nir.NIRNode) -> str | None:
    return next((f"{field}: {values.shape}" for field, values in _parameters(node).items() if values.size == 0), None)


def _weight_axes(least: int, most: int) -> Predicate:
    def broken(node: Any) -> str | None:
        return None if least <= node.weight.ndim <= most else f"{node.weight.ndim} axes"

    return broken


def _bias_length(node: Any) -> str | None:
    outputs = node.weight.shape[:1] if isinstance(node, CONVOLUTIONS) else node.weight.shape[:-1]
    return None if node.bias.shape == outputs else f"{node.bias.shape} for {outputs} outputs"


def _different_shapes(node: nir.NIRNode) -> str | None:
    shapes = {field: np.shape(values) for field, values in _parameters(node).items()}
    if len(set(shapes.values())) == 1:
        return None
    return ", ".join(f"{field} {shape}" for field, shape in shapes.items())


def _not_positive(*fields: str) -> Predicate:
    def broken(node: Any) -> str | None:
        for field in fields:
            if np.min(getattr(node, field)) <= 0:
                return f"{field} {float(np.min(getattr(node, field))):g}"
        return None

    return broken


def _bad_integers(*fields: str, least: int, count: tuple[int, ...], words: bool = False) -> Predicate:
    """Fields that hold something else than ``count`` whole numbers of at least ``least``, or words where they may."""

    def broken(node: Any) -> str | None:
        for field in fields:
            values = getattr(node, field)
            if isinstance(values, str | bytes):
                if words:
                    continue
                return f"{field} {values!r}"
            array = np.asarray(values)
            whole = array.dtype.kind in "iu" or (
                array.dtype.kind == "f" and np.all(np.isfinite(array)) and np.all(array == np.round(array))
            )
            if array.ndim > 1 or array.size not in count or not whole or array.min() < least:
                return f"{field} {array.tolist() if array.size <= 8 else array.shape}"
        return None

    return broken


def _bad_padding_word(node: Any) -> str | None:
    if not isinstance(node.padding, str | bytes):
        return None
    word = node.padding.decode(errors="replace") if isinstance(node.padding, bytes) else node.padding
    if word not in ("same", "valid"):
        return repr(word)
    return f"'same' with stride {pair(node.stride)}" if word == "same" and set(pair(node.stride)) != {1} else None


def _bad_groups(node: Any) -> str | None:
    groups = np.asarray(node.groups)
    if groups.ndim != 0 or groups.dtype.kind not in "iu" or groups < 1:
        return repr(groups.tolist())
    return None if node.weight.shape[0] % int(groups) == 0 else f"{int(groups)} groups, {node.weight.shape[0]} outputs"


def _bad_shape(attribute: str, key: str) -> Predicate:
    def broken(node: Any) -> str | None:
        shape = np.asarray(getattr(node, attribute)[key])
        good = shape.dtype.kind in "iu" and shape.ndim == 1 and shape.size > 0 and shape.min() > 0
        return None if good else f"{shape.tolist()} ({shape.dtype})"

    return broken


def _not_square(node: Any) -> str | None:
    rows, columns = node.weight.shape[2:]
    return None if rows == columns else f"{rows}x{columns}"


def _grouped(node: Any) -> str | None:
    return None if int(node.groups) == 1 else str(int(node.groups))


def _padding_word(node: Any) -> str | None:
    return repr(node.padding) if isinstance(node.padding, str | bytes) else None


def _not_float32(node: Any) -> str | None:
    return next((f"{field}: {v.dtype}" for field, v in _parameters(node).items() if v.dtype != np.float32), None)


def _not_all(field: str, value: float) -> Predicate:
    def broken(node: Any) -> str | None:
        values = np.asarray(getattr(node, field))
        return None if np.all(values == value) else f"{float(values.min()):g}..{float(values.max()):g}"

    return broken


def _not_uniform(node: Any) -> str | None:
    for field in ("tau", "v_threshold"):
        values = getattr(node, field)
        if values.size and values.min() != values.max():
            return f"{field} {float(values.min()):g}..{float(values.max()):g}"
    return None


_WITH_ARRAYS = tuple(ARRAYS)
_UNREADABLE = "parameters must be arrays of real numbers"
_AXES = "its weight has the wrong number of axes"
_EMPTY = "a parameter is empty"
UNUSABLE = (_UNREADABLE, _AXES, _EMPTY)
"""Sentences after which a node is not looked at further: the other predicates would stumble."""

VALUE_RULES: tuple[Rule, ...] = (
    Rule(_WITH_ARRAYS, _not_real, _UNREADABLE),
    Rule(_WITH_ARRAYS, _empty, _EMPTY),
    Rule((nir.Conv2d,), _weight_axes(4, 4), _AXES, "4 (out, in, rows, columns)"),
    Rule((nir.Conv1d,), _weight_axes(3, 3), _AXES, "3 (out, in, length)"),
    Rule(MATRICES, _weight_axes(2, 32), _AXES, "2 (out, in)"),
    Rule(_WITH_ARRAYS, _not_finite, "a parameter holds values that are not finite"),
    Rule((*CONVOLUTIONS, nir.Affine), _bias_length, "its bias has the wrong length", "one value an output"),
    Rule(NEURONS, _different_shapes, "its parameters differ in shape", "one shape, that of the layer"),
    Rule((nir.LIF, nir.LI), _not_positive("tau"), "tau must be positive"),
    Rule((nir.CubaLIF, nir.CubaLI), _not_positive("tau_syn", "tau_mem"), "tau must be positive"),
    Rule(
        (nir.Conv2d,),
        _bad_integers("stride", "dilation", least=1, count=(1, 2)),
        "stride and dilation must be whole numbers from 1 up",
        "one number, or two",
    ),
    Rule(
        (nir.Conv1d,),
        _bad_integers("stride", "dilation", least=1, count=(1,)),
        "stride and dilation must be whole numbers from 1 up",
        "one number",
    ),
    Rule(
        (nir.Conv2d,),
        _bad_integers("padding", least=0, count=(1, 2), words=True),
        "padding must be whole numbers from 0 up",
    ),
    Rule(
        (nir.Conv1d,),
        _bad_integers("padding", least=0, count=(1,), words=True),
        "padding must be a whole number from 0 up",
    ),
    Rule(CONVOLUTIONS, _bad_padding_word, "unknown padding", "numbers, 'valid', or 'same' with stride 1"),
    Rule(CONVOLUTIONS, _bad_groups, "groups must be a whole number that divides the outputs"),
    Rule(
        POOLS,
        _bad_integers("kernel_size", "stride", least=1, count=(1, 2)),
        "kernel size and stride must be whole numbers from 1 up",
    ),
    Rule(POOLS, _bad_integers("padding", least=0, count=(1, 2)), "padding must be whole numbers from 0 up"),
    Rule((nir.Flatten,), _bad_integers("start_dim", "end_dim", least=-8, count=(1,)), "dimensions must be integers"),
    Rule((nir.Input,), _bad_shape("input_type", "input"), "its shape must be whole numbers from 1 up"),
    Rule((nir.Output,), _bad_shape("output_type", "output"), "its shape must be whole numbers from 1 up"),
)
"""What holds for every node of every vocabulary."""

PORTABLE_RULES: tuple[Rule, ...] = (
    Rule((nir.Conv2d,), _not_square, "readers get the shape of a kernel that is not square wrong", "a square kernel"),
    Rule((nir.Conv2d,), _grouped, "grouped convolutions are refused by readers", "groups 1"),
    Rule((nir.Conv2d,), _padding_word, "padding by name is refused by readers", "whole numbers"),
    Rule((nir.Conv2d, nir.LIF), _not_float32, "some readers refuse other number types", "float32"),
    Rule((nir.LIF,), _not_all("r", 1.0), "r is ignored by some readers", "1", "fold the gain into the weights"),
    Rule((nir.LIF,), _not_all("v_leak", 0.0), "readers start from different potentials with a leak potential", "0"),
    Rule((nir.LIF,), _not_all("v_reset", 0.0), "v_reset is ignored by some readers", "0"),
    Rule((nir.LIF,), _not_uniform, "readers want one tau and one threshold a layer", "one value"),
    Rule((nir.LIF,), _not_positive("v_threshold"), "the threshold must be positive"),
)
"""What the portable form asks beyond that."""


def apply_rules(graph: nir.NIRGraph, rules: tuple[Rule, ...], skip: Container[str] = ()) -> Iterator[Finding]:
    """What the nodes of a graph break of some rules; nodes in ``skip`` are not looked at."""
    for name, node in graph.nodes.items():
        for rule in rules:
            if isinstance(node, rule.pattern) and name not in skip:
                have = rule.broken(node)
                if have is not None:
                    yield Finding(name, rule.sentence, have=have, limit=rule.limit, instead=rule.instead)
                    if rule.sentence in UNUSABLE:
                        break
