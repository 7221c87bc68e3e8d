"""Bundles in Lava: verified by the program, and run by their own script in an empty folder, with Lava alone."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from neurodeploy import lava_env
from neurodeploy.graph.spec import StudentSpec
from neurodeploy.images.io import read_image, write_image
from neurodeploy.simulate.restore import restore
from neurodeploy.targets.base import Deployable
from neurodeploy.targets.bundle import Bundle
from neurodeploy.targets.export import export
from neurodeploy.targets.verify import verify
from tests.random_nets import random_student, student_network

pytestmark = pytest.mark.external

SIZE = (20, 24)

STUDENTS = {
    "chain of levels": StudentSpec(width=4, depth=2, levels=3),
    "skip edges, several steps": StudentSpec(width=4, depth=4, levels=1, steps=3, decay=0.25, edges=((1, 2), (1, 3))),
}


@pytest.fixture(scope="module")
def python() -> Path:
    found = lava_env.python()
    if found is None:
        pytest.skip("needs Lava: run `neurodeploy doctor --install-lava`")
    return found


@pytest.fixture(scope="module", params=STUDENTS)
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    student = random_student(STUDENTS[request.param], 5)
    model = Deployable(request.param, student_network(student, SIZE), SIZE)
    return export(model, "loihi2", tmp_path_factory.mktemp("bundle") / "b")


def test_every_layer_is_equal_in_u_v_and_spikes(python: Path, bundle: Bundle) -> None:
    del python
    answer = verify(bundle.path, against=["lava"])
    (row,) = [row for row in answer["readers"] if row["name"] == "lava"]
    assert row["equal"] is True and row["compared"] == ["spikes", "output", "u", "v"]
    assert answer["ok"]


def test_the_script_restores_in_an_empty_folder(tmp_path: Path, python: Path, bundle: Bundle) -> None:
    """Neither this program nor its environment is there: an isolated interpreter, no variables, another folder."""
    folder = tmp_path / "empty"
    shutil.copytree(bundle.path, folder)
    lonely = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}

    def script(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(python), "-I", str(folder / "run.py"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=lonely)

    done = script("--proof")
    assert done.returncode == 0, done.stderr[-2000:]
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["equal"] is True
    assert [row["name"] for row in answer["compared"]][-2:] == ["output", "restored"]

    proof = bundle.proof()
    write_image(tmp_path / "noisy.png", proof["image"])
    done = script("noisy.png", "restored.png")
    assert done.returncode == 0, done.stderr[-2000:]
    restored = restore(bundle.integer_network(), read_image(tmp_path / "noisy.png", channels=1))
    with Image.open(tmp_path / "restored.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), np.rint(np.clip(restored[0], 0, 1) * 255))
