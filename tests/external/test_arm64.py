"""The ARM paths on an emulated machine: without a warning, equal to the reference, and clean under the sanitizers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from neurodeploy.simulate.kernel.build import SOURCE, compile_kernel
from neurodeploy.simulate.kernel.library import LIMIT
from tests.fuzz_kernel import FLAGS as SANITIZED

ROOT = Path(__file__).resolve().parents[2]
TOOLS = Path(os.environ.get("NEURODEPLOY_ARM64", "nowhere"))
FUSED = ROOT / "neurodeploy/networks/fused/fused.c"
STRICT = ("-Wall", "-Wextra", "-Werror")
NETWORKS = 20

pytestmark = [
    pytest.mark.external,
    pytest.mark.skipif(
        not (TOOLS / "python").is_file(),
        reason="no tools for 64-bit ARM ($NEURODEPLOY_ARM64; `python tests/arm64.py FOLDER` fetches them)",
    ),
]


def compiled(folder: Path, flags: tuple[str, ...], source: Path = SOURCE) -> Path:
    made = folder / "made.so"
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("CC", str(TOOLS / "cc"))
        assert compile_kernel(made, flags=flags, source=source) is None
    return made


def sanitizer() -> str:
    """The library that has to be loaded before Python's own, as the emulated machine names it."""
    file = next((TOOLS / "arm64").glob("**/libasan.so.*[0-9]"))
    return f"/{file.relative_to(TOOLS / 'arm64')}"


def emulated(cpu: str, *arguments: object, **variables: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != LIMIT} | variables
    environment |= {"QEMU_CPU": cpu, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [TOOLS / "python", *(str(argument) for argument in arguments)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=1500)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize(
    ("cpu", "flags", "paths"),
    [
        ("max", STRICT, "plain, neon, dotprod, i8mm"),
        ("cortex-a76", STRICT, "plain, neon, dotprod"),
        ("cortex-a72", STRICT, "plain, neon"),
        ("max", (*STRICT, "-DND_WITHOUT_DOT"), "plain, neon"),
        ("max", SANITIZED, "plain, neon, dotprod, i8mm"),
    ],
)
def test_the_kernel_equals_the_reference(cpu: str, flags: tuple[str, ...], paths: str, tmp_path: Path) -> None:
    library = compiled(tmp_path, flags)
    variables = {}
    if flags == SANITIZED:
        variables = {"QEMU_SET_ENV": f"LD_PRELOAD={sanitizer()}", "ASAN_OPTIONS": "detect_leaks=0"}
    chosen = ("--seconds", 0, "--networks", NETWORKS, "--seed", 0)
    said = emulated(cpu, "tests/fuzz_kernel.py", "--library", library, *chosen, **variables)
    print(said)
    assert said.startswith("no finding: ")
    assert f"; paths {paths};" in said


def test_the_activations_of_training_are_those_of_this_machine(tmp_path: Path) -> None:
    flags = (*STRICT, "-fno-math-errno", "-fno-trapping-math")
    there, here = tmp_path / "there", tmp_path / "here"
    for folder in (there, here):
        folder.mkdir()
    reason = compile_kernel(here / "made.so", flags=flags, source=FUSED)
    if reason is not None:
        pytest.skip(reason)
    script = ROOT / "tests/fused_numbers.py"
    emulated("max", script, compiled(there, flags, FUSED), there / "numbers.npz")
    subprocess.run([sys.executable, script, here / "made.so", here / "numbers.npz"], check=True)
    with np.load(there / "numbers.npz") as found, np.load(here / "numbers.npz") as expected:
        assert found.files == expected.files
        for name in found.files:
            tolerance = 1e-5 if name.startswith("float32") else 1 / 128  # one unit of a bfloat16
            np.testing.assert_allclose(found[name], expected[name], tolerance, 1e-5, err_msg=name)
