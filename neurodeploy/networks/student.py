"""The spiking student in torch: what :class:`~neurodeploy.graph.spec.StudentSpec` describes, ready to train.

It has two modes. In the float mode weights, biases and thresholds are real numbers. In the grid mode they are the
chip's integers times a step (weights 8 bits, even; bias and thresholds in half steps), with gradients straight through,
so that what is trained is what is exported.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from neurodeploy.errors import InternalError, UserError
from neurodeploy.graph.passes import fold_batch_norm
from neurodeploy.graph.spec import StudentSpec, population_shifts, threshold_offset
from neurodeploy.graph.student_file import StudentFile
from neurodeploy.networks.neurons import SURROGATES, Fired, levels, levels_on_grid, lif, norse_lif
from neurodeploy.networks.rounding import (
    WEIGHT_MAX,
    WEIGHT_MIN,
    least_square_step,
    round_with_feedback,
    second_moments,
)

BIAS_LIMIT = 4095
"""Largest mantissa of a bias, 13 bits with sign."""
THRESHOLD_LIMIT = 131071
HEADROOM = 1.05
"""Room for biases and thresholds to grow while training goes on on the grid."""
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
        self.convolve: Callable[..., Tensor] = F.conv2d
        """What convolves in training off the grid; scores and the grid have the plain convolution always."""
        self._watch: Callable[[int, Tensor], None] | None = None
        self._start()

    on_grid: Tensor
    weight_steps: Tensor
    bias_grains: Tensor

    def _conv(self, layer: int) -> nn.Conv2d:
        conv = self.convs[layer]
        if not isinstance(conv, nn.Conv2d):
            raise InternalError(f"conv{layer} is a {type(conv).__name__}")
        return conv

    def _bias(self, layer: int) -> Tensor:
        bias = self._conv(layer).bias
        if bias is None:
            raise InternalError(f"conv{layer} has no bias")
        return bias

    @property
    def output_weight(self) -> Tensor:
        """Weight of the last convolution, whose output is the picture."""
        return self._conv(self.spec.depth).weight

    def _all_convs(self) -> list[nn.Conv2d]:
        return [self._conv(layer) for layer in range(self.spec.depth + 1)]

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
            nn.init.zeros_(self._bias(layer))
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
        batch, steps = signal.shape[0], spec.steps
        currents: list[Tensor] = []
        self.rates = []
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
                found[name] = _by_time(current, batch).mean(0)
            elif wanted.get(name) == "spikes":
                found[name] = (spikes.mean(0) if steps > 1 else spikes) / spec.levels
            self.rates.append(mean / spec.levels)
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
        conv = self._conv(layer)
        if self._watch is not None:
            self._watch(layer, signal)
        if bool(self.on_grid):
            weight, bias = self._grid_weight(layer), self._grid_bias(layer)
        else:
            weight, bias = conv.weight, self._bias(layer)
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
                unit = self._unit(layer)
                first, spacing = self._threshold_integers(layer)
                lowest = (first + threshold_offset(spec.decay)) * unit
                return levels_on_grid(current, lowest, spacing * unit, delta, spec.levels)
            if spec.levels > 1:
                return levels(current, delta, spec.levels)
        by_time = _by_time(current, batch)
        theta = delta / 2
        if on_grid:
            first, _ = self._threshold_integers(layer)
            theta = theta + ((first + threshold_offset(spec.decay)) * self._unit(layer) - theta).detach()
        if self.dynamics == "norse":
            spikes = norse_lif(by_time.expand(spec.steps, *by_time.shape[1:]), theta, spec.decay)
            return Fired(spikes if spec.steps > 1 else spikes[0], spikes.mean())
        spikes, mean = lif(by_time, theta, spec.decay, self.surrogate, spec.steps)
        return Fired(spikes if spec.steps > 1 else spikes[0], mean)

    # the integer grid

    def _unit(self, layer: int) -> float:
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
        first, spacing = self._threshold_integers(layer)
        thresholds = first + spacing * np.arange(self.spec.levels)
        above, below = population_shifts(thresholds)[[0, -1]]
        centre = 0
        if self.spec.steps == 1:
            ends = torch.stack(torch.aminmax(self._bias(layer).detach())) / self._unit(layer)
            centre = max(int(thresholds[-1]) - THRESHOLD_LIMIT, min(round(float(ends.mean())), int(thresholds[0])))
            centre -= centre % grain
        return centre - limit - int(below), centre + limit - int(above)

    def _grid_weight(self, layer: int) -> Tensor:
        weight, step = self._conv(layer).weight, float(self.weight_steps[layer])
        on_grid = (weight / step).round().clamp(WEIGHT_MIN, WEIGHT_MAX) * step
        inside = weight.clamp(WEIGHT_MIN * step, WEIGHT_MAX * step)
        return inside + (on_grid - inside).detach()

    def _bias_integers(self, layer: int) -> Tensor:
        """The biases in units: multiples of the layer's grain that are as near as its range allows."""
        grain = int(self.bias_grains[layer])
        units = (self._bias(layer).detach() / (self._unit(layer) * grain)).round() * grain
        return units.clamp(*self._bias_range(layer))

    def _grid_bias(self, layer: int) -> Tensor:
        bias = self._bias(layer)
        return bias + (self._bias_integers(layer) * self._unit(layer) - bias).detach()

    def _threshold_integers(self, layer: int) -> tuple[int, int]:
        """The lowest threshold and the spacing of ``lif{layer}``, in half steps of its weights.

        The spacing is the learned step, rounded; the lowest threshold is half of it, rounded down. Where biases are
        multiples of 2, those of all populations are: the spacing is one of 4 there.
        """
        grain = 1 if int(self.bias_grains[layer]) == 1 else 4
        spacing = max(1, round(float(self.delta(layer).detach()) / (self._unit(layer) * grain))) * grain
        return spacing // 2, spacing

    @torch.no_grad()
    def fold_norms(self) -> None:
        """Folds every batch norm into its convolution, with its running statistics; they become identities."""
        for layer, norm in enumerate(self.norms):
            if not isinstance(norm, nn.BatchNorm2d):
                continue
            conv, bias = self._conv(layer), self._bias(layer)
            mean, var = norm.running_mean, norm.running_var
            if mean is None or var is None:
                raise InternalError(f"the batch norm of conv{layer} has no running statistics")
            weight, shift = _numbers(conv.weight), _numbers(bias)
            scaling = _numbers(norm.weight), _numbers(norm.bias)
            folded = fold_batch_norm(weight, shift, _numbers(mean), _numbers(var), *scaling, norm.eps)
            conv.weight.copy_(torch.from_numpy(folded[0]))
            bias.copy_(torch.from_numpy(folded[1]))
            self.norms[layer] = nn.Identity()

    @torch.no_grad()
    def to_grid(self, calibration: Tensor | None = None, mean: Callable[[Tensor], Tensor] | None = None) -> None:
        """Goes over to the integer grid: folds batch norm, then chooses each weight step by least square error.

        Convolutions that a sum edge joins share one step.

        Args:
            calibration: (B, C, H, W) degraded pictures. With them weights are rounded so that their errors cancel in
                what the convolutions put out there (:mod:`~neurodeploy.networks.rounding`), without each for itself.
            mean: Takes the mean over other parts of the pictures as well.
        """
        self.fold_norms()
        signals = {} if calibration is None else self._conv_inputs(calibration)
        for group in self._step_groups():
            self._choose_step(group)
        for layer, signal in signals.items():
            conv = self._conv(layer)
            moments = second_moments(signal, self.spec.kernel, int(conv.padding[0]), int(conv.dilation[0]))
            moments = moments if mean is None else mean(moments)
            step = float(self.weight_steps[layer])
            conv.weight.copy_(round_with_feedback(conv.weight, moments, step))
        self.on_grid.fill_(True)

    def _choose_step(self, group: tuple[int, ...]) -> None:
        best = least_square_step(torch.cat([self._conv(layer).weight.detach().double().flatten() for layer in group]))
        self._take_step(group, max(best, *(self._smallest_step(layer, self.spec.bias_grain) for layer in group)))

    def _take_step(self, group: tuple[int, ...], step: float) -> None:
        """Sets the step of joined convolutions; where biases do not fit at it, those of all of them become coarser."""
        usual = max(self._smallest_step(layer, 1) for layer in group)
        for layer in group:
            self.weight_steps[layer] = step
            self.bias_grains[layer] = 1 if step >= usual else self.spec.bias_grain

    @torch.no_grad()
    def take_grid(self, steps: Sequence[float]) -> None:
        """Goes over to the integer grid with weights that lie on it already, at these steps, one a convolution."""
        for group in self._step_groups():
            self._take_step(group, steps[group[0]])
        self.on_grid.fill_(True)

    def _conv_inputs(self, x: Tensor) -> dict[int, Tensor]:
        """What every convolution receives when (B, C, H, W) is restored."""
        signals: dict[int, Tensor] = {}
        self._watch = signals.__setitem__
        try:
            self(x)
        finally:
            self._watch = None
        return signals

    def _smallest_step(self, layer: int, grain: int) -> float:
        """Step below which the bias of a population, a multiple of ``grain``, or a threshold would not fit its bits."""
        # what a sum edge brings has a bias as well
        biases = self._bias(layer) + sum(self._bias(source) for source, target in self.spec.edges if target == layer)
        least, largest = (float(end) for end in torch.aminmax(biases.detach()))
        limit = BIAS_LIMIT * grain
        if layer == self.spec.depth:
            needs = [max(abs(least), abs(largest)) / limit]
        else:
            delta, levels = float(self.delta(layer).detach()), self.spec.levels
            centre = min((least + largest) / 2, delta / 2) if self.spec.steps == 1 else 0.0
            # populations shift their bias by up to half of the way between the lowest and the highest threshold
            widest = max(largest - centre, centre - least) + delta * (levels - 1) / 2
            needs = [widest / limit, (delta * levels + abs(centre)) / THRESHOLD_LIMIT]
        scale = self.spec.input_scale if layer == 0 else 1.0
        return max(needs) * HEADROOM * 2 * scale

    def _step_groups(self) -> list[tuple[int, ...]]:
        group = list(range(self.spec.depth + 1))
        for source, target in self.spec.edges:
            old, new = group[source], group[target]
            group = [new if value == old else value for value in group]
        return [tuple(layer for layer, value in enumerate(group) if value == wanted) for wanted in dict.fromkeys(group)]

    # files

    @torch.no_grad()
    def to_file(self, meta: Mapping[str, Any] | None = None) -> StudentFile:
        """The student as its file holds it: integers in the grid mode, floats (batch norm folded) otherwise."""
        tensors: dict[str, NDArray[Any]] = {}
        on_grid = bool(self.on_grid)
        if not on_grid and any(isinstance(norm, nn.BatchNorm2d) for norm in self.norms):
            raise UserError("fold_norms() first: a student file holds no batch norm")
        for layer, conv in enumerate(self._all_convs()):
            weight, bias = conv.weight.detach().double().cpu(), self._bias(layer).detach().double().cpu()
            if not on_grid:
                tensors[f"conv{layer}.weight"] = weight.numpy().astype(np.float32)
                tensors[f"conv{layer}.bias"] = bias.numpy().astype(np.float32)
                continue
            step = float(self.weight_steps[layer])
            # the same float32 quotient that the forward pass rounds
            q = (conv.weight.detach() / step).round().clamp(WEIGHT_MIN, WEIGHT_MAX).cpu()
            b = self._bias_integers(layer).cpu()
            tensors[f"conv{layer}.weight"] = q.numpy().astype(np.int8)
            tensors[f"conv{layer}.bias"] = b.numpy().astype(np.int32)
            # the network on the chip receives integer codes, so the first step carries 1 / input_scale
            tensors[f"conv{layer}.step"] = np.asarray(2 * self._unit(layer), dtype=np.float64)
        for layer in range(self.spec.depth):
            if on_grid:
                first, spacing = self._threshold_integers(layer)
                tensors[f"lif{layer}.vth"] = (first + spacing * np.arange(self.spec.levels)).astype(np.int32)
            else:
                tensors[f"lif{layer}.delta"] = self.delta(layer).detach().cpu().numpy().astype(np.float32)
        return StudentFile(spec=self.spec, tensors=tensors, quantized=on_grid, meta=dict(meta or {}))

    @classmethod
    @torch.no_grad()
    def from_file(cls, file: StudentFile, **options: Any) -> SpikingStudent:
        """The student of a file, in the mode that it was saved in. ``options`` go to the constructor."""
        spec = file.spec.model_copy(update={"norm": "none"})
        student = cls(spec, **options)
        for layer, conv in enumerate(student._all_convs()):
            weight, bias = (
                torch.from_numpy(np.asarray(file.tensors[f"conv{layer}.{part}"])) for part in ("weight", "bias")
            )
            if file.quantized:
                scale = spec.input_scale if layer == 0 else 1.0
                step = float(file.tensors[f"conv{layer}.step"]) * scale
                student.weight_steps[layer] = step
                student.bias_grains[layer] = 1 if torch.any(bias % spec.bias_grain) else spec.bias_grain
                weight, bias = weight.double() * step, bias.double() * student._unit(layer)
            conv.weight.copy_(weight)
            student._bias(layer).copy_(bias)
        for layer in range(spec.depth):
            if file.quantized:
                spacing = _spacing(np.asarray(file.tensors[f"lif{layer}.vth"], dtype=np.int64), f"lif{layer}.vth")
                if spacing % 4 if spec.levels > 1 else (spacing - 1) % 4:  # see _spacing: that of one level is odd
                    student.bias_grains[layer] = 1
                student.log_delta[layer] = math.log(spacing * student._unit(layer))
            else:
                student.log_delta[layer] = float(np.log(file.tensors[f"lif{layer}.delta"]))
        student.on_grid.fill_(file.quantized)
        return student


def _numbers(tensor: Tensor) -> NDArray[np.float64]:
    return np.asarray(tensor.detach().double().cpu().numpy(), dtype=np.float64)


def _by_time(signal: Tensor, batch: int) -> Tensor:
    """(T * B, ...) -> (T, B, ...)."""
    return signal.view(-1, batch, *signal.shape[1:])


def _spacing(vth: NDArray[np.int64], name: str) -> int:
    """The spacing that :meth:`SpikingStudent._threshold_integers` gives these thresholds for."""
    spacing = int(vth[1] - vth[0]) if len(vth) > 1 else 2 * int(vth[0]) + 1
    if spacing < 1 or vth[0] != spacing // 2 or np.any(np.diff(vth) != spacing):
        raise UserError("thresholds are not evenly spaced", node=name, have=str(vth.tolist()))
    return spacing
