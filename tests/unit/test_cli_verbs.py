"""Every verb on good input: the keys that other programs rely on, and numbers found another way."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from neurodeploy.cli import main
from neurodeploy.graph.spec import StudentSpec
from neurodeploy.graph.student_file import read_student, write_student
from neurodeploy.hardware.profile import profile_names
from neurodeploy.simulate.restore import restore
from neurodeploy.targets import target_names
from neurodeploy.untrained import untrained_file
from neurodeploy.zoo import resolve

META = {"task": "denoise", "name": "small", "degradation": {"kind": "gaussian", "sigma": 25.0}}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "torch", None)  # none of this needs it
    write_student("small.safetensors", untrained_file(StudentSpec(width=4, depth=2, levels=2, steps=1), META))
    rows, columns = np.mgrid[0:40, 0:52]
    Path("clean").mkdir()
    for name, slope in (("a", 2), ("b", 4)):
        picture = np.clip(60 + slope * rows + columns, 0, 255).astype(np.uint8)
        Image.fromarray(picture).save(f"clean/{name}.png")


def _answer(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> dict[str, Any]:
    assert main(["--json", "-q", *words]) == code
    streams = capsys.readouterr()
    assert streams.err == ""
    answer: dict[str, Any] = json.loads(streams.out)
    assert answer["schema_version"] == 1
    return answer


def _text(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    assert main(["-q", *words]) == code
    streams = capsys.readouterr()
    assert streams.err == ""
    return streams.out


def _levels(path: str) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(np.float64)


def _psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a - b) ** 2)))


# evaluate


def test_evaluate_scores_by_the_protocol(capsys: pytest.CaptureFixture[str]) -> None:
    answer = _answer(capsys, "evaluate", "small.safetensors", "--data", "clean", "--save", "out")
    assert [row["name"] for row in answer["images"]] == ["a.png", "b.png"]
    assert (answer["arithmetic"], answer["T"], answer["parameters"]) == (
        "fixed",
        1,
        resolve("small.safetensors").parameters,
    )
    for row in answer["images"]:
        clean = _levels(f"clean/{row['name']}")
        noisy = clean / 255 + 25 / 255 * np.random.RandomState(0).randn(*clean.shape)
        assert row["input_psnr_db"] == pytest.approx(_psnr(np.rint(np.clip(noisy, 0, 1) * 255), clean), abs=1e-4)
        assert row["psnr_db"] == pytest.approx(_psnr(_levels(f"out/{row['name']}"), clean), abs=1e-9)
        net = resolve("small.safetensors").integer()
        restored = restore(net, noisy[None].astype(np.float32))
        np.testing.assert_array_equal(np.rint(np.clip(restored[0], 0, 1) * 255), _levels(f"out/{row['name']}"))
    for key in ("psnr_db", "ssim", "input_psnr_db"):
        assert answer[key] == pytest.approx(np.mean([row[key] for row in answer["images"]]))
    assert set(answer["protocol"]) == {"degradation", "data_range", "channel", "border"}
    assert "psnr_y_db" not in answer


def test_evaluate_pairs_limit_seed_and_arithmetic(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("evaluate", "small.safetensors", "--data", "clean")
    first = _answer(capsys, *words, "--limit", "1")
    assert [row["name"] for row in first["images"]] == ["a.png"]
    other = _answer(capsys, *words, "--limit", "1", "--seed", "1")
    assert other["input_psnr_db"] != first["input_psnr_db"]
    same = _answer(capsys, *words, "--limit", "1", "--arithmetic", "float")
    assert (same["arithmetic"], same["psnr_db"]) == ("float", pytest.approx(first["psnr_db"], abs=1e-6))
    Path("lq").mkdir()
    for name in ("a", "b"):
        Image.fromarray(np.full((40, 52), 128, np.uint8)).save(f"lq/{name}.png")
    pairs = _answer(capsys, "evaluate", "small.safetensors", "--pairs", "lq", "clean")
    assert pairs["images"][0]["input_psnr_db"] == pytest.approx(_psnr(_levels("lq/a.png"), _levels("clean/a.png")))


def test_a_perfect_restoration_is_null_in_json(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "neurodeploy.model.student.StudentModel._fixed", lambda self, tile: lambda image, level=None: image
    )
    Path("copy").mkdir()
    for name in ("a", "b"):
        Path(f"copy/{name}.png").write_bytes(Path(f"clean/{name}.png").read_bytes())
    answer = _answer(capsys, "evaluate", "small.safetensors", "--pairs", "copy", "clean")
    assert answer["psnr_db"] is None and answer["ssim"] == pytest.approx(1.0)


def test_colour_reports_the_y_channel_too(capsys: pytest.CaptureFixture[str]) -> None:
    spec = StudentSpec(channels=3, width=4, depth=2, levels=2, steps=1)
    write_student("colour.safetensors", untrained_file(spec, META))
    answer = _answer(capsys, "evaluate", "colour.safetensors", "--data", "clean", "--limit", "1")
    assert answer["protocol"]["channel"] == "RGB"
    assert {"psnr_y_db", "input_psnr_y_db"} <= set(answer["images"][0]) and answer["psnr_y_db"] is not None


def test_evaluate_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    text = _text(capsys, "evaluate", "small.safetensors", "--data", "clean")
    assert "fixed arithmetic, T = 1" in text and "mean" in text and "a.png" in text


def test_evaluate_refuses_a_noise_level_that_nobody_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "small.safetensors", "--data", "clean", "--sigma", "15"]) == 2
    assert "--degradation gaussian:15" in capsys.readouterr().err


# check, export, verify, simulate


def test_check_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    answer = _answer(capsys, "check", "small.safetensors", "--target", "loihi2")
    assert answer["ok"] is True and answer["placement"]["profile"] == "loihi2"
    edges = StudentSpec(width=4, depth=3, levels=2, steps=1, edges=((1, 2),))
    write_student("edges.safetensors", untrained_file(edges, META))
    refused = _answer(capsys, "check", "edges.safetensors", "--target", "speck", code=1)
    assert refused["ok"] is False
    assert set(refused["findings"][0]) == {"node", "rule", "have", "limit", "instead", "severity"}
    assert "would not export" in _text(capsys, "check", "edges.safetensors", "--target", "speck", code=1)
    assert main(["-q", "export", "edges.safetensors", "--target", "speck", "--out", "bundle"]) == 1
    assert not Path("bundle").exists()


def test_a_recipe_is_checked_before_it_is_trained(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.toml").write_text('name = "mine"\n[student]\nwidth = 4\ndepth = 3\nedges = [[1, 2]]\n')
    assert _answer(capsys, "check", "mine.toml", "--target", "nir")["ok"] is True
    assert _answer(capsys, "check", "mine.toml", "--target", "speck", code=1)["ok"] is False


@pytest.mark.parametrize("target", ["loihi2", "lava", "nir"])
def test_export_verify_simulate(target: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("export", "small.safetensors", "--target", target, "--out", "bundle", "--size", "24x32")
    answer = _answer(capsys, *words, "--image", "clean/a.png")
    assert answer["verified"] is True and answer["manifest"]["image_size"] == [24, 32]
    assert answer["manifest"]["model"]["about"]["task"] == "denoise"
    for entry in answer["manifest"]["files"]:
        assert (Path("bundle") / entry["path"]).stat().st_size == entry["size"]
    checked = _answer(capsys, "verify", "bundle", "--against", "reference")
    assert checked["ok"] is True
    keys = {"name", "version", "equal", "steps", "neurons", "first_difference", "skipped_reason"}
    assert all(keys <= set(reader) for reader in checked["readers"])
    ours = _answer(capsys, "simulate", "small.safetensors", "clean/b.png", "--out", "ours")
    theirs = _answer(capsys, "simulate", "bundle", "clean/b.png", "--out", "theirs", "--tile", "16")
    np.testing.assert_array_equal(_levels("ours/b.png"), _levels("theirs/b.png"))
    assert ours["images"][0]["layers"] == theirs["images"][0]["layers"]
    assert "every reader agrees" in _text(capsys, "verify", "bundle", "--against", "reference")


def test_a_trace_holds_what_the_counts_say(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("simulate", "small.safetensors", "clean/a.png", "--out", "out", "--trace", "trace.npz")
    answer = _answer(capsys, *words)
    with np.load("trace.npz") as trace:
        for layer in answer["images"][0]["layers"]:
            spikes = trace[f"spikes/{layer['name']}"]
            assert spikes.shape == (1, 2, 4, 20, 26)
            assert int(spikes.sum()) == layer["spikes"]
            assert layer["rate"] == pytest.approx(spikes.mean())
            assert not np.any(trace[f"v/{layer['name']}"][spikes == 1])
        assert trace["codes"].shape == (4, 20, 26)


# energy


def test_energy_report_withholds_and_gives_in(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("energy-report", "small.safetensors", "--data", "clean", "--profile", "loihi2")
    answer = _answer(capsys, *words, code=1)
    assert answer["ok"] is False and answer["not_priced"] and answer["prices"]["loihi2"]["total_pj"] is None
    layers = {layer["name"]: layer for layer in answer["counts"]["layers"]}
    keys = {"name", "sop", "mac", "spikes", "neuron_updates", "rate", "in_bounds_fanout"}
    assert all(keys <= set(layer) for layer in layers.values())
    assert {"baselines", "verdict", "prices"} <= set(answer)
    assert _answer(capsys, *words, "--allow-partial")["ok"] is True
    priced = _answer(capsys, *words[:-1], "cmos45-int8", "--html", "page.html")
    assert priced["ok"] is True and priced["prices"]["cmos45-int8"]["total_pj"] > 0
    page = Path("page.html").read_text()
    assert page.startswith("<!") and 'src="http' not in page and 'href="http' not in page.split("<body", 1)[0]


def test_energy_counts_the_spikes_that_simulate_sees(capsys: pytest.CaptureFixture[str]) -> None:
    for folder in ("lq", "gt"):
        Path(folder).mkdir()
        Path(f"{folder}/one.png").write_bytes(Path("clean/a.png").read_bytes())
    seen = _answer(capsys, "simulate", "small.safetensors", "lq/one.png", "--out", "out")["images"][0]["layers"]
    words = ("energy-report", "small.safetensors", "--pairs", "lq", "gt", "--profile", "cmos45-int8")
    counted = {layer["name"]: layer["spikes"] for layer in _answer(capsys, *words)["counts"]["layers"]}
    assert all(counted[layer["name"]] == layer["spikes"] for layer in seen) and len(seen) == 2
    tiled = {layer["name"]: layer["spikes"] for layer in _answer(capsys, *words, "--tile", "8")["counts"]["layers"]}
    assert tiled == counted


def test_energy_report_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    text = _text(capsys, "energy-report", "small.safetensors", "--data", "clean", "--limit", "1", code=1)
    assert "A total is withheld" in text and "lif0" in text


# distill without training, tables


def test_a_dry_run_prints_the_whole_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.toml").write_text('name = "mine"\n')
    answer = _answer(capsys, "distill", "mine.toml", "--dry-run", "--set", "student.width=9")
    assert answer["recipe"]["student"]["width"] == 9 and answer["recipe"]["train"]["lr"] > 0
    assert json.loads(_text(capsys, "distill", "mine.toml", "--dry-run"))["name"] == "mine"
    assert not Path("runs").exists()


def test_tables(capsys: pytest.CaptureFixture[str]) -> None:
    targets = _answer(capsys, "targets")["targets"]
    assert [row["name"] for row in targets] == list(target_names())
    assert all(held is True or held for row in targets for held in row["operations"].values())
    profiles = _answer(capsys, "profiles")["profiles"]
    assert [row["name"] for row in profiles] == list(profile_names())
    for verb, word in (
        ("targets", "loihi2"),
        ("profiles", "cmos45-int8"),
        ("models", "NAME"),
        ("doctor", "simulators"),
    ):
        assert word in _text(capsys, verb)
    doctor = _answer(capsys, "doctor")
    assert {row["name"] for row in doctor["packages"]} >= {"numpy", "torch", "snntorch"}
    assert doctor["shipped"]["hardware_profiles"]["entries"] == len(profile_names())


def test_inspect_every_kind(capsys: pytest.CaptureFixture[str]) -> None:
    from safetensors.numpy import save_file

    assert main(["-q", "export", "small.safetensors", "--target", "loihi2", "--out", "bundle"]) == 0
    save_file({"w": np.zeros((3, 4), np.float32)}, "other.safetensors")
    Path("mine.toml").write_text('name = "mine"\n')
    Path("run").mkdir()
    Path("run/recipe.json").write_text('{"name": "mine"}')
    profile = next(iter(_profile_paths()))
    capsys.readouterr()
    kinds = {
        "small.safetensors": "student",
        "other.safetensors": "weights",
        "bundle": "bundle",
        "bundle/network.nir": "graph",
        "bundle/network.net": "lava",
        "mine.toml": "recipe",
        "run": "run",
        str(profile): "profile",
        "clean/a.png": "picture",
    }
    for path, kind in kinds.items():
        answer = _answer(capsys, "inspect", path)
        assert answer["kind"] == kind and answer["facts"]
        assert kind in _text(capsys, "inspect", path)
    student = _answer(capsys, "inspect", "small.safetensors")
    assert {row["name"] for row in student["rows"]} == set(read_student("small.safetensors").tensors)
    assert _answer(capsys, "inspect", "other.safetensors")["facts"]["numbers"] == 12
    assert _answer(capsys, "inspect", "clean/a.png")["facts"] == {"height": 40, "width": 52, "channels": 1, "bits": 8}


def _profile_paths() -> list[Path]:
    from neurodeploy.shipped import shipped

    return sorted(shipped("hardware_profiles").glob("*.toml"))
