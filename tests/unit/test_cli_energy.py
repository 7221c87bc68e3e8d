"""``energy-report``: conditions, forms, comparisons, placement and measuring, by the command line."""

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
from neurodeploy.graph.student_file import write_student
from neurodeploy.hardware.profile import load_profile
from neurodeploy.untrained import untrained_file

META = {"task": "denoise", "name": "small", "degradation": {"kind": "gaussian", "sigma": 25.0}}
WORDS = ("energy-report", "small.safetensors", "--data", "clean", "--profile", "cmos45-int8")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "torch", None)  # none of this needs it
    for name, width in (("small", 4), ("wide", 6)):
        student = untrained_file(StudentSpec(width=width, depth=2, levels=2, steps=1), {**META, "name": name})
        write_student(f"{name}.safetensors", student)
    rows, columns = np.mgrid[0:40, 0:52]
    Path("clean").mkdir()
    for name, slope in (("a", 2), ("b", 4)):
        Image.fromarray(np.clip(60 + slope * rows + columns, 0, 255).astype(np.uint8)).save(f"clean/{name}.png")


def _json(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> dict[str, Any]:
    assert main(["--json", "-q", *words]) == code
    streams = capsys.readouterr()
    assert streams.err == ""
    answer: dict[str, Any] = json.loads(streams.out)
    return answer


def _text(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    assert main(["-q", *words]) == code
    return capsys.readouterr().out


def _refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["-q", *words]) == 2
    streams = capsys.readouterr()
    assert streams.out == ""
    return streams.err


def test_conditions_decide_the_exit_code(capsys):
    sps = _json(capsys, *WORDS)["verdict"]["sps"]
    held = _json(capsys, *WORDS, "--check", f"sop_per_mac<{sps + 1}", "--check", "psnr_db>0")
    assert [check["ok"] for check in held["checks"]] == [True, True]
    failed = _json(capsys, *WORDS, "--check", f"sop_per_mac<{sps / 2}", "--check", "psnr_db>0", code=1)
    assert [check["ok"] for check in failed["checks"]] == [False, True]
    assert "FAILS  psnr_db>99" in _text(capsys, *WORDS, "--check", "psnr_db>99", code=1)


def test_a_withheld_total_is_no_matter_of_conditions_that_do_not_ask_for_it(capsys):
    words = (*WORDS[:-1], "loihi2")
    assert main(["-q", *words]) == 1
    assert main(["-q", *words, "--check", "spikes>=0"]) == 0
    assert main(["-q", *words, "--check", "prices.loihi2.total_pj<1e30"]) == 1
    capsys.readouterr()


def test_a_bad_condition_is_refused_before_anything_runs(capsys):
    assert "sop_per_mac" in _refused(capsys, "energy-report", "nowhere", "--check", "sop_per_mc<1")


def test_the_report_scores_its_own_pictures(capsys):
    quality = _json(capsys, *WORDS)["quality"]
    scored = _json(capsys, "evaluate", "small.safetensors", "--data", "clean")
    for key in ("psnr_db", "ssim", "input_psnr_db"):
        assert quality[key] == pytest.approx(scored[key])


def test_forms_go_to_files_or_to_stdout(capsys):
    words = [*WORDS, "--latex", "t.tex", "--neurobench", "n.json", "--markdown", "r.md", "--html", "p.html"]
    answer = _json(capsys, *words)
    assert Path("t.tex").read_text().count(r"\begin{tabular}") == 1
    assert json.loads(Path("n.json").read_text()) == answer["neurobench"]
    assert Path("r.md").read_text().startswith("# Operations and energy of small")
    assert "data:image/png;base64," in Path("p.html").read_text()
    assert _text(capsys, *WORDS, "--latex").startswith("% neurodeploy")
    assert json.loads(_text(capsys, *WORDS, "--neurobench")) == answer["neurobench"]
    assert "exists already" in _refused(capsys, *words)


def test_two_answers_do_not_share_stdout(capsys):
    assert "both go to stdout" in _refused(capsys, *WORDS, "--latex", "--neurobench")
    assert main(["--json", "-q", *WORDS, "--latex"]) == 2
    capsys.readouterr()


def test_models_side_by_side(capsys):
    words = ("energy-report", "--compare", "small.safetensors", "wide.safetensors", *WORDS[2:])
    answer = _json(capsys, *words)
    assert [row["model"] for row in answer["rows"]] == ["small", "wide"]
    assert answer["reports"].keys() == {"small", "wide"}
    alone = _json(capsys, *WORDS)
    assert answer["rows"][0]["sop"] == alone["counts"]["mean_per_image"]["sop"]
    assert all("loses" in row["sentence"] or "wins" in row["sentence"] for row in answer["rows"])
    text = _text(capsys, *words, "--check", "psnr_db>0")
    assert "small" in text and "wide" in text and "holds  wide: psnr_db>0" in text
    assert _text(capsys, *words, "--latex").count(r"small &") == 1
    assert _text(capsys, *words, "--markdown").startswith("# Side by side")


def test_models_side_by_side_make_a_page(capsys):
    words = ("energy-report", "--compare", "small.safetensors", "wide.safetensors", *WORDS[2:], "--html", "both.html")
    _text(capsys, *words)
    page = Path("both.html").read_text(encoding="utf-8")
    assert "2 models side by side" in page and "neurodeploy -q energy-report --compare small.safetensors" in page
    assert "both.html" in _refused(capsys, *words)
    _text(capsys, *words, "--force")
    assert "2 models side by side" in Path("both.html").read_text(encoding="utf-8")


def test_two_of_one_name_are_told_apart_by_what_was_typed(capsys):
    Path("again").mkdir()
    Path("again/small.safetensors").write_bytes(Path("small.safetensors").read_bytes())
    answer = _json(
        capsys, "energy-report", "--compare", "small.safetensors", "again/small.safetensors", "wide.safetensors",
        *WORDS[2:],
    )  # fmt: skip
    names = ["small.safetensors", "again/small.safetensors", "wide"]
    assert [row["model"] for row in answer["rows"]] == names == list(answer["reports"])
    assert [report["model"] for report in answer["reports"].values()] == names


def test_models_of_other_channels_say_what_they_were_run_on(capsys):
    colour = untrained_file(
        StudentSpec(width=4, depth=2, levels=2, steps=1, channels=3),
        {"task": "denoise", "name": "colour", "degradation": {"kind": "gaussian", "sigma": 50.0}},
    )
    write_student("colour.safetensors", colour)
    words = ("energy-report", "--compare", "small.safetensors", "colour.safetensors", *WORDS[2:])
    answer = _json(capsys, *words)
    said = [row["data"] for row in answer["rows"]]
    assert "sigma 25" in said[0] and "sigma 50" in said[1]
    assert f"small: {said[0]}; colour: {said[1]}" == answer["data"]
    latex = _text(capsys, *words, "--latex")
    assert r"same shape, dense (small)" in latex and r"same shape, dense (colour)" in latex
    assert "sigma 25" in latex and "sigma 50" in latex


def test_arithmetic_alone_is_said_to_be_that(capsys):
    answer = _json(
        capsys, "energy-report", "--compare", "small.safetensors", "wide.safetensors", *WORDS[2:],
        "--profile", "cmos45-lemaire",
    )  # fmt: skip
    for row in answer["rows"]:
        assert "at cmos45-int8 (arithmetic alone) it" in row["sentence"]
        assert "at cmos45-int32-lemaire it" in row["sentence"]


def test_pictures_smaller_than_ssims_window_are_counted(capsys):
    Path("tiny").mkdir()
    for place, size in enumerate(((1, 1), (5, 3), (1, 40))):
        Image.fromarray(np.full(size, 90, np.uint8)).save(f"tiny/{place}.png")
    words = ("energy-report", "small.safetensors", "--data", "tiny", "--profile", "cmos45-int8")
    report = _json(capsys, *words, "--markdown", "tiny.md")
    assert report["quality"]["ssim"] is None and report["quality"]["psnr_db"] > 0
    assert report["counts"]["images"] == 3
    assert "no value" in _text(capsys, *words, "--check", "ssim>0.5", code=1)


def test_one_profile_counts_once_and_two_of_one_id_are_refused(capsys):
    assert list(_json(capsys, *WORDS, "--profile", "cmos45-int8")["prices"]) == ["cmos45-int8"]
    shipped = load_profile("cmos45-int8").path.read_text(encoding="utf-8")
    Path("mine.toml").write_text(shipped.replace("0.03", "0.04"), encoding="utf-8")
    assert "one id" in _refused(capsys, *WORDS, "--profile", "mine.toml")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("energy-report", "small.safetensors", "wide.safetensors"), "--compare"),
        (("energy-report", "--compare", "small.safetensors", "--data", "clean"), "two"),
        (("energy-report", "--compare", "small.safetensors", "small.safetensors", "--data", "clean"), "twice"),
        (("energy-report", "--compare", "small.safetensors", "wide.safetensors", "--neurobench"), "one model"),
        ((*WORDS, "--hops", "nan"), "finite"),
        ((*WORDS, "--target-size", "65536x65536"), "Mi pixels"),
        ((*WORDS, "--hops", "inf"), "finite"),
        ((*WORDS, "--step-time", "nan"), "finite"),
        ((*WORDS, "--step-time", "inf"), "finite"),
        (("energy-report",), "MODEL"),
        (("energy-report", "small.safetensors", "--measure", "cpu"), "prices no model"),
        ((*WORDS, "--assume", "fan_in=3"), "no chip"),
        ((*WORDS[:-1], "loihi2", "--assume", "fan=3"), "fan_in"),
        ((*WORDS[:-1], "loihi2", "--assume", "fan_in=many"), "number"),
    ],
)
def test_what_makes_no_sense_is_refused(words, reason, capsys):
    assert reason in _refused(capsys, *words)


