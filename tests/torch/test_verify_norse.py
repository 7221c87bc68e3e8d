"""Other projects read the bundles with their own readers: every layer's spikes at every step, and the output."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from neurodeploy.graph.nir_file import read_nir, write_nir
from neurodeploy.simulate.restore import restore
from neurodeploy.targets.base import Deployable
from neurodeploy.targets.bundle import read_bundle, sha256
from neurodeploy.targets.check import check
from neurodeploy.targets.export import export
from neurodeploy.targets.ops import OPERATIONS
from neurodeploy.targets.verify import verify

SAMPLES = {operation.title: operation for operation in OPERATIONS}
HELD = [title for title, operation in SAMPLES.items() if check(operation.sample(), "nir").ok]
FRAMEWORKS = ["norse", "snntorch", "spikingjelly"]


def row(answer: dict[str, Any], name: str) -> dict[str, Any]:
    return next(reader for reader in answer["readers"] if reader["name"] == name)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bundles")
    return {title: export(SAMPLES[title].sample(), "nir", folder / title).path for title in HELD}


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("title", HELD)
def test_every_spike_is_the_same(bundles: dict[str, Path], framework: str, title: str) -> None:
    pytest.importorskip(framework)
    answer = verify(bundles[title])
    found = row(answer, framework)
    if framework == "spikingjelly" and title == "several time steps, no leak left":
        assert "tau / dt must be finite and greater than 1" in found["skipped_reason"]
        return
    assert found["skipped_reason"] == "" and found["first_difference"] is None and found["equal"] is True
    manifest = read_bundle(bundles[title]).manifest
    assert found["steps"] == manifest.steps and found["neurons"] == sum(
        int(np.prod(layer.shape[1:])) for layer in manifest.proof.layers
    )


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_second_run_starts_from_rest(bundles: dict[str, Path], framework: str) -> None:
    pytest.importorskip(framework)
    folder = bundles["LIF with leak"]
    assert [row(verify(folder, against=[framework]), framework)["equal"] for _ in range(2)] == [True, True]


def replaced(folder: Path, graph: Any) -> None:
    """Writes another graph into a bundle and makes the manifest say that it is whole."""
    write_nir(folder / "network.nir", graph, force=True)
    values = json.loads((folder / "manifest.json").read_text())
    for entry in values["files"]:
        if entry["path"] == "network.nir":
            entry.update(sha256=sha256(folder / "network.nir"), size=(folder / "network.nir").stat().st_size)
    (folder / "manifest.json").write_text(json.dumps(values))


def test_a_graph_that_norse_runs_in_the_wrong_order_is_said_to_be(tmp_path: Path) -> None:
    """With the sum edge listed first, norse's executor reaches lif1 before conv1 has run."""
    folder = export(SAMPLES["sum edge"].sample(), "nir", tmp_path / "b").path
    graph = read_nir(folder / "network.nir")
    graph.edges = [("conv0", "lif1"), *(edge for edge in graph.edges if edge != ("conv0", "lif1"))]
    replaced(folder, graph)
    answer = verify(folder)
    assert "runs lif1 before conv1" in row(answer, "norse")["skipped_reason"] and row(answer, "norse")["equal"] is None
    assert row(answer, "float")["equal"] is True and answer["ok"] is True
    answer = verify(folder, against=["norse"])
    found = row(answer, "norse")
    assert answer["ok"] is False and found["equal"] is False and "runs lif1 before conv1" in found["note"]
    assert found["first_difference"]["layer"] in ("lif1", "output")


def test_a_threshold_that_was_moved_is_found_in_its_layer(tmp_path: Path) -> None:
    folder = export(SAMPLES["LIF with leak"].sample(), "nir", tmp_path / "b").path
    graph = read_nir(folder / "network.nir")
    graph.nodes["lif1"].v_threshold = graph.nodes["lif1"].v_threshold * 1.5
    replaced(folder, graph)
    answer = verify(folder, against=["norse"])
    assert [row(answer, name)["first_difference"]["layer"] for name in ("reference", "float", "norse")] == ["lif1"] * 3


def test_a_file_that_a_reader_refuses_is_skipped_with_its_words(
    bundles: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    norse = pytest.importorskip("norse.torch")

    def refuse(*_arguments: Any, **_more: Any) -> None:
        raise AssertionError("no such node")

    monkeypatch.setattr(norse, "from_nir", refuse)
    found = row(verify(bundles["dilation"]), "norse")
    assert found["equal"] is None and found["skipped_reason"] == "it refuses the file: AssertionError: no such node"


def test_the_run_script_proves_and_restores_in_norse(tmp_path: Path) -> None:
    pytest.importorskip("norse")
    net = SAMPLES["LIF with leak"].build()
    bundle = export(Deployable("m", net, (20, 24)), "nir", tmp_path / "b")

    def script(*arguments: str) -> str:
        command = [sys.executable, str(bundle.path / "run.py"), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    answer = json.loads(script("--proof", "--arrays", str(tmp_path / "out.npz")).splitlines()[-1])
    assert answer["equal"] is True and [r["name"] for r in answer["compared"]] == ["lif0", "lif1", "output"]
    with np.load(tmp_path / "out.npz") as arrays:
        np.testing.assert_array_equal(arrays["spikes/lif0"][0], bundle.expected_spikes(of_float=True)["lif0"])
    pixels = np.random.RandomState(0).randint(0, 256, (22, 26)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "in.png")
    script(str(tmp_path / "in.png"), str(tmp_path / "out.png"))
    image = (pixels / np.float32(255))[None].astype(np.float32)
    have = np.asarray(Image.open(tmp_path / "out.png")).astype(int)
    want = np.rint(np.clip(restore(net, image)[0], 0, 1) * 255).astype(int)
    # the chip truncates where norse does not, so that a few pixels may round the other way
    assert have.shape == want.shape and np.mean(have != want) < 0.2 and np.abs(have - want).max() <= 3
