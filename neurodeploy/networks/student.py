"""The spiking student in torch: what :class:`~neurodeploy.graph.spec.StudentSpec` describes, ready to train.

It has two modes. In the float mode weights, biases and thresholds are real numbers. In the grid mode they are the
chip's integers times a step (weights 8 bits, even; bias and thresholds in half steps), with gradients straight through,
so that what is trained is what is exported. :mod:`~neurodeploy.networks.grid` goes over from one to the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neurodeploy.errors import InternalError, UserError
from neurodeploy.graph.spec import (
    NOISE_GAIN,
    NOISE_SCALE,
    HostSide,
    StudentSpec,
    population_shifts,
    threshold_offset,
)
from neurodeploy.networks.neurons import SURROGATES, Fired, levels, levels_on_grid, lif, mean_digits, norse_lif
from neurodeploy.networks.rounding import WEIGHT_MAX, WEIGHT_MIN
from neurodeploy.quantize.digits import digits_of

BIAS_LIMIT = 4095
"""Largest mantissa of a bias, 13 bits with sign."""
THRESHOLD_LIMIT = 131071
NORMED_RANGE = 1.8
"""Top of the range that the levels cover at first, in standard deviations of a batch-normed current."""

Feature = Literal["spikes", "membrane"]


class SpikingStudent(nn.Module):
    """A student of the portable family.

    Args:
        spec: Its description.
        surrogate: Surrogate gradient of the LIF, a key of :data:`~neurodeploy.networks.neurons.SURROGATES`. Integer
            levels use the straight-through gradient of learned step sizes instead.
        dynamics: ``"native"`` (our own scan) or ``"norse"`` (norse's LIF cell, equal spikes, its own surrogate).

    Raises:
        UserError: An unknown surrogate, or norse's dynamics asked for integer levels, which norse does not have.
    """

    def __init__(
        self, spec: StudentSpec, *, surrogate: str = "triangle", dynamics: Literal["native", "norse"] = "native"
    ) -> None:
        super().__init__()
        if surrogate not in SURROGATES:
            raise UserError("unknown surrogate", node=surrogate, limit=", ".join(SURROGATES))
        if dynamics == "norse" and spec.levels > 1:
            raise UserError(
                "norse has no integer levels",
                node="student.levels",
                have=str(spec.levels),
                limit="1",
                instead='use levels = 1, or dynamics = "native"',
            )
        self.spec = spec
        self.surrogate = surrogate
        self.dynamics = dynamics
        self.convs = nn.ModuleList()
        self.norms = nn.ModuleList()
        for layer, dilation in enumerate(spec.dilations):
            out, fan_in, kernel, _ = spec.conv_shape(layer)
            padding = dilation * (kernel // 2)
            self.convs.append(nn.Conv2d(fan_in, out, kernel, padding=padding, dilation=dilation))
            has_norm = spec.norm == "batch" and layer < spec.depth
            self.norms.append(nn.BatchNorm2d(out) if has_norm else nn.Identity())
        self.log_delta = nn.Parameter(torch.zeros(spec.depth))
        self.register_buffer("on_grid", torch.zeros((), dtype=torch.bool))
        self.register_buffer("weight_steps", torch.ones(spec.depth + 1, dtype=torch.float64))
        self.register_buffer("bias_grains", torch.ones(spec.depth + 1, dtype=torch.int64))
        self.rates: list[Tensor] = []
        self.digits: list[Tensor] = []
        """Of every LIF the mean number of spikes a neuron, its levels sent as digits, where they are counted."""
        self.counts_digits = False
        self.convolve: Callable[..., Tensor] = F.conv2d
        """What convolves in training off the grid; scores and the grid have the plain convolution always."""
        self._watch: Callable[[int, Tensor], None] | None = None
        self._start()

    on_grid: Tensor
    weight_steps: Tensor
    bias_grains: Tensor

    def conv(self, layer: int) -> nn.Conv2d:
        """``conv{layer}``, 0 to the depth."""
        conv = self.convs[layer]
        if not isinstance(conv, nn.Conv2d):
            raise InternalError(f"conv{layer} is a {type(conv).__name__}")
        return conv

    def bias(self, layer: int) -> Tensor:
        """Biases of ``conv{layer}``: (O,)."""
        bias = self.conv(layer).bias
        if bias is None:
            raise InternalError(f"conv{layer} has no bias")
        return bias

    @property
    def output_weight(self) -> Tensor:
        """Weight of the last convolution, whose output is the picture."""
        return self.conv(self.spec.depth).weight

    def _all_convs(self) -> list[nn.Conv2d]:
        return [self.conv(layer) for layer in range(self.spec.depth + 1)]

    @torch.no_grad()
    def _start(self) -> None:
        """Weights such that currents start with a spread that uses the levels, or fires about one neuron in six."""
        spec = self.spec
        # mean square of what a convolution receives: an image in [0, 1]; counts 0..D; binary spikes
        received = {True: 0.25, False: 2.0 if spec.levels > 1 else 0.16}
        current = 0.6 * spec.levels if spec.levels > 1 else 0.6
        for layer, conv in enumerate(self._all_convs()):
            fan_in = conv.weight[0].numel()
            gain = 0.05 if layer == spec.depth else current
            nn.init.normal_(conv.weight, std=gain / math.sqrt(fan_in * received[layer == 0]))
            nn.init.zeros_(self.bias(layer))
        if spec.norm == "batch" and spec.levels > 1:
            # currents have unit spread: the range that is worth levels ends near twice that
            self.log_delta.fill_(math.log(NORMED_RANGE / spec.levels))

    def delta(self, layer: int) -> Tensor:
        """Step of the levels of ``lif{layer}``; the threshold of a binary one is half of it. A positive scalar."""
        return self.log_delta[layer].exp()

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Names of the spiking layers, which are the places where hints may act."""
        return tuple(f"lif{layer}" for layer in range(self.spec.depth))

    @property
    def parameters_count(self) -> int:
        """Numbers that are deployed: weights, biases, one threshold a population and layer (batch norm folds away)."""
        thresholds = self.spec.depth * self.spec.levels
        return sum(conv.weight.numel() + conv.out_channels for conv in self._all_convs()) + thresholds

    def forward(self, x: Tensor, features: Mapping[str, Feature] | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Restores a batch.

        Args:
            x: (B, C, H, W) degraded images in [0, 1], any size.
            features: layer name -> which feature of it is wanted: the time mean of the spikes (in 0..1 for all levels
                together) or of the input current ("membrane").

        Returns:
            The restored batch (B, C, H, W), not clipped, and the features (B, width, h, w).
        """
        spec = self.spec
        wanted = features or {}
        found: dict[str, Tensor] = {}
        host = spec.host()
        # in float64, as the host does it: a pixel half-way between two codes must not go the other way
        codes = (x.double() * host.input_scale).round().clamp(host.input_min, host.input_max).float()
        codes = codes / host.input_scale
        height, width = x.shape[-2:]
        pad = (0, -width % spec.unshuffle, 0, -height % spec.unshuffle)
        padded = F.pad(codes, pad, mode="replicate") if any(pad) else codes
        signal = F.pixel_unshuffle(padded, spec.unshuffle) if spec.unshuffle > 1 else padded
        if spec.noise_map:
            noise = (_noise_codes(x, host) / host.input_scale).float()
            signal = torch.cat([signal, noise[:, None, None, None].expand(-1, 1, *signal.shape[2:])], 1)
        batch, steps = signal.shape[0], spec.steps
        currents: list[Tensor] = []
        self.rates, self.digits = [], []
        for layer in range(spec.depth):
            current = self._current(layer, signal)
            if spec.edges:
                currents.append(current)
                for source, target in spec.edges:
                    if target == layer:
                        current = self._match_time(currents[source], current) + current
            spikes, mean = self._fire(layer, current, batch)
            name = f"lif{layer}"
            if wanted.get(name) == "membrane":
                by_time = _by_time(current, batch)
                found[name] = by_time[0] if len(by_time) == 1 else by_time.mean(0)
                if current.requires_grad:
                    current.register_hook(_channels_last)  # type: ignore[no-untyped-call]
            elif wanted.get(name) == "spikes":
                found[name] = (spikes.mean(0) if steps > 1 else spikes) / spec.levels
            self.rates.append(mean / spec.levels)
            if self.counts_digits:
                self.digits.append(mean_digits(spikes, digits_of(spec.levels)))
            signal = spikes.flatten(0, 1) if steps > 1 and layer + 1 < spec.depth else spikes
        out = self._current(spec.depth, signal.mean(0) if steps > 1 else signal)
        out = F.pixel_shuffle(out, spec.unshuffle) if spec.unshuffle > 1 else out
        out = out[..., :height, :width].float()
        return (x - out if spec.residual else out), found

    def _match_time(self, source: Tensor, like: Tensor) -> Tensor:
        if source.shape[0] == like.shape[0]:
            return source
        return source.repeat(like.shape[0] // source.shape[0], 1, 1, 1)

    def _current(self, layer: int, signal: Tensor) -> Tensor:
        conv = self.conv(layer)
        if self._watch is not None:
            self._watch(layer, signal)
        if bool(self.on_grid):
            weight, bias = self._grid_weight(layer), self._grid_bias(layer)
        else:
            weight, bias = conv.weight, self.bias(layer)
        convolve = self.convolve if self.training and not bool(self.on_grid) else F.conv2d
        out = convolve(signal, weight, bias, padding=conv.padding, dilation=conv.dilation)
        normed: Tensor = self.norms[layer](out)
        return normed

    def _fire(self, layer: int, current: Tensor, batch: int) -> Fired:
        """Spikes of a layer: (B, ...) at one time step, (T, B, ...) at several."""
        spec, delta = self.spec, self.delta(layer)
        on_grid = bool(self.on_grid)
        if spec.steps == 1:
            if on_grid:
                unit = self.unit(layer)
                first, spacing = self.threshold_integers(layer)
                lowest = (first + threshold_offset(spec.decay)) * unit
                return levels_on_grid(current, lowest, spacing * unit, delta, spec.levels)
            if spec.levels > 1:
                return levels(current, delta, spec.levels)
        by_time = _by_time(current, batch)
        theta = delta / 2
        if on_grid:
            first, _ = self.threshold_integers(layer)
            theta = theta + ((first + threshold_offset(spec.decay)) * self.unit(layer) - theta).detach()
        if self.dynamics == "norse":
            spikes = norse_lif(by_time.expand(spec.steps, *by_time.shape[1:]), theta, spec.decay)
            return Fired(spikes if spec.steps > 1 else spikes[0], spikes.mean())
        spikes, mean = lif(by_time, theta, spec.decay, self.surrogate, spec.steps)
        return Fired(spikes if spec.steps > 1 else spikes[0], mean)

    # the integer grid

    def unit(self, layer: int) -> float:
        """Value of one integer unit of the current of ``conv{layer}``.

        Half a step of its weights, because the chip's weights are the even 2 q; the first layer receives integer codes.
        """
        scale = self.spec.input_scale if layer == 0 else 1.0
        return float(self.weight_steps[layer]) / (2 * scale)

    def _bias_range(self, layer: int) -> tuple[int, int]:
        """What the bias may be, in units, so that the biases of all populations fit mantissas of 13 bits.

        Where nothing is remembered, biases and threshold may be moved together (``x + b > vth`` is
        ``x + (b - c) > vth - c``), so the range lies around the middle c of the biases, as far as the threshold goes.
        """
        grain = int(self.bias_grains[layer])
        limit = BIAS_LIMIT * grain
        if layer == self.spec.depth:
            return -limit, limit
        first, spacing = self.threshold_integers(layer)
        thresholds = first + spacing * np.arange(self.spec.levels)
        above, below = population_shifts(thresholds)[[0, -1]]
        centre = 0
        if self.spec.steps == 1:
            ends = torch.stack(torch.aminmax(self.bias(layer).detach())) / self.unit(layer)
            centre = max(int(thresholds[-1]) - THRESHOLD_LIMIT, min(round(float(ends.mean())), int(thresholds[0])))
            centre -= centre % grain
        return centre - limit - int(below), centre + limit - int(above)

    def weight_integers(self, layer: int) -> Tensor:
        """The weights of ``conv{layer}`` in steps: integers of 8 bits, in the dtype and shape of the weight."""
        steps = self.conv(layer).weight.detach() / float(self.weight_steps[layer])
        return steps.round().clamp(WEIGHT_MIN, WEIGHT_MAX)

    def _grid_weight(self, layer: int) -> Tensor:
        weight, step = self.conv(layer).weight, float(self.weight_steps[layer])
        inside = weight.clamp(WEIGHT_MIN * step, WEIGHT_MAX * step)
        return inside + (self.weight_integers(layer) * step - inside).detach()

    def bias_integers(self, layer: int) -> Tensor:
        """The biases in units (:meth:`unit`): multiples of the layer's grain that are as near as its range allows."""
        grain = int(self.bias_grains[layer])
        units = (self.bias(layer).detach() / (self.unit(layer) * grain)).round() * grain
        return units.clamp(*self._bias_range(layer))

    def _grid_bias(self, layer: int) -> Tensor:
        bias = self.bias(layer)
        return bias + (self.bias_integers(layer) * self.unit(layer) - bias).detach()

    def threshold_integers(self, layer: int) -> tuple[int, int]:
        """The lowest threshold and the spacing of ``lif{layer}``, in half steps of its weights.

        The spacing is the learned step, rounded; the lowest threshold is half of it, rounded down. Where biases are
        multiples of 2, those of all populations are: the spacing is one of 4 there.
        """
        grain = 1 if int(self.bias_grains[layer]) == 1 else 4
        spacing = max(1, round(float(self.delta(layer).detach()) / (self.unit(layer) * grain))) * grain
        return spacing // 2, spacing

    @torch.no_grad()
    def conv_inputs(self, x: Tensor) -> dict[int, Tensor]:
        """What every convolution receives when ``x`` (B, C, H, W) is restored: layer -> (B or T * B, C, h, w)."""
        signals: dict[int, Tensor] = {}
        self._watch = signals.__setitem__
        try:
            self(x)
        finally:
            self._watch = None
        return signals


def _channels_last(grad: Tensor) -> Tensor:
    """What comes back from an adapter may lie otherwise, which costs batch norm ten times as long."""
    return grad.contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def _noise_codes(x: Tensor, host: HostSide) -> Tensor:
    """:meth:`HostSide.noise_code` of every image of a batch (B, C, H, W): (B,) float64."""
    height, width = x.shape[-2:]
    fine = (x[..., : height // 2 * 2, : width // 2 * 2].double() * NOISE_SCALE).round()
    detail = fine[..., ::2, ::2] - fine[..., ::2, 1::2] - fine[..., 1::2, ::2] + fine[..., 1::2, 1::2]
    if not detail.numel():
        return torch.zeros(len(x), dtype=torch.float64, device=x.device)
    median = detail.abs().flatten(1).median(1).values  # the lower one
    code = (NOISE_GAIN * host.input_scale * median / NOISE_SCALE).round()
    return code.clamp(host.input_min, host.input_max)


def _by_time(signal: Tensor, batch: int) -> Tensor:
    """(T * B, ...) -> (T, B, ...)."""
    return signal.view(-1, batch, *signal.shape[1:])
