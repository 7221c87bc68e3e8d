"""A target from a distribution of its own: what pip leaves behind is enough for every verb."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from neurodeploy.graph.spec import StudentSpec
from neurodeploy.graph.student_file import write_student
from tests.random_nets import random_student

PLUGIN = Path(__file__).resolve().parent.parent / "plugin"


def installed(site: Path, *, broken: bool = False) -> None:
    """What ``pip install`` of the example leaves in site-packages."""
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]
    shutil.copyfile(PLUGIN / "textchip.py", site / "textchip.py")
    if broken:
        (site / "textchip.py").write_text("import a_package_that_nobody_has\n")
    info = site / f"neurodeploy_textchip-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    points = project["entry-points"]["neurodeploy.targets"].items()
    lines = "".join(f"{name} = {value}\n" for name, value in points)
    (info / "entry_points.txt").write_text(f"[neurodeploy.targets]\n{lines}")


def neurodeploy(site: Path, *words: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "neurodeploy", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": path})


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "site"
    folder.mkdir()
    return folder


def test_a_distribution_brings_a_target_that_every_verb_knows(tmp_path: Path, site: Path) -> None:
    installed(site)
    student = tmp_path / "s.safetensors"
    write_student(student, random_student(StudentSpec(width=3, depth=1, levels=2), 0))
    done = neurodeploy(site, "--json", "export", str(student), "--target", "textchip", "--out", str(tmp_path / "b"))
    assert done.returncode == 0, done.stderr
    manifest = json.loads(done.stdout)["manifest"]
    assert manifest["target"] == "textchip" and manifest["files"][0]["path"] == "network.json"
    listed = json.loads(neurodeploy(site, "--json", "targets").stdout)["targets"]
    held = next(target["operations"] for target in listed if target["name"] == "textchip")
    assert held["groups"] is True and "no matrix products" in held["dense layer behind a flatten"]


def test_a_distribution_that_fails_to_load_fails_with_its_name(site: Path) -> None:
    installed(site, broken=True)
    done = neurodeploy(site, "targets")
    assert done.returncode == 2
    assert "'textchip' of a plugin cannot be loaded: ModuleNotFoundError" in done.stderr
