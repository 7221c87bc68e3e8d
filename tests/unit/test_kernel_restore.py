"""The kernel behind restore(): tiles, counting, the choice of the simulator, and what a machine without it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurodeploy.energy.count import OperationCounter
from neurodeploy.errors import UserError
from neurodeploy.report import doctor as doctoring
from neurodeploy.simulate import kernel, reference
from neurodeploy.simulate.kernel import library as loading
from neurodeploy.simulate.observe import Trace, takes_counts
from neurodeploy.simulate.restore import resolve_backend, restore, run_tiled
from neurodeploy.simulate.spread import SpikeTally
from tests.energy_nets import student
from tests.kernel_nets import student_like

built = pytest.mark.skipif(kernel.missing() is not None, reason=str(kernel.missing()))


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).random((1, height, width), np.float32)


@built
@pytest.mark.parametrize("tile", [None, 10, 32])
@pytest.mark.parametrize("size", [(61, 47), (9, 70), (1, 1)])
def test_tiles_and_back_ends_give_the_same_picture(tile: int | None, size: tuple[int, int]) -> None:
    net = student_like(levels=2)
    image = picture(*size)
    expected = restore(net, image, backend="reference", tile=10_000)
    np.testing.assert_array_equal(restore(net, image, backend="kernel", tile=tile), expected)
    np.testing.assert_array_equal(restore(net, image, tile=tile), expected)


@built
@settings(max_examples=12)
@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.integers(1, 4), st.integers(3, 9))
def test_counts_of_operations_are_those_of_the_reference(seed: int, steps: int, levels: int, core: int) -> None:
    rng = np.random.default_rng(seed)
    net = student(rng, levels=levels, steps=steps)
    codes = rng.integers(0, 256, (1, 11, 9))
    expected, whole, tiled = OperationCounter(net), OperationCounter(net), OperationCounter(net)
    reference.run(net, codes, observer=expected)
    assert takes_counts(whole)
    kernel.run(net, codes, observer=whole)
    run_tiled(net, codes, core=core, backend=kernel.run, observer=tiled)
    assert expected.counts().total("spikes") > 0
    assert whole.counts().as_dict() == expected.counts().as_dict()
    assert tiled.counts().as_dict() == expected.counts().as_dict()


@built
def test_the_tally_of_spikes_is_that_of_the_reference() -> None:
    net = student_like(steps=3, levels=2)
    tallies = [SpikeTally(), SpikeTally()]
    for tally, backend in zip(tallies, ("kernel", "reference"), strict=True):
        restore(net, picture(40, 30), backend=backend, tile=16, observer=tally)
    assert tallies[0].rows() == tallies[1].rows()


@built
def test_auto_takes_the_kernel_unless_membranes_are_wanted() -> None:
    net = student_like()
    assert resolve_backend(net) == "kernel"
    assert resolve_backend(net, observer=SpikeTally()) == "kernel"
    assert resolve_backend(net, observer=SpikeTally(Trace(1))) == "reference"
    assert resolve_backend(net, "kernel", observer=Trace(1)) == "reference"
    assert resolve_backend(net, "reference") == "reference"


@pytest.mark.parametrize(("content", "said"), [(None, "was not compiled"), (b"no library", "cannot be loaded")])
def test_without_the_kernel_the_reference_runs_and_says_so(
    content: bytes | None, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / loading.LIBRARY
    if content is not None:
        file.write_bytes(content)
    monkeypatch.setattr(loading, "_loaded", lambda: loading.load(file))
    net = student_like()
    image = picture(20, 16)
    assert said in str(kernel.declines(net))
    np.testing.assert_array_equal(restore(net, image), restore(net, image, backend="reference"))
    with pytest.raises(UserError, match=said):
        restore(net, image, backend="kernel")
    monkeypatch.setattr(doctoring, "_devices", list)  # importing torch takes seconds and is not asked about here
    doctor = doctoring.diagnose()
    assert said in doctor["kernel"]
    assert any("C compiler" in line for line in doctor["advice"])


def test_threads_follow_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert loading.default_threads() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "none of your business")
    assert loading.default_threads() >= 1
