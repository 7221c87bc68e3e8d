"""Exported netx files in Lava itself: every layer's spikes and the output, image after image.

Needs an interpreter with lava-dl 0.6.0: ``NEURODEPLOY_LAVA_PYTHON`` names one, else the environment that
``neurodeploy doctor --install-lava`` makes is taken. Run with ``pytest -m external``.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from neurodeploy import lava_env
from neurodeploy.graph.portable import portable_graph
from neurodeploy.graph.spec import StudentSpec
from neurodeploy.quantize.levels import expand_levels
from neurodeploy.quantize.network import IntegerDense, IntegerNetwork
from neurodeploy.simulate.observe import Trace
from neurodeploy.simulate.reference import run
from neurodeploy.targets.base import Deployable
from neurodeploy.targets.check import check
from neurodeploy.targets.lava_chain import netx_findings, process_findings
from neurodeploy.targets.lava_run import LavaJob, LavaRun, run_jobs
from neurodeploy.targets.ops import OPERATIONS, SIZE

pytestmark = pytest.mark.external

SAMPLES = {operation.title: operation for operation in OPERATIONS}
HELD = [title for title, operation in SAMPLES.items() if check(operation.sample(), "lava").ok]

DENSE = """
import sys
import numpy as np
from lava.lib.dl.netx.utils import optimize_weight_bits
from lava.utils.weightutils import clip_weights, determine_sign_mode, truncate_weights
np.seterr(all="ignore")
right = []
for row in np.load(sys.argv[1]):
    weight, bits, exponent, _ = optimize_weight_bits(row[None])
    mode = determine_sign_mode(weight)  # netx does not hand its own on
    held = truncate_weights(clip_weights(weight.astype(np.int32), mode, num_bits=8), mode, bits)
    sums = [(held * count) << exponent if exponent > 0 else (held * count) >> -exponent for count in (1, 3, 200)]
    right.append(all(np.array_equal(total, row[None] * count) for total, count in zip(sums, (1, 3, 200))))
np.save(sys.argv[2], np.array(right))
"""


@pytest.fixture(scope="module")
def python() -> Path:
    named = os.environ.get("NEURODEPLOY_LAVA_PYTHON")
    found = Path(named) if named else lava_env.python()
    if found is None:
        pytest.skip("needs Lava: set NEURODEPLOY_LAVA_PYTHON, or run `neurodeploy doctor --install-lava`")
    return found


def compared(net: IntegerNetwork, have: LavaRun, frames: np.ndarray) -> tuple[int, int]:
    """How many values were compared, and how many differ: spikes, u, v, output."""
    values = differing = 0
    expanded = expand_levels(net)
    for place, codes in enumerate(frames):
        trace = Trace(net.host.steps)
        pairs = [(have.output[place], run(expanded, codes, observer=trace))]
        assert set(have.spikes) == set(trace.layers)
        for name, layer in trace.layers.items():
            pairs += [(have.spikes[name][place], layer.fired[:, 0]), (have.u[name][place], layer.u)]
            pairs.append((have.v[name][place], layer.v[:, 0]))
        for first, second in pairs:
            assert first.shape == second.shape
            values += second.size
            differing += int((first != second).sum())
    return values, differing


def student(levels: int, steps: int, decay: float) -> IntegerNetwork:
    """A student of random weights with spikes in every layer."""
    spec = StudentSpec(width=8, depth=3, levels=levels, steps=steps, decay=decay, dilation=(1, 2, 1, 1))
    rng = np.random.RandomState(levels + steps)
    tensors: dict[str, np.ndarray] = {}
    for layer in range(spec.depth + 1):
        shape = spec.conv_shape(layer)
        tensors[f"conv{layer}.weight"] = rng.randint(-90, 91, shape).astype(np.int8)
        tensors[f"conv{layer}.bias"] = rng.randint(-200, 201, shape[0]).astype(np.int32)
        tensors[f"conv{layer}.step"] = np.float32(0.002)
        if layer < spec.depth:
            tensors[f"lif{layer}.vth"] = np.sort(rng.randint(20, 400 if layer else 4000, levels)).astype(np.int32)
    graph = portable_graph(spec, tensors, (24, 32), quantized=True)
    job = check(Deployable("student", graph, (24, 32)), "lava").usable_job()
    return job.network


@pytest.mark.parametrize(("levels", "steps", "decay", "images"), [(4, 1, 1.0, 3), (1, 4, 0.25, 1), (1, 4, 1.0, 3)])
def test_a_student_spikes_alike_in_lava(python: Path, levels: int, steps: int, decay: float, images: int) -> None:
    net = student(levels, steps, decay)
    rng = np.random.RandomState(0)
    frames = np.stack([net.host.encode(rng.rand(1, 24, 32)) for _ in range(images)])
    (have,) = run_jobs([LavaJob(net, frames, "netx")], python)
    assert all(spikes.any() for spikes in have.spikes.values())
    values, differing = compared(net, have, frames)
    print(json.dumps({"levels": levels, "steps": steps, "images": images, "values": values, "differing": differing}))
    assert values > 10000 and differing == 0


def test_every_operation_is_the_same_in_lava(python: Path) -> None:
    """In every form that holds it, three images back to back."""
    jobs = []
    for title in HELD:
        net = SAMPLES[title].build()
        rng = np.random.RandomState(1)
        frames = np.stack([net.host.encode(rng.rand(1, *SIZE)) for _ in range(3)])
        forms = [
            form for form in ("netx", "program") if check(SAMPLES[title].sample(), "lava", options={"form": form}).ok
        ]
        jobs += [(title, form, LavaJob(net, frames, form)) for form in forms]
    found = run_jobs([job for _, _, job in jobs], python)
    for (title, form, job), have in zip(jobs, found, strict=True):
        values, differing = compared(job.network, have, job.codes)
        print(json.dumps({"operation": title, "form": form, "values": values, "differing": differing}))
        assert values > 100 and differing == 0


def test_lava_holds_every_dense_matrix_that_is_allowed(tmp_path: Path, python: Path) -> None:
    """Least and largest weight decide how netx scales a matrix: what is refused goes wrong, the rest is exact."""
    rows = np.array([(low, high) for low in range(-256, 256, 6) for high in range(low, 256, 6)])
    powers = np.array([(-(1 << k), high) for k in range(1, 9) for high in (-(1 << k), 0)])
    rows = np.concatenate([rows, powers])
    rows = rows[rows.any(axis=1)]
    layers = [IntegerDense("dense", row[None]) for row in rows]
    refused = np.array([bool(process_findings(layer) or netx_findings(layer)) for layer in layers])
    np.save(tmp_path / "rows.npy", rows)
    command = [str(python), "-c", DENSE, str(tmp_path / "rows.npy"), str(tmp_path / "right.npy")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    right = np.load(tmp_path / "right.npy")
    assert right[~refused].all() and (~refused).sum() > 3000
    assert not right[refused].any() and refused.sum() >= len(powers)
