"""What is shipped: the wheel's content, the pins, the one version."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

import neurodeploy
from neurodeploy.shipped import shipped

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _pins() -> dict[str, str]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("==") for line in lines)


def test_constraints_are_plain_pins() -> None:
    text = (ROOT / "constraints.txt").read_text()
    for line in text.splitlines():
        assert line.startswith("#") or re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line), line
    assert _pins()["torch"] == "2.13.0"


def test_everything_that_setup_installs_is_pinned(project: dict[str, Any]) -> None:
    asked = list(project["project"]["dependencies"])
    for extra in project["project"]["optional-dependencies"].values():
        asked += extra
    names = {_normal(re.split(r"[<>=!~ \[;]", requirement)[0]) for requirement in asked}
    assert names <= {_normal(name) for name in _pins()}


def test_version_is_said_once(project: dict[str, Any]) -> None:
    assert "version" in project["project"]["dynamic"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", neurodeploy.__version__)
    assert f"## {neurodeploy.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_the_core_needs_no_torch(project: dict[str, Any]) -> None:
    names = {_normal(re.split(r"[<>=]", requirement)[0]) for requirement in project["project"]["dependencies"]}
    assert names == {"click", "h5py", "jinja2", "nir", "numpy", "pillow", "pydantic", "rich", "safetensors"}


def test_shipped_data_is_found_in_the_checkout() -> None:
    for folder in ("models", "export", "hardware_profiles"):
        assert shipped(folder) == ROOT / folder  # type: ignore[arg-type]


def test_wheel_carries_code_and_data_and_no_checkpoints(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in ("neurodeploy", "hardware_profiles"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree / name)
    for name in ("models/demo/model.toml", "models/demo/weights.safetensors", "export/loihi2/bundle.md"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("kept")
    for name in (
        "models/demo/checkpoints/last.bin",
        "models/demo/runs/log.csv",
        "models/demo/old.pth",
        "models/x.ckpt",
    ):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("left out")
    program = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], cwd=tree, capture_output=True, text=True, check=True
    )
    with zipfile.ZipFile(tmp_path / done.stdout.split()[-1]) as wheel:
        names = set(wheel.namelist())
    data = {name for name in names if "/_shipped/" in name}
    assert {name for name in data if "hardware_profiles" not in name} == {
        "neurodeploy/_shipped/models/demo/model.toml",
        "neurodeploy/_shipped/models/demo/weights.safetensors",
        "neurodeploy/_shipped/export/loihi2/bundle.md",
    }
    assert "neurodeploy/_shipped/hardware_profiles/loihi2.toml" in data
    assert {"neurodeploy/py.typed", "neurodeploy/cli/app.py"} <= names
    assert not any(name.startswith(("tests/", "models/", "docs/")) for name in names)
