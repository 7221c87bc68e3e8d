"""The host's share in the run script of a bundle: it must restore what the program restores, tile by tile."""

from __future__ import annotations

import ast
import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from neurodeploy.quantize.network import IntegerNetwork
from neurodeploy.simulate.reference import run
from neurodeploy.simulate.restore import restore
from neurodeploy.targets import TARGETS
from neurodeploy.targets.base import Deployable
from neurodeploy.targets.export import export
from neurodeploy.targets.ops import OPERATIONS

SAMPLES = {operation.title: operation for operation in OPERATIONS}


def load(folder: Path) -> ModuleType:
    """The script as a module, without running it."""
    spec = importlib.util.spec_from_file_location("bundle_run", folder / "run.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def network(title: str, residual: bool = True) -> IntegerNetwork:
    net = SAMPLES[title].build()
    return replace(net, host=net.host.model_copy(update={"residual": residual, "output_scale": 0.05}))


@pytest.mark.parametrize("target", sorted(set(TARGETS) - {"speck", "spinnaker2"}))
@pytest.mark.parametrize("title", ["LIF with leak", "sum edge"])
def test_the_script_is_python_3_10_and_names_no_place(tmp_path: Path, target: str, title: str) -> None:
    folder = export(SAMPLES[title].sample(), target, tmp_path / "b").path
    text = (folder / "run.py").read_text()
    ast.parse(text, feature_version=(3, 10))
    assert "{{" not in text and "{%" not in text and str(tmp_path) not in text
    in_lava = target in ("lava", "loihi2")
    assert (folder / "program.py").exists() == (in_lava and title == "sum edge")
    assert ("def run_lava" in text) == in_lava and ("def run_norse" in text) == (target == "nir")


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("title", ["LIF with leak", "dilation"])
def test_tiles_give_what_the_whole_image_gives(tmp_path: Path, title: str, residual: bool) -> None:
    """The network runs on tiles of 20x24 pixels; the picture is larger, odd, and not square."""
    net = network(title, residual)
    folder = export(Deployable("m", net, (20, 24)), "lava", tmp_path / "b").path
    script = load(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    seen: list[tuple[int, ...]] = []

    def on_chip(tiles: list[np.ndarray]) -> list[np.ndarray]:
        seen.extend(tile.shape for tile in tiles)
        return [run(net, tile) / net.host.steps for tile in tiles]

    image = np.random.RandomState(1).rand(1, 45, 61).astype(np.float32)
    restored = script.restore(image, manifest, on_chip, manifest["output_scale"])
    assert len(seen) > 4 and set(seen) == {(4, 10, 12)}
    np.testing.assert_allclose(restored, restore(net, image), rtol=0, atol=1e-12)
    assert np.ptp(restored - image) > 0.01


def test_an_image_that_does_not_fill_a_tile_is_refused(tmp_path: Path) -> None:
    folder = export(Deployable("m", network("LIF with leak"), (20, 24)), "lava", tmp_path / "b").path
    script = load(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    with pytest.raises(SystemExit, match="does not run in them"):
        list(script.cut(np.zeros((4, 9, 12), np.int64), manifest))
    assert script.places(12, 12, 99) == [0]
    with pytest.raises(SystemExit):
        script.places(13, 12, 6)
    assert script.places(30, 12, 2) == [0, 8, 16, 18]


def test_pictures_and_spikes_are_read_and_written(tmp_path: Path) -> None:
    script = load(export(SAMPLES["sum edge"].sample(), "nir", tmp_path / "b").path)
    pixels = np.arange(24, dtype=np.uint8).reshape(4, 6) * 10
    Image.fromarray(pixels).save(tmp_path / "gray.png")
    image = script.read_image(tmp_path / "gray.png", 1)
    assert image.shape == (1, 4, 6) and image.dtype == np.float32
    assert script.read_image(tmp_path / "gray.png", 3).shape == (3, 4, 6)
    script.write_image(tmp_path / "out.png", image * 1.5 - 0.11)
    written = np.asarray(Image.open(tmp_path / "out.png"))
    np.testing.assert_array_equal(written, np.rint(np.clip(pixels / 255 * 1.5 - 0.11, 0, 1) * 255))
    row = script.compare("x", np.array([1, 2, 4]), np.array([1, 2, 3]))
    assert row == {"name": "x", "values": 3, "differing": 1, "first": [2]}


def test_the_command_line_of_the_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    net = network("sum edge")
    folder = export(Deployable("m", net, (8, 12)), "nir", tmp_path / "b").path
    script, manifest = load(folder), json.loads((folder / "manifest.json").read_text())

    def main(*arguments: str, differing: int = 0) -> int:
        monkeypatch.setattr(sys, "argv", ["run.py", *arguments])
        rows = [{"name": "lif0", "values": 5, "differing": differing, "first": None}]
        unit = manifest["output_scale"] / manifest["host"]["output_scale"]
        return int(
            script.main(
                lambda tiles: [run(net, tile) * unit for tile in tiles],
                lambda arrays: rows,
                manifest["host"]["output_scale"],
                manifest,
            )
        )

    assert main("--proof") == 0 and json.loads(capsys.readouterr().out)["equal"] is True
    assert main("--proof", differing=2) == 1 and json.loads(capsys.readouterr().out)["equal"] is False
    with pytest.raises(SystemExit):
        main("only-one.png")
    pixels = np.random.RandomState(0).randint(0, 256, (8, 12)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "in.png")
    assert main(str(tmp_path / "in.png"), str(tmp_path / "out.png")) == 0
    expected = restore(net, (pixels / np.float32(255))[None].astype(np.float32))[0]
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out.png")), np.rint(np.clip(expected, 0, 1) * 255))
