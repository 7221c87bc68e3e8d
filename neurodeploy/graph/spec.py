"""What a student is, in data: the portable family, and the host's share of the work.

A student is pixel-unshuffle (host, which may add a map of the noise), a constant-resolution chain of convolution +
LIF with optional sum edges, a plain last convolution, the mean over time steps (host), and a global residual (host).
Everything that a chip cannot hold is refused when the description is made.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

DT = 1e-4
"""Length of a time step in seconds. NIR has no field for it; snnTorch assumes this one."""

MAX_STEPS = 4096
"""Time steps of the longest run, for networks of others; students take up to 64."""

DECAY_ONE = 4096
"""A decay of 1 in the 12-bit fixed point of Loihi: nothing is left after one step."""


NOISE_SCALE = 1020
"""Units a unit of brightness in which the noise of a picture is estimated: a quarter of an 8-bit step."""

NOISE_GAIN = 6
"""Codes of the noise map a code of the median that it is estimated from."""


TICK_MAX = (1 << 15) - 1
"""Largest magnitude of what a tick carries: with codes it is a signed message of 16 bits."""


class _Description(BaseModel):
    """Without a noise map and without ticks it is written as before there were any: older readers take those."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = handler(self)
        return {key: values[key] for key in values if key not in ("noise_map", "ticks") or values[key]}


