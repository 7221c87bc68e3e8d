"""The AVX2 path: spikes under kernels of three columns, in words or in sets of channels; few outputs."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from neurodeploy.graph.spec import HostSide
from neurodeploy.quantize.network import IntegerConv, IntegerInput, IntegerLif, IntegerNetwork, IntegerReadout
from neurodeploy.simulate import kernel
from neurodeploy.simulate.kernel.library import library
from neurodeploy.simulate.kernel.pack import CHUNK, SETS, WORD, pack_events, pack_thin
from neurodeploy.simulate.kernel.plan import make_plan
from neurodeploy.simulate.kernel.program import SETS_RATE, WIDE_SETS_RATE, Case, Form, Program
from tests.kernel_strategies import assert_counted, assert_same

AVX2 = kernel.missing() is None and "avx2" in library().paths
machine = pytest.mark.skipif(not AVX2, reason="no kernel, or a processor without AVX2")


def spiking(
    inputs: int,
    outputs: int,
    rows: int,
    rate: float,
    *,
    steps: int = 3,
    columns: int = 3,
    largest: int = 40,
    last: int = 5,
) -> tuple[IntegerNetwork, np.ndarray]:
    """A layer that spikes at about this rate, its reader under test, and a readout; codes for them."""
    rng = np.random.default_rng([inputs, outputs, rows, int(100 * rate), columns])
    codes = rng.integers(0, 256, (1, 13, 77))
    first = rng.integers(-60, 61, (inputs, 1, 1, 1)) * 2
    drive = first[:, 0, 0, 0, None] * codes.reshape(1, -1)
    middle = rng.integers(-largest, largest + 1, (outputs, inputs, rows, columns)) * 2
    nodes = {
        "input": IntegerInput("input", 1),
        "conv0": IntegerConv("conv0", first),
        "lif0": IntegerLif("lif0", int(np.quantile(drive, 1 - rate)), np.zeros(inputs, np.int64), v_decay=4096),
        "conv1": IntegerConv("conv1", middle, padding=(rows // 2, columns // 2)),
        "lif1": IntegerLif("lif1", 30, rng.integers(-20, 21, outputs), v_decay=2048),
        "conv2": IntegerConv("conv2", rng.integers(-127, 128, (last, outputs, 3, 3)), padding=(1, 1)),
        "output": IntegerReadout("output", rng.integers(-9, 10, last)),
    }
    names = list(nodes)
    return IntegerNetwork(nodes, tuple(pairwise(names)), HostSide(steps=steps)), codes


def program(net: IntegerNetwork, codes: np.ndarray, form: Form) -> Program:
    """What the AVX2 path runs."""
    plan = make_plan(net, "avx2", (codes.shape[-2], codes.shape[-1]))
    assert not isinstance(plan, str), plan
    return Program(plan, Case((codes.shape[-2], codes.shape[-1]), 1, 1, form, False))


@machine
@pytest.mark.parametrize("form", ["auto", "events", "sets"])
@pytest.mark.parametrize("rate", [0.02, 0.1, 0.4])
@pytest.mark.parametrize("rows", [1, 2, 3, 5])
@pytest.mark.parametrize(
    ("inputs", "outputs"), [(3, 1), (16, 16), (20, 33), (32, 32), (40, 70), (64, 48), (70, 20), (130, 100)]
)
def test_every_width(inputs: int, outputs: int, rows: int, rate: float, form: Form) -> None:
    net, codes = spiking(inputs, outputs, rows, rate)
    counted = assert_same(net, codes, "avx2", 1, form)
    assert rate / 2 < counted.layers["lif0"].mean() < 1.5 * rate + 0.01  # it is what was meant
    assert 0.001 < counted.layers["lif1"].mean() < 0.999


@machine
@pytest.mark.parametrize("rate", [0.05, 0.4])
@pytest.mark.parametrize(("inputs", "outputs"), [(16, 16), (40, 70), (130, 33)])
def test_operations_are_counted_from_bits(inputs: int, outputs: int, rate: float) -> None:
    net, codes = spiking(inputs, outputs, 3, rate)
    assert program(net, codes, "auto")._layers[0].unread  # its spikes are nowhere as bytes
    for core in (None, 8):
        assert_counted(net, codes, core, path="avx2")


@machine
@pytest.mark.parametrize(("inputs", "rate"), [(16, SETS_RATE[16]), (32, SETS_RATE[32]), (33, WIDE_SETS_RATE)])
def test_which_form_is_taken(inputs: int, rate: float) -> None:
    net, codes = spiking(inputs, 32, 3, 0.1)
    for form, sets, few in (
        ("auto", True, round(rate * 13 * 77 * inputs)),
        ("sets", True, 0),
        ("events", False, None),
    ):
        made = program(net, codes, form)  # type: ignore[arg-type]
        term = made._layers[1].terms[0]
        assert term.joined == {16: 4, 32: 2, 33: 1}[inputs]
        assert bool(term.sets) is sets
        assert bool(made._layers[0].unread) is sets
        assert few is None or abs(made._layers[0].few - few) <= 1
    dense = program(net, codes, "dense")._layers
    assert not dense[1].terms[0].sets and not dense[1].terms[0].form and not dense[0].unread


@machine
def test_where_there_are_no_words() -> None:
    """Kernels of other widths, sums of more than 16 bits, and paths that list spikes."""
    for columns, largest in ((5, 40), (1, 40), (3, 127)):
        net, codes = spiking(130, 16, 5, 0.3, columns=columns, largest=largest)
        term = program(net, codes, "auto")._layers[1].terms[0]
        assert not term.joined and not term.sets
        assert_same(net, codes, "avx2", 1, "sets")
    weight = np.ones((4, 4, 3, 3), np.int64)
    listed, worded = pack_events(weight, 0, scanned=False), pack_events(weight, 0, scanned=True)
    assert listed is not None and worded is not None
    assert listed.rows.shape == (3, 3 * 16 + 1, 16) and listed.sets is None and not listed.joined
    assert worded.rows.shape == (3, 1, WORD + 1, 16) and worded.joined == 4


def test_a_table_of_sets_holds_sums() -> None:
    rng = np.random.default_rng(0)
    outputs, inputs, rows, columns = 40, 28, 2, 3
    weight = rng.integers(-127, 128, (outputs, inputs, rows, columns))
    table = pack_events(weight, 0, scanned=True)
    assert table is not None and table.sets is not None
    assert sum(SETS) == 16
    assert table.sets.shape == (2, rows * 2, 131, columns, CHUNK)
    for _ in range(400):
        output, row, column, part, group = (int(rng.integers(top)) for top in (outputs, rows, columns, 2, 3))
        members, first = int(rng.integers(1 << SETS[group])), 16 * part + sum(SETS[:group])
        chosen = [first + bit for bit in range(SETS[group]) if members >> bit & 1 and first + bit < inputs]
        found = table.sets[output // CHUNK, row * 2 + part, (0, 65, 98)[group] + members, column, output % CHUNK]
        assert found == weight[output, chosen, row, column].sum()


@machine
@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("last", [1, 2, 3, 4, 5])
def test_few_outputs(last: int, steps: int) -> None:
    net, codes = spiking(24, 40, 3, 0.3, steps=steps, last=last)
    term = program(net, codes, "dense")._layers[2].terms[0]
    assert term.thin == (last if last <= 4 else 0)
    assert_same(net, codes, "avx2", 1, "dense")


def test_few_outputs_lie_by_vectors() -> None:
    weight = np.random.default_rng(0).integers(-127, 128, (3, 20, 2, 3))
    packed = pack_thin(weight)
    assert packed.shape == (2, 3, 3, 32)  # 3 columns of 32 channels
    counts = np.random.default_rng(1).integers(0, 16, (2, 3, 32))
    counts[..., 20:] = 0
    flat = packed.transpose(0, 2, 1, 3).reshape(2, 3, -1).astype(np.int64)
    np.testing.assert_array_equal(
        np.einsum("rov,rv->o", flat, counts.reshape(2, -1)), np.einsum("oirc,rci->o", weight, counts[..., :20])
    )
