"""Models that need torch, through the zoo and the command line."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the train extra")

import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402
from torch import nn  # noqa: E402

from neurodeploy.cli import main  # noqa: E402
from neurodeploy.graph.spec import StudentSpec  # noqa: E402
from neurodeploy.model.base import Facts, Model  # noqa: E402
from neurodeploy.model.student import StudentModel  # noqa: E402
from neurodeploy.networks.grid import to_grid  # noqa: E402
from neurodeploy.networks.stored import file_of  # noqa: E402
from neurodeploy.networks.student import SpikingStudent  # noqa: E402
from tests.shared import shared_data  # noqa: E402

SPECS: dict[str, dict[str, Any]] = {
    "levels": {"levels": 3, "steps": 1},
    "one step": {"levels": 1, "steps": 1},
    "several steps, no leak left": {"levels": 1, "steps": 3},
    "edges": {"levels": 2, "steps": 1, "edges": ((1, 2), (1, 3)), "depth": 4},
    "colour": {"levels": 2, "steps": 1, "channels": 3},
}


def _student(name: str) -> SpikingStudent:
    torch.manual_seed(0)
    student = SpikingStudent(StudentSpec(**{"width": 8, "depth": 3, **SPECS[name]})).eval()
    with torch.no_grad():
        for conv in student.convs:
            conv.bias.normal_(std=0.1)
    return student


@pytest.mark.parametrize("name", SPECS)
def test_what_is_trained_is_what_is_simulated(name: str) -> None:
    student = _student(name)
    to_grid(student)
    image = np.random.default_rng(0).random((student.spec.channels, 21, 18)).astype(np.float32)
    with torch.no_grad():
        trained = student(torch.from_numpy(image)[None])[0][0].numpy()
    model = StudentModel(file_of(student, {}), Facts("student"))
    assert float(np.abs(trained - image).max()) > 0.01
    np.testing.assert_allclose(model.restorer("fixed")(image), trained, atol=1e-5)


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("on_grid", [False, True])
def test_float_by_torch_equals_float_by_the_graph(name: str, on_grid: bool) -> None:
    student = _student(name)
    if on_grid:
        to_grid(student)
    model = StudentModel(file_of(student, {}), Facts("student"))
    image = np.random.default_rng(1).random((student.spec.channels, 13, 16)).astype(np.float32)
    by_torch = model.restorer("float")(image)
    by_graph = Model._float(model, "cpu")(image)
    np.testing.assert_allclose(by_torch, by_graph, atol=1e-5)


# through the command line

RECIPE = """
name = "tiny"
[data]
batch = 2
patch = 16
test_images = 1
test_crop = 32
[student]
width = 4
depth = 2
levels = 2
steps = 1
[train]
steps = 6
warmup = 1
eval_every = 6
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("clean").mkdir()
    picture = np.random.default_rng(0).integers(0, 256, (33, 40), dtype=np.uint8)
    Image.fromarray(picture).save("clean/a.png")
    Path("tiny.toml").write_text(RECIPE)
    return tmp_path


