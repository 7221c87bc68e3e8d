"""The reference against integer traces that others recorded: Intel's PilotNet-LIF, and the NIR paper's LIF on Loihi."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from neurodeploy.quantize.network import IntegerConv, IntegerDense
from neurodeploy.report.arrays import read_codes
from neurodeploy.simulate.observe import Trace
from neurodeploy.simulate.reference import conv, dense, lif_step, run
from neurodeploy.zoo import resolve
from tests.shared import shared_path

LAYERS = ("input", "conv-0", "conv-1", "conv-2", "conv-3", "conv-4", "fc-0", "fc-1", "fc-2", "fc-3")
FILE_LAYERS = (0, 1, 2, 3, 4, 5, 7, 8, 9, 10)
"""Numbers of these in the file: layer 6 flattens."""

State = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]


@pytest.fixture(scope="module")
def folder() -> Path:
    return shared_path("golden/pilotnet_lif")


def neuron_numbers(layer: h5py.Group) -> dict[str, int]:
    neuron = layer["neuron"]
    return {
        "i_decay": int(np.ravel(neuron["iDecay"][()])[0]),
        "v_decay": int(np.ravel(neuron["vDecay"][()])[0]),
        "vth": int(np.ravel(neuron["vThMant"][()])[0]),
    }


def channel_bias(layer: h5py.Group) -> NDArray[np.int64]:
    return layer["bias"][()].astype(np.int64).reshape(-1, 1, 1) if "bias" in layer else np.zeros((1, 1, 1), np.int64)


def incoming(layer: h5py.Group, spikes: NDArray[np.int64]) -> NDArray[np.int64]:
    """What arrives at a layer for the spikes (C, H, W) of the one before."""
    weight = layer["weight"][()].astype(np.int64)
    if weight.ndim <= 2:
        return dense(spikes.reshape(-1, 1, 1), IntegerDense("dense", weight.reshape(-1, spikes.size)))
    stride, padding, dilation = (
        tuple(int(n) for n in np.broadcast_to(layer[key][()], 2)) for key in ("stride", "padding", "dilation")
    )
    weight = weight.reshape(weight.shape[:4])
    return conv(spikes, IntegerConv("conv", weight, stride, padding, dilation, int(layer["groups"][()])))


def to_chw(recorded: NDArray[np.generic]) -> NDArray[np.int64]:
    """(W, H, C, T) or (N, T) as (T, C, H, W) or (T, N, 1, 1)."""
    if recorded.ndim == 2:
        return recorded.T[:, :, None, None].astype(np.int64)
    return recorded.transpose(3, 2, 1, 0).astype(np.int64)


def recorded(folder: Path, name: str, part: str) -> NDArray[np.int64] | None:
    path = folder / f"{name}{part}.npy"
    return to_chw(np.load(path)) if path.exists() else None


def simulate_pilotnet(folder: Path, steps: int, resets: Callable[[int, int], bool]) -> Iterator[tuple[int, str, State]]:
    """Every layer after every step: u, v, spikes. A spike takes a step to the next layer, as on the chip.

    Args:
        folder: Where the recording lies.
        steps: Number of steps, which count from 1.
        resets: (t, k) -> whether layer k starts anew before step t.
    """
    image = np.load(folder / "image.npy").astype(np.int64).transpose(2, 1, 0)
    with h5py.File(folder / "network.net", "r") as file:
        layers = [file[f"layer/{number}"] for number in FILE_LAYERS]
        numbers = [neuron_numbers(layer) for layer in layers]
        sent = [np.zeros_like(image)]
        for layer in layers[1:]:
            sent.append(np.zeros_like(incoming(layer, sent[-1])))
        states = [(np.zeros_like(spikes), np.zeros_like(spikes)) for spikes in sent]
        for t in range(1, steps + 1):
            before = list(sent)
            for k, layer in enumerate(layers):
                current = incoming(layer, before[k - 1]) if k else np.zeros_like(image)
                bias = channel_bias(layer) if k else image
                if resets(t, k):
                    states[k] = np.zeros_like(current), np.zeros_like(current)
                u, v, fired = lif_step(*states[k], current, bias=bias, **numbers[k])
                states[k], sent[k] = (u, v), fired.astype(np.int64)
                yield t, LAYERS[k], (u, v, fired)


def test_pilotnet_every_recorded_state_is_reproduced(folder: Path) -> None:
    """Every u, v and spike of nine layers and 24 steps.

    The recording resets layer k before the steps with t % 17 == k + 1 and stores v = 128 where a neuron spiked.
    """
    expected = {(name, part): recorded(folder, name, part) for name in LAYERS[:-1] for part in ("", "-u", "-v")}
    compared = 0
    for t, name, (u, v, fired) in simulate_pilotnet(folder, 24, lambda t, k: t % 17 == k + 1):
        for part, ours in (("", fired), ("-u", u), ("-v", np.where(fired, 128, v))):
            theirs = expected.get((name, part))
            if theirs is not None:
                np.testing.assert_array_equal(ours, theirs[t - 1], err_msg=f"{name}{part}, step {t}")
                compared += ours.size
    assert compared > 1_000_000


def test_pilotnet_the_last_layer_of_the_other_recording(folder: Path) -> None:
    """u and v of the output neuron over 25 steps, recorded with windows of 16 steps."""
    recorded_u, recorded_v = (np.load(folder / f"fc-3-{part}.npy").reshape(-1) for part in "uv")
    ours = [
        (int(u.item()), int(v.item()))
        for _, name, (u, v, _) in simulate_pilotnet(folder, 25, lambda t, k: t % 16 == k)
        if name == "fc-3"
    ]
    assert ours == list(zip(recorded_u, recorded_v, strict=True))
    assert len(set(ours)) > 5


def test_pilotnet_as_a_model_gives_the_recorded_states(folder: Path, tmp_path: Path) -> None:
    """The file by the program's own reader, in zero-delay time: a window of 17 steps from rest.

    In the recording layer k runs k steps late, and starts anew every 17 steps: its step t is step t - k of a window.
    """
    np.save(tmp_path / "frame.npy", np.load(folder / "image.npy").transpose(2, 1, 0))
    net = resolve(str(folder / "network.net"), steps=17, arrays=True).integer()
    trace = Trace(steps=17)
    run(net, read_codes(tmp_path / "frame.npy", net), observer=trace)
    compared = 0
    for k, (name, layer) in enumerate(trace.layers.items()):
        states = {"": layer.fired[:, 0], "-u": layer.u, "-v": np.where(layer.fired, 128, layer.v)[:, 0]}
        for part, ours in states.items():
            theirs = recorded(folder, LAYERS[k], part)
            if theirs is None:
                continue
            for t in range(k + 1, 25):
                step = (t - k - 1) % 17
                np.testing.assert_array_equal(ours[step], theirs[t - 1], err_msg=f"{name}{part}, step {t}")
                compared += ours[step].size
    assert list(trace.layers) == ["lif_input", *(f"lif{k}" for k in range(8))] and compared > 1_000_000


@pytest.mark.parametrize(("file", "at_spikes"), [("lif_lava_cpu_fixed.csv", 0), ("lif_lava_loihi_fixed.csv", 128)])
def test_the_nir_papers_neuron_on_lava_and_on_loihi(file: str, at_spikes: int) -> None:
    """One thousand steps of one LIF neuron; an input spike weighs 10 and arrives one step later."""
    folder = shared_path("golden/nir_lif")
    theirs = np.genfromtxt(folder / file, delimiter=",")
    theirs = theirs[~np.isnan(theirs).any(axis=1)]
    arriving = np.concatenate([[0], np.genfromtxt(folder / "lif_norse.csv", delimiter=",")[:, 0][:-1]])
    u = v = np.zeros(1, np.int64)
    ours = []
    for value in arriving:
        current = np.array([10 * int(value)])
        u, v, fired = lif_step(u, v, current, i_decay=4096, v_decay=163, vth=25, bias=0)
        ours.append((int(v[0]) if not fired[0] else at_spikes, int(fired[0])))
    assert len(ours) == len(theirs) == 1000
    np.testing.assert_array_equal(np.array(ours), theirs[:, 1:3])
