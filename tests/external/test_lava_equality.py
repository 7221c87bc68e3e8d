"""Random networks in Lava, in the reference and in the compiled kernel: every spike, u and v of every layer and step.

Several images run back to back in Lava's pipeline, a step of delay a hop; the reference runs each of them alone and
without delays. That both give the same values is what depths, relays and reset windows are for.
"""

from __future__ import annotations

import functools
import json
import os
from collections import Counter
from pathlib import Path

import pytest

from neurodeploy import lava_env
from neurodeploy.quantize.levels import expand_levels
from neurodeploy.quantize.network import IntegerNetwork
from neurodeploy.simulate import kernel
from neurodeploy.targets import lava_program
from neurodeploy.targets.lava_plan import Hop, Plan, Stage, plan
from neurodeploy.targets.lava_run import run_jobs
from tests.lava_equality import Equality, differing, job
from tests.random_graphs import Case

pytestmark = pytest.mark.external

AT_LEAST = {
    "networks": 60, "as netx": 12, "as program": 25, "with sum edges": 25, "with strides": 8, "with dilation": 8,
    "with groups": 8, "with biases": 30, "with leaks": 20, "with currents that fade": 15, "with levels": 10,
    "with dense layers": 8, "with resets between images": 20,
}  # fmt: skip


@pytest.fixture(scope="module")
def python() -> Path:
    named = os.environ.get("NEURODEPLOY_LAVA_PYTHON")
    found = Path(named) if named else lava_env.python()
    if found is None:
        pytest.skip("needs Lava: set NEURODEPLOY_LAVA_PYTHON, or run `neurodeploy doctor --install-lava`")
    return found


def test_random_networks_are_equal_in_lava_reference_and_kernel(
    python: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    equality = Equality(functools.partial(run_jobs, python=python))
    try:
        equality.compare()
    finally:
        with capsys.disabled():
            print("\n" + json.dumps({"networks that differ": 0, **equality.tally}))
    tally = equality.tally
    assert {name: tally[name] for name, least in AT_LEAST.items() if tally[name] < least} == {}
    assert tally["run alone"] == 0 and tally["networks"] == len(equality.drawn)
    assert tally["in the kernel too"] >= 15 or kernel.missing() is not None
    assert tally["spikes"] > tally["neuron steps"] / 20


def unbalanced(net: IntegerNetwork) -> Plan:
    """The plan without its delays."""
    stages = plan(net).stages
    return Plan(
        tuple(
            Stage(stage.neuron, stage.depth, tuple(Hop(h.process, h.weights, h.source, 0) for h in stage.hops))
            for stage in stages
        )
    )


def is_delayed(case: Case) -> bool:
    """Whether a plan of the network has delays."""
    planned = plan(expand_levels(case.net))
    return case.form == "program" and any(hop.delay for stage in planned.stages for hop in stage.hops)


def test_without_the_delays_the_spikes_differ(python: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The equality above would be worth little if it held for a program that balances nothing."""
    late = [case for case in Equality(functools.partial(run_jobs, python=python)).draw() if is_delayed(case)]
    one = max(late[:6], key=lambda found: found.net.host.steps)
    monkeypatch.setattr(lava_program, "plan", unbalanced)
    (have,) = run_jobs([job(one)], python)
    assert differing(one, have, Counter())
