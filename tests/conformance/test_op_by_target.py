"""Every operation on every target: equal numbers after writing, reading back and running, or a refusal with a name.

The cells are those of the support table, which is printed from the same checks.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from neurodeploy.errors import FindingsError
from neurodeploy.quantize.network import IntegerNetwork
from neurodeploy.simulate.observe import Trace
from neurodeploy.simulate.reference import run
from neurodeploy.targets import support_table, target_names
from neurodeploy.targets.export import export
from neurodeploy.targets.ops import OPERATIONS, SIZE, Operation

CELLS = [(operation, target) for operation in OPERATIONS for target in target_names()]

# What each target is for: a cell that changes has to be changed here too, with a line in the change log.
EXPECTED = {
    "convolution and LIF, one step": "lava loihi2 nir onnx speck spinnaker2",
    "several time steps, no leak left": "lava loihi2 nir onnx spinnaker2",
    "LIF with leak": "lava loihi2 nir onnx",
    "LIF without leak (IF)": "lava loihi2 onnx speck spinnaker2",
    "one leak a channel": "lava loihi2 onnx",
    "LIF with synaptic current (CUBA)": "lava loihi2 onnx",
    "integer levels (4 populations)": "lava loihi2 nir onnx spinnaker2",
    "sum edge": "lava loihi2 nir onnx",
    "dilation": "lava loihi2 nir onnx",
    "stride": "lava loihi2 nir onnx speck spinnaker2",
    "1x1 kernel": "lava loihi2 nir onnx speck spinnaker2",
    "kernel that is not square": "lava loihi2 onnx",
    "groups": "lava loihi2 onnx",
    "dense layer behind a flatten": "lava loihi2 onnx",
    "odd weights": "onnx",
    "weights beyond 8 bits": "onnx",
    "weights with an exponent": "lava loihi2 onnx",
    "threshold beyond 17 bits": "onnx",
}


@pytest.fixture(scope="module")
def table() -> dict[str, dict[str, str]]:
    return support_table()


def test_the_table_says_what_the_targets_are_for(table: dict[str, dict[str, str]]) -> None:
    own = {"lava", "loihi2", "nir", "onnx", "speck", "spinnaker2"}
    held = {title: " ".join(name for name in sorted(own) if not row[name]) for title, row in table.items()}
    assert held == EXPECTED


@pytest.mark.parametrize(("operation", "target"), CELLS, ids=[f"{op.title} - {name}" for op, name in CELLS])
def test_a_cell_is_equal_numbers_or_a_named_refusal(
    tmp_path: Path, table: dict[str, dict[str, str]], operation: Operation, target: str
) -> None:
    sample = operation.sample(target)
    refusal = table[operation.title][target]
    if refusal:
        with pytest.raises(FindingsError) as caught:
            export(sample, target, tmp_path / "bundle")
        assert " | ".join(str(finding) for finding in caught.value.findings) == refusal
        assert all(finding.node and finding.rule for finding in caught.value.findings)
        assert list(tmp_path.iterdir()) == []
        return
    bundle = export(sample, target, tmp_path / "bundle")
    net = sample.network
    assert isinstance(net, IntegerNetwork)
    codes = net.host.encode(np.random.RandomState(5).rand(1, *SIZE))
    expected = Trace(net.host.steps)
    wanted = run(net, codes, observer=expected)
    networks = bundle.networks()
    assert networks
    for file, read in networks.items():
        trace = Trace(read.host.steps)
        np.testing.assert_array_equal(run(read, codes, observer=trace), wanted, err_msg=file)
        for name, layer in expected.layers.items():
            # above 17 bits a threshold is out of the membrane's reach
            assert layer.fired.any() or "beyond 17 bits" in operation.title, f"{name} is silent: the cell shows nothing"
            shape = (len(layer.fired), -1, *layer.fired.shape[3:])
            have = trace.layers[name].fired.reshape(shape)
            np.testing.assert_array_equal(have, layer.fired.reshape(shape), err_msg=f"{file}: {name}")
    unit = bundle.integer_network().output_scale
    assert unit == pytest.approx(net.output_scale, rel=1e-12)
