"""What a graph does before its first and behind its last convolution, found out by running those parts.

Pixel-unshuffle is written in many ways (SpaceToDepth, Reshape and Transpose, slices, a convolution library's own); here
it is what a picture of all different values comes out as.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import UserError
from neurodeploy.extras import require
from neurodeploy.graph.spec import pixel_shuffle, pixel_unshuffle

FloatArray = NDArray[np.float64]

SIDES = (96, 48)
"""Picture that is sent through, where the graph leaves the size open; a multiple of every usual factor."""


@dataclass(frozen=True)
class HeadForm:
    """What the first convolution sees.

    Attributes:
        factor: Of the pixel-unshuffle.
        scale: By which the image is multiplied.
        image: Place in pixel-unshuffled order -> channel that holds it, (C * r * r,).
        noise: Channels that hold the noise level all over.
        noise_scale: By which it is multiplied.
    """

    factor: int
    scale: float
    image: NDArray[np.int64]
    noise: NDArray[np.int64]
    noise_scale: float


@dataclass(frozen=True)
class TailForm:
    """``restored = image + scale * shuffled`` or ``scale * shuffled``.

    Attributes:
        residual: Whether the image is added.
        scale: Of the last convolution's output.
        channels: Place in pixel-shuffled order -> output channel of the last convolution, (C * r * r,).
    """

    residual: bool
    scale: float
    channels: NDArray[np.int64]


class Probe:
    """Runs parts of a graph.

    Args:
        model: An ``onnx.ModelProto`` whose first input is the image and whose second, if any, the noise level.
        channels: Of the image.
        sides: (H, W) that the graph takes.
        path: For messages.
    """

    def __init__(self, model: Any, channels: int, sides: tuple[int, int], path: str) -> None:
        self.onnx, self.runtime = require("onnx"), require("onnxruntime")
        self.model, self.channels, self.sides, self.path = model, channels, sides, path
        constants = {tensor.name for tensor in model.graph.initializer}
        self.inputs = [entry for entry in model.graph.input if entry.name not in constants]

    def head(self, tensor: str) -> HeadForm:
        """What the tensor that the first convolution sees is made of.

        Raises:
            UserError: It is something else than a pixel-unshuffled image, perhaps scaled, and the noise level.
        """
        image = self._ramp()
        dark = np.zeros_like(image)
        nothing, loud, seen = (
            self._run({}, tensor, picture, level) for picture, level in ((dark, 0.0), (dark, 0.5), (image, 0.0))
        )
        height, width = self.sides
        factor = height // seen.shape[1]
        if seen.shape[1:] != (height // factor, width // factor) or np.any(nothing != 0):
            raise self._error("what comes before the first convolution is no pixel-unshuffle, or adds a constant")
        noise = np.flatnonzero(loud.reshape(len(loud), -1).any(axis=1))
        unshuffled = self._unshuffled(image, factor)
        rest = [channel for channel in range(len(seen)) if channel not in set(noise.tolist())]
        order, scale = self._order(seen[rest], unshuffled)
        return HeadForm(
            factor=factor,
            scale=scale,
            image=np.array(rest, np.int64)[order],
            noise=noise,
            noise_scale=float(loud[noise[0], 0, 0] / 0.5) if len(noise) else 0.0,
        )

    def _unshuffled(self, image: FloatArray, factor: int) -> FloatArray:
        indices = np.arange(image.size, dtype=np.int64).reshape(image.shape)
        taken: FloatArray = image.reshape(-1)[pixel_unshuffle(indices, factor)]
        return taken

    def _order(self, seen: FloatArray, wanted: FloatArray) -> tuple[NDArray[np.int64], float]:
        """For every wanted channel the one of ``seen`` that holds it, times one factor."""
        if seen.shape != wanted.shape:
            raise self._error("what the first convolution sees has other channels than a pixel-unshuffled image")
        scale = float(seen.max() / wanted.max())
        places = [int(np.argmin(np.abs(seen[:, 0, 0] - scale * channel[0, 0]))) for channel in wanted]
        if sorted(places) != list(range(len(wanted))) or not np.allclose(seen[places], scale * wanted, 1e-5, 1e-7):
            raise self._error("what comes before the first convolution is no pixel-unshuffle")
        return np.array(places, np.int64), scale

    def tail(self, cut: str, channels: int, factor: int) -> TailForm:
        """What becomes of the output of the last convolution.

        Raises:
            UserError: It is something else than a pixel-shuffle and a residual.
        """
        height, width = (side // factor for side in self.sides)
        image, grid = self._ramp(), np.arange(channels * height * width, dtype=np.float64)
        output = (0.01 + 0.05 * grid / grid.size).reshape(channels, height, width)
        quiet = np.full_like(image, 0.5)
        base = self._run({cut: np.zeros_like(output)}, self._final(), quiet, 0.0)
        moved = self._run({cut: np.zeros_like(output)}, self._final(), image, 0.0) - base
        residual = bool(np.allclose(moved, image - quiet, atol=1e-5))
        constant = base - (quiet if residual else 0)
        if (not residual and np.any(np.abs(moved) > 1e-5)) or np.any(np.abs(constant) > 1e-5):
            raise self._error("what comes behind the last convolution is no residual, or adds a constant")
        seen = self._run({cut: output}, self._final(), quiet, 0.0) - base
        if channels != self.channels * factor**2 or seen.shape != image.shape:
            raise self._error("the last convolution has other channels than a pixel-shuffled image")
        places, scale = self._places(self._unshuffled(seen, factor), output)
        if not np.allclose(seen, scale * pixel_shuffle(output[places], factor), atol=1e-5):
            raise self._error("what comes behind the last convolution is no pixel-shuffle and residual")
        return TailForm(residual=residual, scale=scale, channels=places)

    def _places(self, seen: FloatArray, output: FloatArray) -> tuple[NDArray[np.int64], float]:
        """For every channel of the unshuffled result, the channel of the convolution that it holds, and the factor."""
        spread = float(np.ptp(seen) / np.ptp(output))
        scale = spread if seen.sum() > 0 else -spread
        first = [int(np.argmin(np.abs(output[:, 0, 0] * scale - channel[0, 0]))) for channel in seen]
        if sorted(first) != list(range(len(output))):
            raise self._error("what comes behind the last convolution is no pixel-shuffle")
        return np.array(first, np.int64), round(scale, 4) if abs(scale - round(scale, 4)) < 1e-5 else scale

    def _final(self) -> str:
        name: str = self.model.graph.output[0].name
        return name

    def _ramp(self) -> FloatArray:
        """A picture of all different values in 0.25 .. 0.75, which the usual clipping leaves alone."""
        count = self.channels * self.sides[0] * self.sides[1]
        return (0.25 + 0.5 * np.arange(count) / count).reshape(self.channels, *self.sides)

    def _run(self, cuts: dict[str, FloatArray], wanted: str, image: FloatArray, level: float) -> FloatArray:
        """The tensor ``wanted`` where the tensors of ``cuts`` have been given their values."""
        if wanted in cuts:
            return cuts[wanted]
        part, needed = self._part(set(cuts), wanted)
        feeds: dict[str, Any] = {name: value[None].astype(np.float32) for name, value in cuts.items()}
        for entry, value in zip(self.inputs, (image[None], np.array([level])), strict=False):
            rank = len(entry.type.tensor_type.shape.dim)
            feeds[entry.name] = value.reshape(value.shape + (1,) * (rank - value.ndim)).astype(np.float32)
        options = self.runtime.SessionOptions()
        options.log_severity_level = 4
        try:
            session = self.runtime.InferenceSession(
                part.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
            (found,) = session.run([wanted], {name: feeds[name] for name in needed})
        except Exception as error:  # onnxruntime's errors have no common base
            first = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            raise self._error(f"a part of it does not run on its own: {first}") from error
        result: FloatArray = np.asarray(found, np.float64)[0]
        return result

    def _part(self, cuts: set[str], wanted: str) -> tuple[Any, list[str]]:
        """The nodes between the cuts and the inputs on one side and a tensor on the other, as a model."""
        graph = self.model.graph
        missing: set[str] = {wanted}
        chosen: list[Any] = []
        for node in reversed(graph.node):
            if missing & set(node.output) and not set(node.output) & cuts:
                chosen.insert(0, node)
                missing |= set(node.input)
        needed = [name for name in (*cuts, *(entry.name for entry in self.inputs)) if name in missing]
        helper, kind = self.onnx.helper, self.onnx.TensorProto.FLOAT
        known = {entry.name: entry for entry in self.inputs}
        part = self.onnx.ModelProto()
        part.CopyFrom(self.model)
        del part.graph.node[:], part.graph.input[:], part.graph.output[:]
        part.graph.node.extend(chosen)
        part.graph.input.extend(
            known.get(name) or helper.make_tensor_value_info(name, kind, [None] * 4) for name in needed
        )
        part.graph.output.append(helper.make_tensor_value_info(wanted, kind, None))
        return part, needed

    def _error(self, message: str) -> UserError:
        return UserError(
            message, node=self.path, instead="convert a network of pixel-unshuffle, convolutions, pixel-shuffle"
        )


def usual_sides(height: object, width: object) -> tuple[int, int]:
    """The size that the graph takes, or the usual one where it takes any."""
    sides: Sequence[object] = (height, width)
    taken = [side if isinstance(side, int) else usual for side, usual in zip(sides, SIDES, strict=True)]
    return taken[0], taken[1]