class HostSide(_Description):
    """What the host does around the chip's network: it stands in the manifest of every bundle.

    ``codes = clip(rint(x * input_scale), input_min, input_max)`` for an image ``x`` in [0, 1], padded by edge
    replication to a multiple of ``unshuffle``, then pixel-unshuffled: (C, H, W) -> (C * unshuffle**2, H/unshuffle,
    W/unshuffle). With ``y`` the network's output averaged over the ``steps`` time steps (in the units of the NIR
    graph) and pixel-shuffled back: ``restored = x - output_scale * y`` (``residual``) or ``output_scale * y``.

    With ``noise_map`` one more channel follows, the same code everywhere: ``clip(rint(6 * input_scale * m / 1020),
    input_min, input_max)``, where ``m`` is the lower median, over all channels and all whole blocks of 2 x 2 pixels, of
    ``|a - b - c + d|`` of ``rint(1020 x)``. Of white noise of standard deviation s, ``m = 1376 s``, because the median
    of the finest diagonal wavelet coefficients is 0.6745 s (Donoho and Johnstone 1994, Biometrika 81(3):425-455): the
    code is eight times the noise in codes.

    Codes are shown at every step. With ``ticks`` they are shown in the first step alone, and a channel follows for each
    of them: the same value everywhere at the steps that it names, and nothing at the others.
    """

    channels: int = Field(1, ge=1, le=1 << 16, description="1 or 3 for pictures; anything else takes arrays alone")
    unshuffle: int = Field(2, ge=1, le=8)
    steps: int = Field(1, ge=1, le=MAX_STEPS)
    dt: float = Field(DT, gt=0.0, le=1e6, allow_inf_nan=False)
    input_scale: float = Field(255.0, gt=0.0, allow_inf_nan=False)
    input_min: int = -256
    input_max: int = 511
    output_scale: float = Field(1.0, allow_inf_nan=False)
    residual: bool = True
    noise_map: bool = Field(False, description="one more channel of codes: the noise of the picture, by estimate")
    ticks: tuple[tuple[tuple[int, int], ...], ...] = Field(
        (), max_length=4096, description="channels that keep the time: (step from 0, value) of what each is sent"
    )

    @model_validator(mode="after")
    def _ticks_in_time(self) -> HostSide:
        for channel in self.ticks:
            if any(not 0 <= step < self.steps or abs(value) > TICK_MAX for step, value in channel):
                raise ValueError(f"ticks: {list(channel)} holds a step outside the run, or a value beyond {TICK_MAX}")
        return self

    @property
    def network_channels(self) -> int:
        """Channels that leave the network: ``channels * unshuffle**2``."""
        return self.channels * self.unshuffle**2

    @property
    def input_channels(self) -> int:
        """Channels of codes that enter it: as many, and the noise map. Ticks come on top."""
        return self.network_channels + self.noise_map

    def encode(self, image: NDArray[np.floating]) -> NDArray[np.int64]:
        """Integer codes of an image.

        Args:
            image: (C, H, W), values in [0, 1] (noise may leave that range).

        Returns:
            (C * r**2, ceil(H/r), ceil(W/r)) int64 with r = ``unshuffle``, and one channel more with ``noise_map``;
            sub-pixels in the order of torch's ``pixel_unshuffle`` (channel, row, column).
        """
        codes = np.clip(np.rint(image.astype(np.float64) * self.input_scale), self.input_min, self.input_max)
        codes = pixel_unshuffle(pad_to_multiple(codes.astype(np.int64), self.unshuffle), self.unshuffle)
        if not self.noise_map:
            return codes
        return np.concatenate([codes, np.full((1, *codes.shape[1:]), self.noise_code(image))])

    def frames(self, codes: NDArray[np.int64]) -> NDArray[np.int64]:
        """What a network with ticks is shown.

        Args:
            codes: (C, h, w).

        Returns:
            (T, C + ticks, h, w) int64.
        """
        channels, height, width = codes.shape
        shown = np.zeros((self.steps, channels + len(self.ticks), height, width), np.int64)
        shown[0, :channels] = codes
        for place, channel in enumerate(self.ticks, start=channels):
            for step, value in channel:
                shown[step, place] = value
        return shown

    def output_shape(self, codes: NDArray[np.int64]) -> tuple[int, int, int]:
        """The shape that an output has that :meth:`decode` makes a picture of."""
        return (self.network_channels, codes.shape[-2], codes.shape[-1])

    def noise_code(self, image: NDArray[np.floating]) -> int:
        """The code of the noise map of an image (C, H, W); 0 where it has no block of 2 x 2 pixels."""
        _, height, width = image.shape
        fine = np.rint(image[:, : height // 2 * 2, : width // 2 * 2].astype(np.float64) * NOISE_SCALE)
        detail = fine[:, ::2, ::2] - fine[:, ::2, 1::2] - fine[:, 1::2, ::2] + fine[:, 1::2, 1::2]
        if not detail.size:
            return 0
        middle = (detail.size - 1) // 2
        median = np.partition(np.abs(detail), middle, axis=None)[middle]
        code = np.rint(NOISE_GAIN * self.input_scale * median / NOISE_SCALE)
        return int(np.clip(code, self.input_min, self.input_max))

    def decode(self, output: NDArray[np.floating], image: NDArray[np.floating]) -> NDArray[np.float64]:
        """Restored image from the time mean of the network's output.

        Args:
            output: (C * r**2, h, w), mean over time steps of the output node, in the units of the NIR graph.
            image: (C, H, W), the degraded image that was encoded.

        Returns:
            (C, H, W) float64, not clipped.
        """
        _, height, width = image.shape
        out = self.output_scale * pixel_shuffle(output.astype(np.float64), self.unshuffle)[:, :height, :width]
        return image.astype(np.float64) - out if self.residual else out


def pad_to_multiple(array: NDArray[np.int64], multiple: int) -> NDArray[np.int64]:
    """(C, H, W) padded at the bottom and right by edge replication, so that H and W are multiples of ``multiple``."""
    _, height, width = array.shape
    return np.pad(array, ((0, 0), (0, -height % multiple), (0, -width % multiple)), mode="edge")


def pixel_unshuffle(array: NDArray[np.int64], factor: int) -> NDArray[np.int64]:
    """(C, H, W) -> (C * r * r, H / r, W / r), in torch's order."""
    channels, height, width = array.shape
    blocks = array.reshape(channels, height // factor, factor, width // factor, factor)
    return np.ascontiguousarray(
        blocks.transpose(0, 2, 4, 1, 3).reshape(channels * factor**2, height // factor, width // factor)
    )


def pixel_shuffle(array: NDArray[np.float64], factor: int) -> NDArray[np.float64]:
    """(C * r * r, h, w) -> (C, h * r, w * r): the inverse of :func:`pixel_unshuffle`."""
    channels, height, width = array.shape
    blocks = array.reshape(channels // factor**2, factor, factor, height, width)
    return np.ascontiguousarray(
        blocks.transpose(0, 3, 1, 4, 2).reshape(channels // factor**2, height * factor, width * factor)
    )


class StudentSpec(_Description):
    """A student of the portable family.

    Layer k (0 .. depth-1) is ``conv{k}`` followed by ``lif{k}``; the last convolution is ``conv{depth}``. A LIF layer
    with ``levels`` D > 1 (only with ``steps`` 1) has the integer activation 0..D, which D threshold populations with
    shared weights carry exactly on a chip of binary spikes: the count of i in 1..D with ``x > delta * (i - 1/2)``.

    The membrane follows ``v <- (1 - decay) * v + x``; a spike when ``v > threshold``, then ``v <- 0``.
    """

    family: Literal["portable"] = "portable"
    channels: Literal[1, 3] = 1
    unshuffle: int = Field(2, ge=1, le=8, description="pixel-unshuffle factor on the host")
    width: int = Field(48, ge=1, le=1024, description="channels of every hidden layer")
    depth: int = Field(7, ge=1, le=64, description="number of conv + LIF layers before the plain last convolution")
    kernel: int = Field(3, ge=1, le=11, description="side of the square kernels, odd")
    dilation: tuple[int, ...] = Field((), description="dilation of each convolution (depth + 1 values); empty = all 1")
    edges: tuple[tuple[int, int], ...] = Field(
        (), description="sum edges [i, k]: the current of conv i is added to the input of LIF k, 1 <= i < k < depth"
    )
    levels: int = Field(4, ge=1, le=15, description="integer activation levels D; more than 1 only with steps 1")
    steps: int = Field(1, ge=1, le=64, description="time steps T; more than 1 only with levels 1")
    decay: float = Field(1.0, gt=0.0, le=1.0, description="share of the membrane lost a step, a multiple of 1/4096")
    input_scale: float = Field(
        63.75,
        ge=1.0,
        le=1023.0,
        description="codes of the input a unit of brightness. Finer codes make larger currents in the first layer,"
        " whose thresholds and biases have to fit 13 bits, and so leave fewer bits for its weights",
    )
    noise_map: bool = Field(
        False, description="the host estimates the noise of the picture, which the first layer sees as one more channel"
    )
    norm: Literal["none", "batch"] = "none"
    residual: bool = True
    bias_exponent: Literal[6, 7] = Field(
        7, description="largest exponent of biases: with 7 weights may be finer, with 6 a chain can be a netx file"
    )

    @property
    def bias_grain(self) -> int:
        """Units between the coarsest biases: ``2**(bias_exponent - 6)``."""
        return 1 << (self.bias_exponent - 6)

    @model_validator(mode="after")
    def _portable(self) -> StudentSpec:
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel: an even kernel ({self.kernel}) has no centre; instead: an odd one")
        if self.dilation and len(self.dilation) != self.depth + 1:
            raise ValueError(
                f"dilation: {len(self.dilation)} values for {self.depth + 1} convolutions; instead: depth + 1 values"
            )
        if any(not 1 <= value <= 16 for value in self.dilation):
            raise ValueError(f"dilation: {list(self.dilation)} holds a value outside 1..16")
        if self.levels > 1 and self.steps > 1:
            raise ValueError(
                f"levels: {self.levels} integer levels with {self.steps} time steps is not portable (each population"
                " would reset on its own); instead: steps = 1, or levels = 1"
            )
        if self.decay * DECAY_ONE != round(self.decay * DECAY_ONE):
            raise ValueError(f"decay: {self.decay} is not a multiple of 1/4096, the chip's step")
        if self.steps == 1 and self.decay != 1.0:
            raise ValueError(f"decay: {self.decay} has no meaning with one time step; instead: decay = 1")
        for source, target in self.edges:
            # conv 0 sees 8-bit codes where the others see spikes: on one grid with them its weights would keep a few
            # levels
            if not 1 <= source < target < self.depth:
                raise ValueError(
                    f"edges: [{source}, {target}] must run from an earlier conv, not the first, to a later LIF"
                    " (1 <= i < k < depth)"
                )
        if len(set(self.edges)) != len(self.edges):
            raise ValueError("edges: the same edge stands twice")
        return self

    @property
    def dilations(self) -> tuple[int, ...]:
        """The dilation of every convolution, ``depth + 1`` values."""
        return self.dilation or (1,) * (self.depth + 1)

    @property
    def network_channels(self) -> int:
        """Channels that leave the network."""
        return self.channels * self.unshuffle**2

    @property
    def input_channels(self) -> int:
        """Channels that enter it."""
        return self.network_channels + self.noise_map

    def conv_shape(self, layer: int) -> tuple[int, int, int, int]:
        """Shape (out, in, kernel, kernel) of the weight of ``conv{layer}``."""
        fan_in = self.input_channels if layer == 0 else self.width
        out = self.network_channels if layer == self.depth else self.width
        return (out, fan_in, self.kernel, self.kernel)

    @property
    def halo(self) -> int:
        """Radius of the receptive field in pixels of the image."""
        return sum(value * (self.kernel // 2) for value in self.dilations) * self.unshuffle

    def host(self, output_scale: float = 1.0) -> HostSide:
        """The host's share for this student."""
        return HostSide(
            channels=self.channels,
            unshuffle=self.unshuffle,
            steps=self.steps,
            input_scale=self.input_scale,
            # a unit of brightness to spare on either side for noise
            input_min=-math.ceil(self.input_scale),
            input_max=2 * math.ceil(self.input_scale),
            output_scale=output_scale,
            residual=self.residual,
            noise_map=self.noise_map,
        )


def threshold_offset(decay: float) -> float:
    """How far above the integer threshold the real one lies, in units of the current: strict comparison without ties.

    Where nothing decays between steps (``decay`` 0), or nothing is left (1), membranes are whole units, and half a unit
    separates them. A membrane that decays has fractions, which the chip keeps to 1/64 of a unit: there the real
    threshold lies between the integer one and the next value that the chip can hold, and off every dyadic grid.
    """
    return 0.5 if decay in (0.0, 1.0) else 1.0 / 96.0


def population_shifts(vth: NDArray[np.integer]) -> NDArray[np.int64]:
    """What the bias of each threshold population differs by from the layer's own, in integer units.

    All populations share one threshold, that half-way between the lowest and the highest (:func:`shared_threshold`), so
    population i, which is to fire above ``vth[i]``, has its bias raised by the difference; half-way, because biases
    have 13 bits.

    Args:
        vth: (D,) thresholds, ascending.

    Returns:
        (D,) int64, descending.
    """
    return shared_threshold(vth) - np.asarray(vth, dtype=np.int64)


def shared_threshold(vth: NDArray[np.integer]) -> int:
    """The one threshold of a layer whose populations are to fire above ``vth``."""
    return (int(vth[0]) + int(vth[-1])) // 2
