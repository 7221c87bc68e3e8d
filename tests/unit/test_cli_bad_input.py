"""Bad input through the command line: one line, exit code 2, and nothing written or overwritten."""

from __future__ import annotations

import errno
import json
import os
import resource
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from neurodeploy.cli import main
from neurodeploy.graph.spec import StudentSpec
from neurodeploy.graph.student_file import write_student
from neurodeploy.untrained import untrained_file

META = {"task": "denoise", "name": "small", "degradation": {"kind": "gaussian", "sigma": 25.0}}

Refused = Callable[..., str]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    spec = StudentSpec(width=4, depth=2, levels=2, steps=1)
    write_student("small.safetensors", untrained_file(spec, META))
    noise = np.random.default_rng(0).integers(0, 256, (40, 48), dtype=np.uint8)
    Path("clean").mkdir()
    Image.fromarray(noise).save("clean/a.png")
    Image.fromarray(noise).save("good.png")


def _content() -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in Path().rglob("*")}


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refused:
    """Runs a command line that must be refused, and hands back what was said."""

    def run(*words: str) -> str:
        before = _content()
        code = main(["-q", *words])
        streams = capsys.readouterr()
        assert code == 2, streams.err
        assert streams.out == ""
        first, *more = streams.err.splitlines()
        assert first.startswith("neurodeploy: ") and "Traceback" not in streams.err
        assert all(line.startswith("  ") for line in more), streams.err
        assert _content() == before
        return streams.err

    return run


# pictures


