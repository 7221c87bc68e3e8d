"""From a chain of convolutions to the description and the float weights of a student of the same shape."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from pydantic import ValidationError

from neurodeploy.errors import Finding, FindingsError
from neurodeploy.graph.spec import StudentSpec
from neurodeploy.networks.convert.probe import HeadForm, TailForm
from neurodeploy.networks.convert.values import Chain, FloatArray, Layer


@dataclass(frozen=True)
class Shaped:
    """An ANN in the form of a student: ReLU where the student spikes.

    Attributes:
        spec: The student's description.
        weights: (O, I, K, K) a convolution; the first sees the image in pixel-unshuffled order, the last gives what
            the student's last gives.
        biases: (O,) each.
        caps: Value at which each activation is clipped.
        notes: What was done to it: padding with zeros, the noise level folded into a bias.
    """

    spec: StudentSpec
    weights: tuple[FloatArray, ...]
    biases: tuple[FloatArray, ...]
    caps: tuple[float, ...]
    notes: tuple[str, ...]


def shaped(
    chain: Chain,
    head: HeadForm,
    tail: TailForm,
    *,
    channels: int,
    levels: int,
    input_scale: float,
    noise_level: float | None,
    path: str,
) -> Shaped:
    """The student's shape with the network's weights.

    Layers narrower than the widest, and kernels smaller than the largest, are filled up with zeros, which changes
    nothing but the count of weights. A noise level that the network is told is folded into the first bias, which
    is exact but for the outermost pixels.

    Raises:
        FindingsError: The network is told the noise level and none is given, or the student cannot have its shape.
    """
    notes: list[str] = []
    layers = [_first(chain.layers[0], head, noise_level, notes, path), *chain.layers[1:]]
    layers[-1] = _last(layers[-1], tail)
    width = max(len(layer.bias) for layer in layers[:-1])
    kernel = max(layer.weight.shape[2] for layer in layers)
    dilations = tuple(layer.dilation for layer in layers)
    try:
        spec = StudentSpec.model_validate(
            {
                "channels": channels,
                "unshuffle": head.factor,
                "width": width,
                "depth": len(layers) - 1,
                "kernel": kernel,
                "dilation": () if set(dilations) == {1} else dilations,
                "edges": tuple(sorted(set(chain.edges))),
                "levels": levels,
                "steps": 1,
                "input_scale": input_scale,
                "residual": tail.residual,
            }
        )
    except ValidationError as error:
        findings = [Finding(".".join(map(str, d["loc"])) or path, str(d["msg"])) for d in error.errors()]
        raise FindingsError(f"{path}: no student can have its shape", findings, exit_code=2) from error
    weights = tuple(_filled(layer.weight, spec.conv_shape(k)) for k, layer in enumerate(layers))
    biases = tuple(_padded(layer.bias, spec.conv_shape(k)[0]) for k, layer in enumerate(layers))
    notes += list(_filling_notes(layers, spec))
    caps = tuple(chain.caps[k] for k in range(spec.depth))
    return Shaped(spec, weights, biases, caps, tuple(notes))


def _first(layer: Layer, head: HeadForm, noise_level: float | None, notes: list[str], path: str) -> Layer:
    weight = layer.weight[:, head.image] * head.scale
    if not len(head.noise):
        return replace(layer, weight=weight)
    if noise_level is None:
        finding = Finding(
            layer.name, "the network is told the noise level, which a student is not", instead="--sigma S"
        )
        raise FindingsError(f"{path}: a noise level has to be folded in", [finding], exit_code=2)
    notes.append(f"the noise level {noise_level * 255:g} of 255 is folded into the first bias")
    told = layer.weight[:, head.noise].sum(axis=(1, 2, 3)) * head.noise_scale * noise_level
    return replace(layer, weight=weight, bias=layer.bias + told)


def _last(layer: Layer, tail: TailForm) -> Layer:
    """``restored = image - output`` for a residual student, ``output`` for another."""
    factor = -tail.scale if tail.residual else tail.scale
    return replace(layer, weight=layer.weight[tail.channels] * factor, bias=layer.bias[tail.channels] * factor)


def _filled(weight: FloatArray, shape: tuple[int, int, int, int]) -> FloatArray:
    outputs, inputs, rows, _ = weight.shape
    ring = (shape[2] - rows) // 2
    return np.pad(weight, ((0, shape[0] - outputs), (0, shape[1] - inputs), (ring, ring), (ring, ring)))


def _padded(bias: FloatArray, outputs: int) -> FloatArray:
    return np.pad(bias, (0, outputs - len(bias)))


def _filling_notes(layers: list[Layer], spec: StudentSpec) -> Iterator[str]:
    for k, layer in enumerate(layers):
        wanted = spec.conv_shape(k)
        if layer.weight.shape != wanted:
            have, want = ("x".join(map(str, shape)) for shape in (layer.weight.shape, wanted))
            yield f"{layer.name}: filled up with zeros from {have} to {want} weights"
