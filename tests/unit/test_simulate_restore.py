"""Tiles do not show: the same integers, and the same neurons seen once, whatever the size of a tile."""

from __future__ import annotations

import numpy as np
import pytest

from neurodeploy.errors import UserError
from neurodeploy.graph.spec import HostSide
from neurodeploy.quantize.network import IntegerConv, IntegerFlatten, IntegerInput, IntegerNetwork, IntegerReadout
from neurodeploy.simulate import restore as room
from neurodeploy.simulate.observe import Trace
from neurodeploy.simulate.reference import run
from neurodeploy.simulate.restore import bytes_per_place, receptive_radius, restore, run_tiled
from tests.random_nets import chain, even_weights


def small_net(
    *, steps: int = 1, channels: int = 1, unshuffle: int = 2, levels: tuple[int, ...] = (0,)
) -> IntegerNetwork:
    rng = np.random.default_rng(3)
    fan = channels * unshuffle**2
    weights = [even_weights(rng, 3, fan, 3, 3), even_weights(rng, 3, 3, 3, 3), even_weights(rng, fan, 3, 3, 3)]
    host = HostSide(channels=channels, unshuffle=unshuffle, steps=steps, output_scale=1e-3)
    return chain(weights, vth=150, levels=levels, v_decay=4096 if steps == 1 else 1000, host=host)


def picture(channels: int, height: int, width: int) -> np.ndarray:
    rows, columns = np.mgrid[0:height, 0:width]
    waves = [0.5 + 0.3 * np.sin(rows / (5 + c)) * np.cos(columns / 7) for c in range(channels)]
    noise = np.random.default_rng(0).normal(0, 0.1, (channels, height, width))
    return (np.stack(waves) + noise).astype(np.float32)


@pytest.mark.parametrize(
    ("height", "width", "tile"),
    [(97, 61, 10), (97, 61, 31), (61, 97, 64), (97, 61, 64), (1, 1, 2), (2, 37, 2), (33, 5, 2), (33, 5, 10)],
)
def test_tiles_give_the_very_numbers_of_one_go(height: int, width: int, tile: int) -> None:
    net = small_net(levels=(0, -120))
    image = picture(1, height, width)
    whole, cut = Trace(1), Trace(1)
    expected = restore(net, image, observer=whole, tile=10_000)
    found = restore(net, image, tile=tile, observer=cut)
    np.testing.assert_array_equal(found, expected)
    assert found.shape == image.shape
    np.testing.assert_array_equal(cut.input, whole.input)
    for name, layer in whole.layers.items():
        for field in ("current", "u", "v", "fired"):
            np.testing.assert_array_equal(getattr(cut.layers[name], field), getattr(layer, field))


@pytest.mark.parametrize(("steps", "channels", "unshuffle"), [(4, 1, 2), (1, 3, 1), (3, 3, 4)])
def test_a_large_picture_in_tiles(steps: int, channels: int, unshuffle: int) -> None:
    net = small_net(steps=steps, channels=channels, unshuffle=unshuffle)
    image = picture(channels, 321 if unshuffle > 1 else 107, 481 if unshuffle > 1 else 160)
    np.testing.assert_array_equal(restore(net, image, tile=96), restore(net, image, tile=10_000))


class Counting:
    """Counts how often every neuron is shown, and checks what the calls say about the place."""

    def __init__(self, extent: tuple[int, int]) -> None:
        self.seen = np.zeros(extent, int)
        self.codes_seen = np.zeros(extent, int)

    def codes(self, *, codes: np.ndarray, origin: tuple[int, int], extent: tuple[int, int]) -> None:
        assert extent == self.codes_seen.shape
        self.codes_seen[origin[0] : origin[0] + codes.shape[-2], origin[1] : origin[1] + codes.shape[-1]] += 1

    def layer(self, *, step, name, current, u, v, fired, origin, extent) -> None:  # type: ignore[no-untyped-def]
        assert extent == self.seen.shape
        assert current.shape == u.shape == v.shape[1:] == fired.shape[1:]
        if name == "lif1":
            self.seen[origin[0] : origin[0] + u.shape[1], origin[1] : origin[1] + u.shape[2]] += 1


def test_every_neuron_is_shown_once_a_step() -> None:
    net = small_net(steps=3)
    counting = Counting((49, 31))
    restore(net, picture(1, 97, 61), tile=20, observer=counting)
    assert np.all(counting.seen == 3)
    assert np.all(counting.codes_seen == 1)