def _huge_png() -> bytes:
    """A small file that claims ten thousand million pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0)
    body = zlib.compress(bytes(10_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


BAD_PICTURES: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "missing": ("p.png", lambda path: None, "no such file"),
    "a folder": ("p.png", lambda path: path.mkdir(), "p.png"),
    "empty": ("p.png", lambda path: path.touch(), "empty"),
    "not a picture": ("p.png", lambda path: path.write_bytes(b"hello, world" * 20), "p.png"),
    "cut short": ("p.png", lambda path: path.write_bytes(Path("good.png").read_bytes()[:300]), "p.png"),
    "a flipped byte": ("p.png", lambda path: path.write_bytes(_flipped(Path("good.png").read_bytes())), "p.png"),
    "huge": ("p.png", lambda path: path.write_bytes(_huge_png()), "pixels"),
    "CMYK": ("p.jpg", lambda path: Image.new("CMYK", (20, 20)).save(path), "CMYK"),
    "float": ("p.tif", lambda path: Image.new("F", (20, 20)).save(path), "p.tif"),
}


def _flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 0x55]) + data[middle + 1 :]


@pytest.mark.parametrize("name", BAD_PICTURES)
def test_a_bad_picture_is_refused(name: str, refused: Refused) -> None:
    file, make, word = BAD_PICTURES[name]
    make(Path(file))
    said = refused("simulate", "small.safetensors", "good.png", file, "--out", "out")
    assert word in said and said.count("\n") == 1


@pytest.mark.parametrize("name", ["cut short", "CMYK", "huge", "empty"])
def test_a_bad_picture_in_a_folder_is_refused(name: str, refused: Refused) -> None:
    file, make, _ = BAD_PICTURES[name]
    make(Path("clean") / file)
    assert file in refused("evaluate", "small.safetensors", "--data", "clean", "--save", "out")


def test_a_folder_without_pictures_is_refused(refused: Refused) -> None:
    Path("empty").mkdir()
    Path("empty/notes.txt").write_text("no pictures here")
    assert "empty" in refused("evaluate", "small.safetensors", "--data", "empty")
    assert "nowhere" in refused("evaluate", "small.safetensors", "--data", "nowhere")


def test_pairs_that_do_not_match_are_all_named(refused: Refused) -> None:
    Path("lq").mkdir()
    for name in ("b.png", "c.png"):
        Image.new("L", (48, 40)).save(Path("lq") / name)
    said = refused("evaluate", "small.safetensors", "--pairs", "lq", "clean")
    assert "b.png" in said and "c.png" in said and "a.png" in said


def test_pairs_of_different_sizes_are_named(refused: Refused) -> None:
    Path("lq").mkdir()
    Image.new("L", (47, 40)).save("lq/a.png")
    assert "a.png" in refused("evaluate", "small.safetensors", "--pairs", "lq", "clean")


@pytest.mark.parametrize(
    ("words", "word"),
    [
        ((), "--data"),
        (("--data", "clean", "--pairs", "clean", "clean"), "--data"),
        (("--data", "clean", "--degradation", "gausian:25"), "gaussian"),
        (("--data", "clean", "--degradation", "gaussian:-3"), "gaussian"),
        (("--pairs", "clean", "clean", "--degradation", "gaussian:25"), "degraded already"),
        (("--data", "clean", "--limit", "0"), "--limit"),
        (("--data", "clean", "--arithmetic", "fix"), "fixed"),
    ],
)
def test_wrong_use_of_evaluate(words: tuple[str, ...], word: str, refused: Refused) -> None:
    assert word in refused("evaluate", "small.safetensors", *words)


# models


def test_a_mistyped_model_is_refused(refused: Refused) -> None:
    assert "MODEL is" in refused("evaluate", "nothing-like-it", "--data", "clean")
    assert "no such file" in refused("evaluate", "some/where.nir", "--data", "clean")


@pytest.mark.parametrize("suffix", [".safetensors", ".nir", ".net", ".onnx.txt", ".pth"])
@pytest.mark.parametrize("content", [b"", b"\x00" * 64, b"\x89HDF\r\n\x1a\n" + b"\x00" * 90])
def test_a_model_that_is_garbage_is_refused(suffix: str, content: bytes, refused: Refused) -> None:
    Path(f"bad{suffix}").write_bytes(content)
    assert f"bad{suffix}" in refused("check", f"bad{suffix}", "--target", "loihi2")


def test_a_student_whose_tensors_differ_from_its_description_names_them(refused: Refused) -> None:
    from safetensors import safe_open
    from safetensors.numpy import save_file

    with safe_open("small.safetensors", "numpy") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    tensors["conv0.weight"] = tensors["conv0.weight"][:2]
    del tensors["conv1.bias"]
    save_file(tensors, "wrong.safetensors", metadata)
    said = refused("check", "wrong.safetensors", "--target", "loihi2")
    assert "conv0.weight" in said and "conv1.bias" in said


def test_weights_without_a_description_ask_for_the_architecture(refused: Refused) -> None:
    from safetensors.numpy import save_file

    save_file({"model.0.weight": np.zeros((4, 1, 3, 3), np.float32)}, "w.safetensors")
    assert "ARCH:WEIGHTS" in refused("evaluate", "w.safetensors", "--data", "clean")


def test_a_folder_that_is_no_model(refused: Refused) -> None:
    assert "clean" in refused("check", "clean", "--target", "loihi2")


def test_a_run_that_has_not_ended_says_how_to_go_on(refused: Refused) -> None:
    Path("run").mkdir()
    Path("run/recipe.json").write_text("{}")
    assert "--resume" in refused("evaluate", "run", "--data", "clean")


# recipes


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ('name = "a"\n[student]\nwidht = 8\n', "width"),
        ('name = "a"\n[student]\nwidth = 0\n', "student.width"),
        ('name = "a"\n[student]\nlevels = 4\nsteps = 4\n', "levels"),
        ('name = "a"\n[trian]\nsteps = 4\n', "train"),
        ('name = "a"\n[train]\nlr = "fast"\n', "train.lr"),
        ('name = "a', "is not valid"),
        ("[student]\nwidth = 8\n", "name"),
        ("\xff\xfe", "bad.toml"),
    ],
)
def test_a_bad_recipe_is_refused(text: str, word: str, refused: Refused) -> None:
    Path("bad.toml").write_bytes(text.encode("latin-1"))
    assert word in refused("distill", "bad.toml", "--dry-run")
    assert word in refused("check", "bad.toml", "--target", "loihi2")


def test_a_bad_override_is_refused(refused: Refused) -> None:
    Path("ok.toml").write_text('name = "ok"\n')
    assert "width" in refused("distill", "ok.toml", "--dry-run", "--set", "student.widht=8")
    assert "key.sub=value" in refused("distill", "ok.toml", "--dry-run", "--set", "student")


def test_a_recipe_that_is_not_there(refused: Refused) -> None:
    assert "no such recipe" in refused("distill", "gone.toml", "--dry-run")
    assert "folder" in refused("distill", "clean", "--dry-run")


# targets, profiles, bundles


@pytest.mark.parametrize(
    ("words", "word"),
    [
        (("check", "small.safetensors", "--target", "lohi2"), "loihi2"),
        (("check", "small.safetensors", "--target", "loihi2", "--profile", "lohi2"), "loihi2"),
        (("check", "small.safetensors", "--target", "loihi2", "--size", "8by8"), "size"),
        (("check", "small.safetensors"), "--target"),
        (("export", "small.safetensors", "--target", "nir", "--out", "b", "--option", "compat"), "key=value"),
        (
            ("export", "small.safetensors", "--target", "nir", "--out", "b", "--image", "good.png", "--size", "64"),
            "smaller",
        ),
        (("simulate", "small.safetensors", "good.png", "--out", "o", "--backend", "kernle"), "kernle"),
        (("simulate", "small.safetensors", "good.png", "clean/a.png", "--out", "o", "--trace", "t.npz"), "one picture"),
        (("simulate", "small.safetensors", "good.png", "./good.png", "--out", "o"), "good.png"),
        (("energy-report", "small.safetensors", "--data", "clean", "--profile", "loihi"), "loihi"),
        (("verify", "clean"), "manifest"),
        (("inspect", "nowhere"), "no such file"),
    ],
)
def test_wrong_words_are_refused(words: tuple[str, ...], word: str, refused: Refused) -> None:
    assert word in refused(*words)


def test_an_unknown_option_of_a_target_is_a_finding(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "small.safetensors", "--target", "nir", "--option", "colour=red"]) == 1
    assert "colour" in capsys.readouterr().out


def test_a_changed_bundle_is_refused(refused: Refused, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "small.safetensors", "--target", "nir", "--out", "bundle"]) == 0
    capsys.readouterr()
    assert "did you mean 'norse'" in refused("verify", "bundle", "--against", "nurse")
    with Path("bundle/network.nir").open("ab") as file:
        file.write(b"x")
    for words in (("verify", "bundle"), ("inspect", "bundle"), ("check", "bundle", "--target", "nir")):
        assert "network.nir" in refused(*words)


# places that cannot be written


def test_nothing_is_overwritten_without_force(refused: Refused, capsys: pytest.CaptureFixture[str]) -> None:
    Path("out").mkdir()
    Path("out/kept.txt").write_text("kept")
    Path("page.html").write_text("kept")
    evaluate = ("evaluate", "small.safetensors", "--data", "clean")
    assert "--force" in refused(*evaluate, "--save", "out")
    assert "--force" in refused("simulate", "small.safetensors", "good.png", "--out", "out")
    assert "--force" in refused("simulate", "small.safetensors", "good.png", "--out", "new", "--trace", "page.html")
    assert "--force" in refused("export", "small.safetensors", "--target", "nir", "--out", "out")
    assert "--force" in refused("energy-report", "small.safetensors", "--data", "clean", "--html", "page.html")
    assert main([*evaluate, "--save", "out", "--force"]) == 0
    assert [path.name for path in Path("out").iterdir()] == ["a.png"]


@pytest.mark.skipif(not Path("/proc/version").is_file(), reason="needs a file system that refuses even root")
def test_a_place_that_cannot_be_written_is_one_line(refused: Refused) -> None:
    for place in ("/proc/neurodeploy", "/proc/version/x", "good.png/x", "x" * 300):
        said = refused("simulate", "small.safetensors", "good.png", "--out", place)
        assert said.count("\n") == 1 and ("cannot be written" in said or "too long" in said)


def test_a_full_disk_is_one_line(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("neurodeploy.report.pictures.write_image", full)
    assert "No space left" in refused("simulate", "small.safetensors", "good.png", "--out", "out")


@pytest.mark.parametrize(
    "words",
    [
        ("simulate", "small.safetensors", "good.png", "--out", "out"),
        ("export", "small.safetensors", "--target", "loihi2", "--out", "out"),
        ("evaluate", "small.safetensors", "--data", "clean", "--save", "out"),
    ],
    ids=lambda words: words[0],
)
def test_a_file_that_may_not_grow_is_one_line(words: tuple[str, ...]) -> None:
    before = _content()
    done = subprocess.run(
        [sys.executable, "-m", "neurodeploy", "-q", *words],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600)),
    )
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("neurodeploy: ")
    assert _content() == before


def test_every_refusal_has_a_json_form(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--json", "simulate", "small.safetensors", "gone.png", "--out", "out"]) == 2
    answer = json.loads(capsys.readouterr().out)
    assert answer["schema_version"] == 1 and answer["ok"] is False
    assert answer["error"]["kind"] == "UserError" and answer["error"]["node"] == "gone.png"
