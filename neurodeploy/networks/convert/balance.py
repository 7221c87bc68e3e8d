"""Balancing thresholds: from ReLU to D integer levels, layer by layer, on calibration pictures.

A ReLU ``a`` becomes ``delta * n`` with ``n`` in 0..D. Because ReLU is homogeneous, every channel may have a ``delta``
of its own: its weights are divided by it, those of the next layer multiplied, and one threshold a layer is left, as
chips want it. ``delta`` is the one with the least square error on the calibration pictures (Rueckauer et al. 2017,
doi:10.3389/fnins.2017.00682, take a high percentile of the activation). What is lost up to a layer is made up for in
it: its weights and bias are fitted once more to the network's own currents, so that errors do not add up along the
chain, and are rounded so that their errors cancel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from neurodeploy.graph.spec import StudentSpec
from neurodeploy.graph.student_file import StudentFile
from neurodeploy.networks.convert.shape import Shaped
from neurodeploy.networks.rounding import least_square_step, round_with_feedback, second_moments
from neurodeploy.networks.student import BIAS_LIMIT, THRESHOLD_LIMIT

CANDIDATES = 40
"""Steps that are tried for every channel, between a part of the largest activation and all of it."""

SPREADS = (1.0, 4.0, 8.0)
"""Largest ratios of two channels' steps in a layer that are tried: weights that are divided by them share 8 bits."""

FITTED = 60_000
"""Places that a layer's weights are fitted to."""

RIDGE = 1e-3
"""What holds a weight to what it was, as a share of the mean square of the inputs."""

SAMPLES = 20_000
"""Places that are looked at to choose a step."""


@dataclass(frozen=True)
class Balanced:
    """A student, and the step of each convolution's weights that it was balanced with."""

    student: StudentFile
    weight_steps: tuple[float, ...]


@dataclass
class _Signals:
    """One kind of signal on all calibration pictures, and what each layer's activation received."""

    now: list[Tensor]
    currents: list[list[Tensor]]


@torch.no_grad()
def balanced(network: Shaped, pictures: list[NDArray[np.float32]]) -> Balanced:
    """The float student of a network, its thresholds balanced for weights of 8 bits.

    Layer after layer, behind what is quantised already: the bias takes out the mean error so far; for several spreads
    the steps with the least error are chosen and the weights rounded; the spread whose activation is nearest to
    the network's stays.

    Args:
        network: The network in the student's shape.
        pictures: Degraded pictures (C, H, W) in [0, 1].
    """
    spec = network.spec
    original = [(_tensor(w), _tensor(b)) for w, b in zip(network.weights, network.biases, strict=True)]
    weights, biases = [w for w, _ in original], [b for _, b in original]
    exact = [_unshuffled(_tensor(picture)[None], spec.unshuffle) for picture in pictures]
    ann = _Signals(exact, [[] for _ in pictures])
    snn = _Signals([_coded(x, spec.input_scale) for x in exact], [[] for _ in pictures])
    steps: list[float] = []
    for layer in range(spec.depth + 1):
        wanted = _received(spec, layer, ann, *original[layer])
        if layer == spec.depth:
            have = _received(spec, layer, snn, weights[layer], biases[layer])
            change, shift = _refit(spec, layer, snn, wanted, have)
            weights[layer], biases[layer] = weights[layer] + change, biases[layer] + shift
            step = _grid_step(spec, layer, weights[layer], biases[layer])
            rounded = round_with_feedback(weights[layer], _moments(spec, layer, snn), step)
            have = _received(spec, layer, snn, rounded, biases[layer])
            biases[layer] = biases[layer] + _channel_mean(wanted) - _channel_mean(have)
            weights[layer] = weights[layer] if spec.edges else rounded
            steps.append(step)
            break
        have = _received(spec, layer, snn, weights[layer], biases[layer])
        if layer > 0:
            change, shift = _refit(spec, layer, snn, wanted, have)
            weights[layer], biases[layer] = weights[layer] + change, biases[layer] + shift
        else:
            biases[layer] = biases[layer] + _channel_mean(wanted) - _channel_mean(have)
        have = _received(spec, layer, snn, weights[layer], biases[layer])
        cap = network.caps[layer]
        aim = [x.clamp(0.0, cap) for x in wanted]
        moments = _moments(spec, layer, snn)
        found = [
            _tried(spec, layer, snn, weights[layer], biases[layer], moments, have, wanted, aim, spread)
            for spread in (SPREADS[:1] if spec.edges else SPREADS)
        ]
        best = min(found, key=lambda tried: tried.error)
        # layers that an edge joins share one step in the end, and are rounded once more
        weights[layer], biases[layer] = best.weight if spec.edges else best.rounded, best.bias
        weights[layer + 1] = weights[layer + 1] * best.unit[None, :, None, None]
        steps.append(best.step)
        snn.now, ann.now = best.counts, aim
        for kept, x in zip(ann.currents, wanted, strict=True):
            kept.append(x)
        for kept, x in zip(snn.currents, best.currents, strict=True):
            kept.append(x * best.unit[:, None, None])
    tensors = {f"conv{k}.weight": w.numpy().astype(np.float32) for k, w in enumerate(weights)}
    tensors |= {f"conv{k}.bias": b.numpy().astype(np.float32) for k, b in enumerate(biases)}
    tensors |= {f"lif{k}.delta": np.asarray(1.0, np.float32) for k in range(spec.depth)}
    return Balanced(StudentFile(spec=spec, tensors=tensors, quantized=False), tuple(steps))