def test_a_margin_one_place_too_narrow_would_show(monkeypatch: pytest.MonkeyPatch) -> None:
    net = small_net()
    image = picture(1, 60, 60)
    expected = restore(net, image, tile=10_000)
    radius = receptive_radius(net)
    assert radius == 3
    monkeypatch.setattr(room, "receptive_radius", lambda _: radius - 1)
    assert not np.array_equal(restore(net, image, tile=16), expected)


def test_the_receptive_radius_takes_the_longest_way() -> None:
    rng = np.random.default_rng(0)
    nodes = {
        "input": IntegerInput("input", 1),
        "wide": IntegerConv("wide", even_weights(rng, 1, 1, 5, 5), padding=(6, 6), dilation=(3, 3)),
        "narrow": IntegerConv("narrow", even_weights(rng, 1, 1, 3, 3), padding=(1, 1)),
        "output": IntegerReadout("output", np.zeros(1, np.int64)),
    }
    edges = (("input", "wide"), ("input", "narrow"), ("wide", "output"), ("narrow", "output"))
    assert receptive_radius(IntegerNetwork(nodes, edges, HostSide(unshuffle=1))) == 6


def test_large_pictures_are_cut_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    net = small_net()
    image = picture(1, 160, 160)
    shapes = []

    def spying(net: IntegerNetwork, codes: np.ndarray, *, observer: object = None) -> np.ndarray:
        shapes.append(codes.shape)
        return run(net, codes)

    monkeypatch.setitem(room.BACKENDS, "spy", spying)
    expected = restore(net, image, backend="spy")
    assert shapes == [(4, 80, 80)]
    monkeypatch.setattr(room, "MEMORY", bytes_per_place(net) * 60 * 60)
    shapes.clear()
    np.testing.assert_array_equal(restore(net, image, backend="spy"), expected)
    assert len(shapes) == 4
    assert max(max(shape) for shape in shapes) <= 60


def test_a_sequence_of_codes_runs_in_tiles_too() -> None:
    net = small_net(steps=3)
    codes = np.random.default_rng(1).integers(0, 256, (3, 4, 30, 20))
    np.testing.assert_array_equal(run_tiled(net, codes, core=7), run(net, codes))


def test_the_decoded_value_is_the_mean_of_the_readout_in_image_units() -> None:
    weight = np.full((1, 1, 1, 1), 2)
    nodes = {
        "input": IntegerInput("input", 1),
        "conv": IntegerConv("conv", weight),
        "output": IntegerReadout("output", np.array([10])),
    }
    host = HostSide(unshuffle=1, steps=4, output_scale=3.0, input_scale=255.0)
    net = IntegerNetwork(nodes, (("input", "conv"), ("conv", "output")), host, units={"output": 0.5})
    image = np.full((1, 2, 2), 100 / 255, np.float32)
    expected = float(image[0, 0, 0]) - 3.0 * 0.5 * (2 * 100 + 10)
    np.testing.assert_allclose(restore(net, image), expected, rtol=1e-15)


def strided_net() -> IntegerNetwork:
    nodes = {
        "input": IntegerInput("input", 1),
        "conv": IntegerConv("conv", np.full((1, 1, 3, 3), 2), stride=(2, 2), padding=(1, 1)),
        "output": IntegerReadout("output", np.array([0])),
    }
    return IntegerNetwork(nodes, (("input", "conv"), ("conv", "output")), HostSide(unshuffle=1))


def test_what_cannot_be_tiled_or_restored_is_refused_by_name() -> None:
    image = picture(1, 40, 40)
    with pytest.raises(UserError, match=r"conv: does not keep the resolution"):
        restore(strided_net(), image, tile=8)
    with pytest.raises(UserError, match=r"output: does not restore images"):
        restore(strided_net(), image)
    flat = IntegerNetwork(
        {
            "input": IntegerInput("input", 1),
            "flat": IntegerFlatten("flat"),
            "output": IntegerReadout("output", np.array([0])),
        },
        (("input", "flat"), ("flat", "output")),
        HostSide(unshuffle=1),
    )
    with pytest.raises(UserError, match=r"flat: mixes all places"):
        run_tiled(flat, np.zeros((1, 9, 9), np.int64), core=3)


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        (np.zeros((3, 8, 8), np.float32), {}, "does not fit the network"),
        (np.zeros((8, 8), np.float32), {}, "does not fit the network"),
        (np.zeros((1, 0, 8), np.float32), {}, "does not fit the network"),
        (np.full((1, 8, 8), np.nan, np.float32), {}, "not finite"),
        (np.zeros((1, 8, 8), np.float32), {"tile": 1}, "tile needs a side"),
        (np.zeros((1, 8, 8), np.float32), {"backend": "abacus"}, "unknown back end"),
    ],
)
def test_wrong_input_is_one_clear_line(image: np.ndarray, options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        restore(small_net(), image, **options)