def _answer(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main(["--json", "-q", *words]) == 0
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


def _conv_stack(width: int = 6, depth: int = 4) -> nn.Sequential:
    torch.manual_seed(3)
    sizes = [1, *[width] * (depth - 1), 1]
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        layers += [nn.Conv2d(fan_in, fan_out, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def test_a_teacher_is_evaluated_by_the_same_protocol(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stack = _conv_stack()
    torch.save({f"model.{key}": value for key, value in stack.state_dict().items()}, "w.pth")
    words = ("evaluate", "dncnn:w.pth", "--data", "clean", "--degradation", "gaussian:25", "--save", "out")
    answer = _answer(capsys, *words)
    clean = np.asarray(Image.open("clean/a.png")).astype(np.float64)
    noisy = (clean / 255 + 25 / 255 * np.random.RandomState(0).randn(*clean.shape)).astype(np.float32)
    with torch.no_grad():
        restored = noisy - stack(torch.from_numpy(noisy)[None, None])[0, 0].numpy()
    levels = np.rint(np.clip(restored, 0, 1) * 255)
    want = 10 * np.log10(255**2 / np.mean((levels - clean) ** 2))
    assert answer["psnr_db"] == pytest.approx(want, abs=1e-3)
    assert (answer["arithmetic"], answer["T"]) == ("float", None)
    assert answer["parameters"] == sum(parameter.numel() for parameter in stack.parameters())


@pytest.mark.slow
def test_a_published_teacher_reaches_its_published_score(capsys: pytest.CaptureFixture[str]) -> None:
    weights = shared_data("teachers/ffdnet_gray.pth")
    words = ("evaluate", f"ffdnet:{weights}", "--data", str(shared_data("set12")), "--degradation", "gaussian:25")
    assert _answer(capsys, *words)["psnr_db"] == pytest.approx(30.43, abs=0.02)


def test_weights_of_another_architecture_are_named(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({f"model.{key}": value for key, value in _conv_stack().state_dict().items()}, "w.pth")
    assert main(["evaluate", "restormer:w.pth", "--data", "clean", "--degradation", "gaussian:25"]) == 2
    said = capsys.readouterr().err
    assert "w.pth" in said and "Traceback" not in said


class _NotTensors:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path("harm").touch, ())


def test_a_pickle_that_is_more_than_tensors_is_refused_and_not_run(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"model.0.weight": torch.zeros(2), "more": _NotTensors()}, "w.pth")
    assert main(["evaluate", "dncnn:w.pth", "--data", "clean", "--degradation", "gaussian:25"]) == 2
    streams = capsys.readouterr()
    assert streams.out == "" and streams.err.count("\n") == 1 and "w.pth" in streams.err
    assert not Path("harm").exists()


def test_an_unknown_device_is_one_line(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({f"model.{key}": value for key, value in _conv_stack().state_dict().items()}, "w.pth")
    for words in (("distill", "tiny.toml", "--out", "run"), ("evaluate", "dncnn:w.pth", "--data", "clean", *_NOISE)):
        assert main(["-q", *words, "--device", "gpu7"]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and "gpu7" in said
    assert not Path("run").exists()


_NOISE = ("--degradation", "gaussian:25")


def test_distill_evaluate_resume(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("distill", "tiny.toml", "--out", "run", "--seed", "5")
    data = ("--set", "data.train=clean", "--set", "data.test=clean")
    answer = _answer(capsys, *words, *data)
    assert answer["steps"] == 6 and Path(answer["student"]).is_file()
    assert json.loads(Path("run/recipe.json").read_text())["seed"] == 5
    before = Path("run/student.safetensors").read_bytes()
    assert main(["-q", *words, *data]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "--resume" in said
    assert _answer(capsys, *words, *data, "--resume") == answer
    assert Path("run/student.safetensors").read_bytes() == before
    scored = _answer(capsys, "evaluate", "run", "--data", "clean")
    assert scored["model"]["kind"] == "student" and scored["model"]["task"] == "denoise"
    assert scored["parameters"] == answer["parameters"]
    assert _answer(capsys, "inspect", "run")["facts"]["finished"] is True


@pytest.mark.slow
def test_an_interrupted_run_says_how_to_go_on_and_does(here: Path) -> None:
    words = [sys.executable, "-m", "neurodeploy", "distill", "tiny.toml", "--out", "run"]
    data = ["--set", "data.train=clean", "--set", "data.test=clean", "--set", "train.quantize_from=1.0"]
    many = ["--set", "train.steps=100000", "--set", "train.eval_every=100000"]
    # what runs in the background may have been told to ignore interrupts, and its children with it
    heed = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    pipes = {"stderr": subprocess.PIPE, "stdout": subprocess.PIPE}
    run = subprocess.Popen([*words, *data, *many], text=True, **pipes, **heed)
    log = Path("run/log.csv")
    deadline = time.monotonic() + 120
    while not (log.is_file() and log.read_text().count("\n") > 1) and time.monotonic() < deadline:
        time.sleep(0.1)
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=120)
    assert (run.returncode, out) == (130, "")
    assert "interrupted" in err.splitlines()[-1] and "--resume" in err.splitlines()[-1] and "Traceback" not in err
    assert Path("run/checkpoint.pt").is_file() and not Path("run/student.safetensors").exists()


@pytest.mark.slow
def test_deploy_leaves_one_page_and_the_answer_beside_it(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ("--set", "data.train=clean", "--set", "data.test=clean")
    words = ("deploy", "tiny.toml", "--target", "nir", "--out", "all", *data)
    answer = _answer(capsys, *words, "--profile", "cmos45-int8")
    assert answer["verified"] is True and answer["report"] == "deploy"
    page = Path(answer["page"])
    assert page.parent == Path("all") and "<html" in page.read_text()
    beside = json.loads(Path("all/report.json").read_text())
    assert beside == {key: value for key, value in answer.items() if key in beside}
    assert "neurodeploy --json -q deploy tiny.toml" in beside["reproduce"]["command"]
    assert main(["-q", *words]) == 2
    assert "--resume" in capsys.readouterr().err
    assert main(["-q", *words, "--resume", "--profile", "cmos45-int8"]) == 0
    assert "page: all/index.html" in capsys.readouterr().out


@pytest.mark.slow
def test_deploy_in_bursts_prices_what_it_exports(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ("--set", "data.train=clean", "--set", "data.test=clean", "--set", "student.levels=3")
    words = ("deploy", "tiny.toml", "--target", "loihi2", *data, "--profile", "cmos45-int8")
    plain = _answer(capsys, *words, "--out", "plain")
    bursts = _answer(capsys, *words, "--out", "bursts", "--code", "bursts")
    assert bursts["scores"] == plain["scores"] and bursts["verified"] is True
    manifest = json.loads(Path("bursts/bundle/manifest.json").read_text())
    assert manifest["host"]["ticks"] and manifest["steps"] == bursts["energy"]["counts"]["steps"] > 1
    sops = [[row["sop"] for row in one["energy"]["counts"]["layers"]] for one in (plain, bursts)]
    assert sops[0][1] == 3 * sops[1][1] > 0 and sops[0][-1] == sops[1][-1]