def _refit(
    spec: StudentSpec, layer: int, signals: _Signals, wanted: list[Tensor], have: list[Tensor]
) -> tuple[Tensor, Tensor]:
    """The change of weights and biases that brings the currents nearest to the network's, by ridge regression.

    Where both currents are negative the neuron is silent either way, and nothing is asked for.
    """
    dilation = spec.dilations[layer]
    draw = torch.Generator().manual_seed(layer)
    each = max(1, FITTED // len(wanted))
    square, across = torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    for signal, want, got in zip(signals.now, wanted, have, strict=True):
        patches = F.unfold(signal, spec.kernel, dilation=dilation, padding=dilation * (spec.kernel // 2))[0].T
        gap = (want - got)[0].flatten(1).T
        if layer < spec.depth:
            gap = gap * ((want > 0) | (got > 0))[0].flatten(1).T
        chosen = torch.randperm(len(patches), generator=draw)[:each]
        x = torch.cat([patches[chosen], torch.ones(len(chosen), 1)], dim=1).double()
        square, across = square + x.T @ x, across + x.T @ gap[chosen].double()
    ridge = torch.full((len(square),), RIDGE * float(square.diagonal().mean()), dtype=torch.float64)
    solved = torch.linalg.solve(square + torch.diag(ridge), across)
    change = solved[:-1].T.reshape(across.shape[1], signals.now[0].shape[1], spec.kernel, spec.kernel)
    return change.float(), solved[-1].float()


@dataclass(frozen=True)
class _Tried:
    """One layer for one spread."""

    weight: Tensor
    rounded: Tensor
    bias: Tensor
    unit: Tensor
    step: float
    currents: list[Tensor]
    counts: list[Tensor]
    error: float


def _tried(
    spec: StudentSpec,
    layer: int,
    signals: _Signals,
    weight: Tensor,
    bias: Tensor,
    moments: Tensor,
    have: list[Tensor],
    wanted: list[Tensor],
    aim: list[Tensor],
    spread: float,
) -> _Tried:
    unit = _units(have, aim, spec.levels, spread)
    scaled, shift = weight / unit[:, None, None, None], bias / unit
    step = _grid_step(spec, layer, scaled, shift)
    rounded = round_with_feedback(scaled, moments, step)
    currents = _received(spec, layer, signals, rounded, shift, units=unit)
    # rounding moves the mean once more
    correction = _channel_mean([x / unit[:, None, None] for x in wanted]) - _channel_mean(currents)
    currents = [x + correction[:, None, None] for x in currents]
    counts = [_count(x, spec.levels) for x in currents]
    error = sum(float((count * unit[:, None, None] - a).square().mean()) for count, a in zip(counts, aim, strict=True))
    return _Tried(scaled, rounded, shift + correction, unit, step, currents, counts, error)


def _received(
    spec: StudentSpec, layer: int, signals: _Signals, weight: Tensor, bias: Tensor, units: Tensor | None = None
) -> list[Tensor]:
    """What the activation behind a convolution receives, edges included (which count in ``units``)."""
    dilation = spec.dilations[layer]
    out = [F.conv2d(x, weight, bias, padding=dilation * (spec.kernel // 2), dilation=dilation) for x in signals.now]
    for source, target in spec.edges:
        if target == layer:
            scale = 1.0 if units is None else units[:, None, None]
            out = [x + kept[source] / scale for x, kept in zip(out, signals.currents, strict=True)]
    return out


def _tensor(values: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).float()


def _unshuffled(x: Tensor, factor: int) -> Tensor:
    pad = (0, -x.shape[-1] % factor, 0, -x.shape[-2] % factor)
    padded = F.pad(x, pad, mode="replicate") if any(pad) else x
    return F.pixel_unshuffle(padded, factor) if factor > 1 else padded


def _coded(x: Tensor, scale: float) -> Tensor:
    return (x.double() * scale).round().float() / scale


def _count(x: Tensor, levels: int) -> Tensor:
    """How many of the thresholds 1/2, 3/2, ... are exceeded."""
    return (x - 0.5).ceil().clamp(0, levels)


def _moments(spec: StudentSpec, layer: int, signals: _Signals) -> Tensor:
    """Second moments of what a convolution receives, over all pictures."""
    dilation = spec.dilations[layer]
    padding = dilation * (spec.kernel // 2)
    places = [x.shape[2] * x.shape[3] for x in signals.now]
    each = [second_moments(x, spec.kernel, padding, dilation) * n for x, n in zip(signals.now, places, strict=True)]
    return torch.stack(each).sum(dim=0) / sum(places)


def _grid_step(spec: StudentSpec, layer: int, weight: Tensor, bias: Tensor) -> float:
    """The step of 8-bit weights with the least square error for which biases and thresholds fit their fields."""
    largest, limit = float(bias.abs().max()), spec.bias_grain * BIAS_LIMIT
    needs = [largest / limit]
    if layer < spec.depth:
        # spacings of the thresholds are rounded: up to a unit a level is kept free for that
        needs = [(largest + (spec.levels - 1) / 2) / (limit - 2 * spec.levels), spec.levels / THRESHOLD_LIMIT]
    scale = spec.input_scale if layer == 0 else 1.0
    return max(least_square_step(weight.double()), 2 * max(needs) * scale)


def _channel_mean(parts: list[Tensor]) -> Tensor:
    total = torch.stack([part.double().sum(dim=(0, 2, 3)) for part in parts]).sum(dim=0)
    places = sum(part.shape[0] * part.shape[2] * part.shape[3] for part in parts)
    return (total / places).float()


def _units(have: list[Tensor], aim: list[Tensor], levels: int, spread: float) -> Tensor:
    """The value of one spike of every channel, with the least square error.

    The largest is at most ``spread`` times the smallest.
    """
    channels = have[0].shape[1]
    x, target = (torch.cat([p.transpose(0, 1).reshape(channels, -1) for p in parts], dim=1) for parts in (have, aim))
    if x.shape[1] > SAMPLES:
        chosen = torch.linspace(0, x.shape[1] - 1, SAMPLES).long()
        x, target = x[:, chosen], target[:, chosen]
    if spread == 1.0:
        x, target = x.reshape(1, -1), target.reshape(1, -1)
    top = target.amax(dim=1).clamp(min=0.0) / levels
    floor = float(top.max().clamp(min=1e-6)) / spread if spread > 1.0 else 1e-9
    best, error = torch.full_like(top, max(floor, 1e-6)), torch.full_like(top, torch.inf)
    for share in torch.linspace(0.15, 1.05, CANDIDATES):
        unit = (top * share).clamp(min=max(floor, 1e-6))
        found = (_count(x / unit[:, None], levels) * unit[:, None] - target).square().mean(dim=1)
        better = found < error
        best, error = torch.where(better, unit, best), torch.where(better, found, error)
    return best.expand(channels).clone()
