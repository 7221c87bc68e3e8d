"""A small model made in each framework, exported by that framework, brought here: the page of the docs, as it stands.

The page's own code makes the model and its file. Then the framework's outputs are compared with those of the float
interpreter on the file, and every verb of the page runs. Run with ``pytest -m external``.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from neurodeploy.cli import main
from neurodeploy.graph.nir_file import read_nir
from neurodeploy.graph.spec import StudentSpec
from neurodeploy.graph.student_file import write_student
from neurodeploy.simulate.floating import run_float
from neurodeploy.untrained import untrained_file

pytestmark = pytest.mark.external

PAGE = Path(__file__).resolve().parents[2] / "docs" / "frameworks.md"
STEPS = 8
SIZE = 24


def block(heading: str) -> str:
    """The Python code under a heading of the page."""
    section = PAGE.read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    found = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert len(found) == 1
    return found[0]


def verbs() -> list[list[str]]:
    """The commands of the page."""
    lines = re.findall(r"^\$ neurodeploy (.*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return [line.split() for line in lines]


def picture() -> np.ndarray:
    """(1, 24, 24), values that 8 bits hold."""
    return (np.random.RandomState(0).randint(0, 256, (1, SIZE, SIZE)) / 255).astype(np.float32)


def stateful(net: Any, x: Any) -> list[Any]:
    """For modules that keep their state themselves."""
    return [net(x) for _ in range(STEPS)]


def handed_on(net: Any, x: Any) -> list[Any]:
    """For modules that hand their state on."""
    state, outputs = None, []
    for _ in range(STEPS):
        y, state = net(x, state)
        outputs.append(y)
    return outputs


FRAMEWORKS: dict[str, tuple[str, Callable[[Any, Any], list[Any]]]] = {
    "snnTorch": ("snntorch", stateful),
    "SpikingJelly": ("spikingjelly", stateful),
    "norse": ("norse", handed_on),
}


def restart(net: Any) -> None:
    """What the exporter left in the neurons is forgotten."""
    for module in net.modules():
        for name in ("reset_mem", "reset", "reset_states"):
            if hasattr(module, name):
                getattr(module, name)()
                break


@pytest.mark.parametrize("heading", FRAMEWORKS)
def test_a_model_of_a_framework(tmp_path: Path, heading: str, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    package, run = FRAMEWORKS[heading]
    pytest.importorskip(package)
    import torch

    monkeypatch.chdir(tmp_path)
    torch.manual_seed(1)
    made: dict[str, Any] = {}
    exec(compile(block(heading), str(PAGE), "exec"), made)
    restart(made["net"])
    with torch.no_grad():
        theirs = [y[0].double().numpy() for y in run(made["net"], torch.from_numpy(picture())[None])]
    compare_and_use(np.stack(theirs), 1e-4, capsys)


def test_a_model_of_sinabs(tmp_path: Path, packages: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """In packages of its own beside torch: sinabs asks for an older nir than everybody else."""
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    np.save("picture.npy", picture())
    after = f"""
import numpy as np
for module in net.modules():
    if hasattr(module, "reset_states"):
        module.reset_states()
with torch.no_grad():
    x = torch.from_numpy(np.load("picture.npy"))[None]
    np.save("theirs.npy", np.stack([net(x)[0].double().numpy() for _ in range({STEPS})]))
"""
    code = f"import torch\ntorch.manual_seed(1)\n{block('sinabs')}\n{after}"
    environment = {"PYTHONPATH": str(packages), "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    compare_and_use(np.load("theirs.npy"), 1.0, capsys)


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with sinabs and what it alone needs; skips where it cannot be made."""
    folder = tmp_path_factory.mktemp("packages")
    wanted = ["sinabs==3.1.3", "nir==1.0.4", "nirtorch==2.0.2", "pbr"]
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder), *wanted]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        pytest.skip(f"sinabs cannot be installed here: {lines[-1] if lines else 'without a word'}")
    return folder


def test_the_nir_of_sinabs_reads_what_is_written_for_it(
    tmp_path: Path, packages: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """nir 1.0.4 itself: files for it are read value for value, others end in an error of its own."""
    monkeypatch.chdir(tmp_path)
    write_student("small.safetensors", untrained_file(StudentSpec(width=4, depth=2, levels=2)))
    for out, more in (("old", ["--nir-compat", "1.0.4"]), ("new", [])):
        assert main(["-q", "export", "small.safetensors", "--target", "nir", "--size", "16", "--out", out, *more]) == 0
    code = """
import sys, nir, numpy as np
from importlib.metadata import version
assert version("nir") == "1.0.4"
graph = nir.read(sys.argv[1])
np.savez("read.npz", weight=graph.nodes["conv1"].weight, threshold=graph.nodes["lif1"].v_threshold)
"""
    environment = {"PYTHONPATH": str(packages), "PATH": "/usr/bin:/bin"}

    def read(path: str) -> int:
        return subprocess.run([sys.executable, "-c", code, path], capture_output=True, env=environment).returncode

    assert read("new/network.nir") != 0 and read("old/network.nir") == 0
    ours = read_nir("new/network.nir")
    with np.load("read.npz") as theirs:
        np.testing.assert_array_equal(theirs["weight"], ours.nodes["conv1"].weight)
        np.testing.assert_array_equal(theirs["threshold"], ours.nodes["lif1"].v_threshold)


def compare_and_use(theirs: np.ndarray, dt: float, capsys: Any) -> None:
    """The framework's outputs against the float interpreter's; then the verbs of the page."""
    ours = run_float(read_nir("mine.nir"), picture(), STEPS, dt)
    assert ours.shape == theirs.shape == (STEPS, 1, SIZE, SIZE)
    assert np.unique(np.round(theirs, 5)).size > 20, "hardly a spike: the comparison shows nothing"
    # float32 against float64: a membrane that meets its threshold to the last bit may part them
    assert np.mean(np.abs(ours - theirs) > 1e-4) < 0.01
    for folder in ("degraded", "clean"):
        Path(folder).mkdir()
        Image.fromarray(np.rint(picture()[0] * 255).astype(np.uint8)).save(Path(folder) / "photo.png")
    Image.open("clean/photo.png").save("photo.png")
    answers = {}
    for words in verbs():
        words = [f"{dt:g}" if word == "1e-4" else word for word in words]
        capsys.readouterr()
        code = main(["--json", "-q", *words])
        said = capsys.readouterr().out
        assert code == 0, said
        answers[words[0]] = json.loads(said)
    assert list(answers) == ["inspect", "check", "export", "verify", "simulate", "energy-report"]
    assert answers["check"]["ok"] and answers["verify"]["ok"]
    assert all(layer["spikes"] > 0 for layer in answers["simulate"]["images"][0]["layers"])
    assert answers["energy-report"]["counts"]["total"]["sop"] > 0
    # 8-bit weights and codes of 6 bits stay near the float graph
    restored = np.asarray(Image.open("restored/photo.png")).astype(float) / 255
    wanted = np.clip(ours.mean(axis=0)[0], 0, 1)
    assert np.abs(restored - wanted).mean() < 0.05 and np.corrcoef(restored.ravel(), wanted.ravel())[0, 1] > 0.9
