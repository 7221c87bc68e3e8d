"""The noise that the host estimates, and the channel that it makes of it."""

from __future__ import annotations

import json
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurodeploy.graph.spec import HostSide, StudentSpec
from neurodeploy.quantize.lower import quantize
from neurodeploy.simulate.restore import restore
from neurodeploy.simulate.spread import Cores, restore_spread
from tests.random_nets import random_student, student_network

TOLD = StudentSpec(width=4, depth=2, levels=3, noise_map=True)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**16),
    channels=st.sampled_from([1, 3]),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    scale=st.sampled_from([63.75, 255.0, 20.3]),
)
def test_the_code_is_that_of_its_definition(seed: int, channels: int, height: int, width: int, scale: float) -> None:
    host = HostSide(channels=channels, input_scale=scale, noise_map=True)
    image = np.random.default_rng(seed).normal(0.5, 0.1, (channels, height, width)).astype(np.float32)
    sizes = []
    for channel, row, column in product(range(channels), range(0, height - 1, 2), range(0, width - 1, 2)):
        a, b, c, d = (round(1020 * float(image[channel, row + i, column + j])) for i in (0, 1) for j in (0, 1))
        sizes.append(abs(a - b - c + d))
    median = sorted(sizes)[(len(sizes) - 1) // 2] if sizes else 0
    expected = max(-256, min(511, round(6 * scale * median / 1020)))
    codes = host.encode(image)
    assert codes.shape == (4 * channels + 1, -(-height // 2), -(-width // 2))
    assert host.input_channels == len(codes) == host.network_channels + 1
    np.testing.assert_array_equal(codes[-1], expected)
    np.testing.assert_array_equal(codes[:-1], HostSide(channels=channels, input_scale=scale).encode(image))


@pytest.mark.parametrize("sigma", [5, 15, 25, 50])
def test_white_noise_is_found(sigma: int) -> None:
    ramp = np.linspace(0.3, 0.7, 256)[None, :] * np.ones((256, 1))
    image = ramp + np.random.default_rng(sigma).normal(0, sigma / 255, ramp.shape)
    host = HostSide(input_scale=2040.0, input_max=1 << 14, noise_map=True)
    found = host.noise_code(image[None]) / (6 * 1376 / 1020) / host.input_scale
    assert found == pytest.approx(sigma / 255, rel=0.05)


def test_without_one_descriptions_are_what_they_were() -> None:
    for made in (HostSide(), StudentSpec()):
        assert "noise_map" not in made.model_dump()
        assert "noise_map" not in json.loads(made.model_dump_json())
    for made in (HostSide(noise_map=True), TOLD):
        assert made.model_dump()["noise_map"] is True
        assert type(made).model_validate_json(made.model_dump_json()) == made


def test_tiles_are_told_of_the_noise_of_the_whole_picture() -> None:
    student = random_student(TOLD, 3)
    net = quantize(student_network(student, (48, 40)))
    image = np.random.default_rng(1).normal(0.5, 0.1, (1, 48, 40))
    image[:, :24] = 0.5  # half of it without noise
    whole = restore(net, image)
    np.testing.assert_array_equal(restore(net, image, tile=16), whole)
    pool = Cores(2)
    np.testing.assert_array_equal(restore_spread(net, image, pool, tile=16), whole)
    pool.close()
    other = net.host.noise_code(image[:, 24:])
    assert other != net.host.noise_code(image), "or tiles could not be told apart from the whole"
