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
from neurodeploy.quantize.network import IntegerDense, IntegerNetwork
from neurodeploy.simulate.observe import Trace
from neurodeploy.simulate.reference import run
from neurodeploy.targets.base import Deployable
from neurodeploy.targets.bundle import Bundle
from neurodeploy.targets.check import check
from neurodeploy.targets.export import export
from neurodeploy.targets.lava_chain import weight_findings
from neurodeploy.targets.ops import OPERATIONS

pytestmark = pytest.mark.external

SAMPLES = {operation.title: operation for operation in OPERATIONS}
HELD = [title for title, operation in SAMPLES.items() if check(operation.sample(), "lava").ok]

DRIVER = """
import importlib.util, json, sys
import numpy as np
spec = importlib.util.spec_from_file_location("run", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
manifest = json.loads((module.HERE / "manifest.json").read_text())
spikes, totals = module.run_lava(list(np.load(sys.argv[2])), manifest)
np.savez(sys.argv[3], output=totals, **spikes)
"""


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
def python() -> str:
    named = os.environ.get("NEURODEPLOY_LAVA_PYTHON") or lava_env.python()
    if named is None:
        pytest.skip("needs Lava: set NEURODEPLOY_LAVA_PYTHON, or run `neurodeploy doctor --install-lava`")
    return str(named)


def in_lava(python: str, bundle: Bundle, frames: np.ndarray, tmp_path: Path) -> dict[str, np.ndarray]:
    """Spikes {layer: (M, T, C, h, w)} and "output" (M, C, h, w) of M images back to back."""
    np.save(tmp_path / "frames.npy", frames)
    command = [python, "-c", DRIVER, str(bundle.path / "run.py"), str(tmp_path / "frames.npy"), str(tmp_path / "o.npz")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    with np.load(tmp_path / "o.npz") as arrays:
        return dict(arrays)


def compared(net: IntegerNetwork, have: dict[str, np.ndarray], frames: np.ndarray) -> tuple[int, int]:
    """How many values were compared, and how many differ."""
    values = differing = 0
    for place, codes in enumerate(frames):
        trace = Trace(net.host.steps)
        output = run(net, codes, observer=trace)
        wanted = {name: layer.fired.reshape(len(layer.fired), -1, *layer.fired.shape[3:])
                  for name, layer in trace.layers.items()}  # fmt: skip
        assert set(have) == {*wanted, "output"}
        for name, want in {**wanted, "output": output}.items():
            assert have[name][place].shape == want.shape
            values += want.size
            differing += int((have[name][place] != want).sum())
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
def test_a_student_spikes_alike_in_lava(
    tmp_path: Path, python: str, levels: int, steps: int, decay: float, images: int
) -> None:
    net = student(levels, steps, decay)
    bundle = export(Deployable("student", net, (24, 32)), "lava", tmp_path / "b")
    rng = np.random.RandomState(0)
    frames = np.stack([net.host.encode(rng.rand(1, 24, 32)) for _ in range(images)])
    have = in_lava(python, bundle, frames, tmp_path)
    assert all(spikes.any() for spikes in have.values())
    values, differing = compared(net, have, frames)
    print(json.dumps({"levels": levels, "steps": steps, "images": images, "values": values, "differing": differing}))
    assert values > 10000 and differing == 0


@pytest.mark.parametrize("title", HELD)
def test_every_operation_is_the_same_in_lava(tmp_path: Path, python: str, title: str) -> None:
    net = SAMPLES[title].build()
    bundle = export(SAMPLES[title].sample(), "lava", tmp_path / "b")
    rng = np.random.RandomState(1)
    frames = np.stack([net.host.encode(rng.rand(1, *bundle.manifest.image_size)) for _ in range(3)])
    values, differing = compared(bundle.integer_network(), in_lava(python, bundle, frames, tmp_path), frames)
    print(json.dumps({"operation": title, "values": values, "differing": differing}))
    assert values > 100 and differing == 0


def test_lava_holds_every_dense_matrix_that_is_allowed(tmp_path: Path, python: str) -> None:
    """Least and largest weight decide how netx scales a matrix: what is refused goes wrong, the rest is exact."""
    rows = np.array([(low, high) for low in range(-256, 256, 6) for high in range(low, 256, 6)])
    powers = np.array([(-(1 << k), high) for k in range(1, 9) for high in (-(1 << k), 0)])
    rows = np.concatenate([rows, powers])
    rows = rows[rows.any(axis=1)]
    refused = np.array([bool(weight_findings(IntegerDense("dense", row[None]))) for row in rows])
    np.save(tmp_path / "rows.npy", rows)
    command = [python, "-c", DENSE, str(tmp_path / "rows.npy"), str(tmp_path / "right.npy")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    right = np.load(tmp_path / "right.npy")
    assert right[~refused].all() and (~refused).sum() > 3000
    assert not right[refused].any() and refused.sum() >= len(powers)
