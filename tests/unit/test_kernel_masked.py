"""Without a compiler, and with the wide instructions masked: the same integers, slower, and the doctor says so."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from neurodeploy.errors import UserError
from neurodeploy.quantize.network import IntegerNetwork
from neurodeploy.report import doctor as doctoring
from neurodeploy.simulate import kernel, reference
from neurodeploy.simulate.kernel import build
from neurodeploy.simulate.kernel import library as loading
from neurodeploy.simulate.kernel.build import SOURCE, compile_kernel
from neurodeploy.simulate.restore import restore
from tests.kernel_nets import student_like
from tests.kernel_strategies import assert_counted, networks

ROOT = Path(__file__).resolve().parents[2]
FILE = SOURCE.with_name(loading.LIBRARY)
built = pytest.mark.skipif(kernel.missing() is not None, reason=str(kernel.missing()))


def held(monkeypatch: pytest.MonkeyPatch, widest: str) -> None:
    monkeypatch.setattr(loading, "_loaded", lambda: loading.load(FILE, widest))
    monkeypatch.setattr(doctoring, "_devices", list)  # importing torch takes seconds and is not asked about here


@built
@pytest.mark.parametrize("widest", [name for name in loading.PATHS if not kernel.missing()])
def test_no_wider_instructions_than_wanted(widest: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net = student_like(steps=3)
    codes = np.random.default_rng(0).integers(0, 99, (4, 9, 12))
    machine = loading.library().machine
    held(monkeypatch, widest)
    allowed = loading.library().paths
    assert allowed == machine[: machine.index(allowed[-1]) + 1]
    assert loading.PATHS[allowed[-1]] <= loading.PATHS[widest]
    np.testing.assert_array_equal(kernel.run(net, codes), reference.run(net, codes))
    doctor = doctoring.diagnose()
    assert f"compiled, {allowed[-1]} of" in doctor["kernel"]
    masked = allowed != machine
    assert masked == (loading.LIMIT in doctor["kernel"])
    assert masked == any(loading.LIMIT in line for line in doctor["advice"])


@built
@pytest.mark.parametrize("widest", [name for name in loading.PATHS if not kernel.missing()])
def test_counting_with_no_wider_instructions(widest: str, monkeypatch: pytest.MonkeyPatch) -> None:
    held(monkeypatch, widest)

    @settings(max_examples=8, suppress_health_check=list(HealthCheck))
    @given(networks(), st.none() | st.integers(3, 9))
    def check(drawn: tuple[IntegerNetwork, np.ndarray], core: int | None) -> None:
        net, codes = drawn
        if kernel.declines(net, codes) is None:
            assert_counted(net, codes, core)

    check()


def test_no_kernel_when_none_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    held(monkeypatch, "none")
    net = student_like()
    image = np.random.default_rng(0).random((1, 20, 16), np.float32)
    np.testing.assert_array_equal(restore(net, image), restore(net, image, backend="reference"))
    with pytest.raises(UserError, match="switched off"):
        restore(net, image, backend="kernel")
    doctor = doctoring.diagnose()
    assert "switched off" in doctor["kernel"]
    assert any("slower" in line for line in doctor["advice"])


def test_a_path_that_does_not_exist_is_named() -> None:
    with pytest.raises(UserError, match=r"no such instruction path.*avx2"):
        loading.load(FILE, "avx1024")


def test_a_library_of_other_sources_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, made = tmp_path / "other.c", tmp_path / "other.so"
    source.write_text("#include <stdint.h>\nint64_t nd_sources(void) { return 12; }\n")
    reason = compile_kernel(made, source=source)
    if reason is not None:
        pytest.skip(reason)
    assert loading.load(made) == "the compiled kernel is of another version of the program: install the package anew"


@pytest.mark.skipif(shutil.which("flock") is None, reason="flock is not installed")
def test_a_compiler_that_hangs_is_ended_with_all_it_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its child keeps a lock for as long as it lives."""
    lock, script = tmp_path / "lock", tmp_path / "cc"
    script.write_text(f"#!/bin/sh\nflock {lock} sleep 600 &\nwait\n")
    script.chmod(0o755)
    monkeypatch.setenv("CC", str(script))
    monkeypatch.setattr(build, "TIMEOUT", 0.5)
    assert "gave no answer within" in str(compile_kernel(tmp_path / "made.so"))
    subprocess.run(["flock", "--timeout", "60", lock, "true"], check=True)


@built
@pytest.mark.slow
def test_a_compiler_without_amx_leaves_only_that_out(tmp_path: Path) -> None:
    made = tmp_path / "kernel.so"
    assert compile_kernel(made, flags=("-O0", "-DND_WITHOUT_AMX")) is None
    found = loading.load(made)
    assert isinstance(found, loading.Library)
    assert found.machine == tuple(name for name in loading.library().machine if name != "amx")


@pytest.mark.slow
@pytest.mark.parametrize("widest", ["none", "plain"])
def test_everything_that_simulates_passes_without(widest: str) -> None:
    names = ("kernel", "kernel_restore", "simulate_restore", "energy_count", "cli_verbs")
    files = [f"tests/unit/test_{name}.py" for name in names]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *files]
    environment = {**os.environ, loading.LIMIT: widest}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout
