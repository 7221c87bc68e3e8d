"""Levels in time, in Lava: every spike, u and v of the program's processes, and the output that populations give."""

from __future__ import annotations

import functools
import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from neurodeploy import lava_env
from neurodeploy.graph.spec import StudentSpec
from neurodeploy.quantize.bursts import Coded, in_bursts
from neurodeploy.quantize.digits import in_digits
from neurodeploy.quantize.lower import quantize
from neurodeploy.quantize.network import IntArray, IntegerNetwork
from neurodeploy.simulate import reference
from neurodeploy.targets.lava_run import LavaJob, run_jobs
from tests.burst_nets import burstable
from tests.lava_equality import differing
from tests.random_graphs import Case
from tests.random_nets import random_student, student_network

pytestmark = pytest.mark.external


@pytest.fixture(scope="module")
def run() -> functools.partial[object]:
    named = os.environ.get("NEURODEPLOY_LAVA_PYTHON")
    found = Path(named) if named else lava_env.python()
    if found is None:
        pytest.skip("needs Lava: set NEURODEPLOY_LAVA_PYTHON, or run `neurodeploy doctor --install-lava`")
    return functools.partial(run_jobs, python=found)


def drawn_networks(networks: int, most: int) -> list[tuple[IntegerNetwork, IntArray]]:
    """Random networks with codes, and a student with sum edges and a map of the noise."""
    found: list[tuple[IntegerNetwork, IntArray]] = []

    @settings(
        max_examples=networks,
        phases=(Phase.generate,),
        derandomize=True,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(drawn=burstable(most=most))
    def draw(drawn: tuple[IntegerNetwork, IntArray]) -> None:
        found.append(drawn)

    draw()
    spec = StudentSpec(width=4, depth=4, levels=4, edges=((1, 3),), noise_map=True)
    net = quantize(student_network(random_student(spec, 1), (16, 12)))
    return [*found, (net, net.host.encode(np.random.default_rng(0).normal(0.5, 0.1, (1, 16, 12))))]


@pytest.mark.parametrize(("code", "count", "most"), [(in_bursts, 6, 7), (in_digits, 6, 11)], ids=["bursts", "digits"])
def test_levels_in_time_are_equal_in_lava_and_reference(
    run: functools.partial,  # type: ignore[type-arg]
    code: Callable[[IntegerNetwork], Coded],
    count: int,
    most: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    networks = drawn_networks(count, most)
    jobs = [
        LavaJob(code(net).net, np.stack([codes, codes[..., ::-1, :]]).astype(np.int64), "program")
        for net, codes in networks
    ]
    tally: Counter[str] = Counter()
    wrong: list[str] = []
    for (net, _), job, have in zip(networks, jobs, run(jobs), strict=True):
        case = Case(job.network, job.codes, "program")
        wrong += differing(case, have, tally)
        for image, codes in enumerate(job.codes):
            if not np.array_equal(have.output[image], reference.run(net, codes)):
                wrong.append(f"output of the populations, image {image}")
        tally["networks"] += 1
    with capsys.disabled():
        print("\n" + json.dumps({"networks that differ": len(wrong), **tally}))
    assert wrong == []
    assert tally["networks"] == len(networks) and tally["spikes"] > 1000