def test_placement_stands_in_the_report(capsys):
    words = (*WORDS[:-1], "loihi2", "--allow-partial", "--target-size", "512x512", "--chips", "2")
    entry = _json(capsys, *words, "--assume", "fan_in=64")["placements"]["loihi2"]
    assert entry["placement"]["image_size"] == [40, 52] and entry["placement"]["assumed"] == ["fan_in"]
    assert entry["advice"]["target"]["size"] == [512, 512] and entry["advice"]["chips"] == 2


def test_check_tells_what_fits(capsys):
    words = ("check", "small.safetensors", "--target", "loihi2", "--target-size", "2048x2048")
    advice = _json(capsys, *words)["advice"]
    assert not advice["target"]["fits"] and advice["changes"]
    text = _text(capsys, *words, "--assume", "cores_per_chip=64")
    assert "assumed" in text and "largest tile" in text and "instead:" in text


def test_where_counters_cannot_be_read_it_is_said(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("neurodeploy.energy.meters.POWERCAP", tmp_path / "none")
    monkeypatch.setattr("neurodeploy.report.host.Rapl", _no_counters)
    assert "no energy counters" in _refused(capsys, "energy-report", "--measure", "cpu")


def _no_counters() -> None:
    from neurodeploy.energy.meters import Rapl

    Rapl(Path("nowhere"))


def test_the_page_and_the_text_tell_conditions_and_spread(capsys):
    words = (*WORDS, "--check", "psnr_db>99", "--html", "p.html")
    text = _text(capsys, *words, code=1)
    assert "95th percentile" in text
    page = Path("p.html").read_text()
    assert "psnr_db&gt;99" in page and "fails" in page and "95th percentile" in page
