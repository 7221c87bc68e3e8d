"""The frame of the command line: what it loads, what its options do, how every run ends."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from neurodeploy.cli import main
from neurodeploy.cli.app import VERBS, cli
from neurodeploy.cli.guard import guarded
from neurodeploy.cli.output import json_text, say_if_slow, table
from neurodeploy.cli.settings import Settings
from neurodeploy.errors import Finding, FindingsError, InternalError, UserError

HEAVY = (
    "torch",
    "onnx",
    "onnxruntime",
    "matplotlib",
    "skimage",
    "norse",
    "nir",
    "h5py",
    "pydantic",
    "numpy",
    "PIL",
    "rich",
)


def _run(*words: str, **more: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "neurodeploy", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, **more)  # type: ignore[call-overload]


# what it loads


@pytest.mark.parametrize("words", [["--help"], *([verb, "--help"] for verb in VERBS)], ids=" ".join)
def test_help_loads_nothing_heavy(words: list[str]) -> None:
    program = (
        "import sys; from neurodeploy.cli import main; code = main(sys.argv[1:]);"
        f"print('LOADED', *[name for name in {HEAVY!r} if name in sys.modules]); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].split() == ["LOADED"]


def test_help_is_quick() -> None:
    seconds = []
    for _ in range(5):
        before = os.times()
        assert _run("--help").returncode == 0
        after = os.times()
        # processor time, not the clock: other programs may keep the machine busy
        spent = after.children_user + after.children_system - before.children_user - before.children_system
        seconds.append(spent)
    assert min(seconds) < 0.4


def test_list_of_verbs_says_what_the_commands_say() -> None:
    context = click.Context(cli)
    for name, line in VERBS.items():
        command = cli.get_command(context, name)
        assert command is not None and command.name == name
        assert (command.help or "").splitlines()[0] == line


def test_every_verb_shows_examples_of_itself() -> None:
    for name in VERBS:
        text = CliRunner().invoke(cli, [name, "--help"]).output
        examples = text.split("Examples:")[1].split("Options:")[0]
        assert f"neurodeploy {name}" in examples or f"neurodeploy --json {name}" in examples


def test_no_words_show_the_help_and_are_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    streams = capsys.readouterr()
    assert streams.out == "" and "The road:" in streams.err


# the options of all verbs


@pytest.mark.parametrize("words", [["--json", "profiles"], ["profiles", "--json"]])
def test_json_before_and_after_the_verb(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    streams = capsys.readouterr()
    assert json.loads(streams.out)["schema_version"] == 1
    assert streams.err == ""


def _settings_seen(words: list[str], monkeypatch: pytest.MonkeyPatch) -> Settings:
    seen: list[Settings] = []

    def look(settings: Settings, *_: object, **__: object) -> None:
        seen.append(settings)

    monkeypatch.setattr("neurodeploy.cli.models.answer", look)
    assert main(words) == 0
    return seen[0]


@pytest.mark.parametrize(
    ("words", "field", "value"),
    [
        (["--seed", "7", "models"], "seed", 7),
        (["models", "--seed", "0"], "seed", 0),
        (["--seed", "3", "models", "--seed", "4"], "seed", 4),
        (["models"], "seed", None),
        (["--device", "cuda:1", "models"], "device", "cuda:1"),
        (["-q", "models"], "quiet", True),
        (["models", "-vv"], "verbosity", 2),
    ],
)
def test_common_options(words: list[str], field: str, value: object, monkeypatch: pytest.MonkeyPatch) -> None:
    assert getattr(_settings_seen(words, monkeypatch), field) == value


def test_a_mistyped_verb_gets_the_nearest_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evalute"]) == 2
    streams = capsys.readouterr()
    assert streams.out == ""
    assert streams.err.count("\n") == 1 and "did you mean 'evaluate'" in streams.err


def test_a_mistyped_option_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profiles", "--jsn"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_wrong_usage_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--json"]) == 2
    answer = json.loads(capsys.readouterr().out)
    assert answer["schema_version"] == 1 and answer["ok"] is False
    assert answer["error"]["kind"] == "UsageError" and "MODEL" in answer["error"]["message"]


# how a run ends


def _raising(error: BaseException) -> object:
    def run() -> None:
        raise error

    return run


CASES = [
    (UserError("is not there", node="a.png"), 2, "neurodeploy: a.png: is not there\n"),
    (UserError("two\nlines"), 2, "neurodeploy: two lines\n"),
    (FindingsError("does not fit", [Finding("lif0", "too wide")]), 1, "neurodeploy: does not fit\n  lif0: too wide\n"),
    (click.UsageError("no such thing"), 2, "neurodeploy: no such thing\n"),
    (PermissionError(errno.EACCES, "Permission denied", "out.png"), 2, "neurodeploy: out.png: Permission denied\n"),
    (OSError(errno.ENOSPC, "No space left on device"), 2, "neurodeploy: No space left on device\n"),
    (MemoryError(), 2, "neurodeploy: not enough memory; use a smaller --tile or smaller pictures\n"),
    (KeyboardInterrupt(), 130, "neurodeploy: interrupted; nothing was written\n"),
    (click.Abort(), 130, "neurodeploy: interrupted; nothing was written\n"),
]


@pytest.mark.parametrize(("error", "code", "line"), CASES, ids=[type(case[0]).__name__ for case in CASES])
def test_every_refusal_is_one_line(
    error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert guarded(_raising(error), Settings(), []) == code
    streams = capsys.readouterr()
    assert streams.out == "" and streams.err == line


@pytest.mark.parametrize(
    "error", [KeyError("weights"), InternalError("a rule was broken"), OSError(errno.EIO, "I/O error")]
)
def test_a_fault_of_the_program_is_exit_code_3(error: BaseException, capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded(_raising(error), Settings(), []) == 3
    text = capsys.readouterr().err
    assert text.startswith("neurodeploy: internal error: ") and "report" in text and "Traceback" not in text
    assert guarded(_raising(error), Settings(verbosity=1), []) == 3
    assert "Traceback" in capsys.readouterr().err


def test_a_missing_extra_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    error = ModuleNotFoundError("No module named 'torch'", name="torch")
    assert guarded(_raising(error), Settings(), []) == 2
    assert "pip install 'neurodeploy[train]'" in capsys.readouterr().err


def test_a_missing_module_that_is_no_extra_is_a_fault(capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded(_raising(ModuleNotFoundError("No module named 'x'", name="x")), Settings(), []) == 3


def test_findings_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    error = FindingsError("does not fit", [Finding("lif0", "too wide", have="9", limit="8")], target="loihi2")
    assert guarded(_raising(error), Settings(json=True), []) == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["error"]["findings"][0] == {
        "node": "lif0",
        "rule": "too wide",
        "have": "9",
        "limit": "8",
        "instead": "",
        "severity": "error",
    }
    assert answer["error"]["target"] == "loihi2" and answer["error"]["exit_code"] == 1


def test_an_interrupt_says_what_was_kept(capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded(_raising(KeyboardInterrupt()), Settings(kept="runs/a is kept"), []) == 130
    assert capsys.readouterr().err == "neurodeploy: interrupted; runs/a is kept\n"


def test_a_closed_pipe_ends_quietly() -> None:
    command = [sys.executable, "-m", "neurodeploy", "--json", "profiles"]
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as closed:
        done = subprocess.run(command, stdout=closed, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_pipe_that_closes_during_the_help_ends_quietly() -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as closed:
        command = [sys.executable, "-m", "neurodeploy", "--help"]
        done = subprocess.run(command, stdout=closed, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device that is always full")
def test_a_full_standard_output_is_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "neurodeploy", "profiles"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "No space left" in done.stderr


def test_the_runner_of_click_gets_the_same_exit_code() -> None:
    assert CliRunner().invoke(cli, ["nothing"]).exit_code == 2
    assert CliRunner().invoke(cli, ["--version"]).exit_code == 0


def test_characters_that_the_terminal_lacks_do_not_end_the_run() -> None:
    done = _run(
        "evaluate", "m\udce9d", "--data", "x", env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1


# what goes out


def test_json_of_numpy_paths_and_what_is_not_finite() -> None:
    import numpy as np

    values = {"a": np.float32(0.5), "b": np.arange(2), "c": float("inf"), "d": Path("x"), "e": (1, float("nan"))}
    assert json.loads(json_text(values)) == {
        "schema_version": 1,
        "a": 0.5,
        "b": [0, 1],
        "c": None,
        "d": "x",
        "e": [1, None],
    }


def test_a_function_sets_its_own_schema_version() -> None:
    assert json.loads(json_text({"schema_version": 2}))["schema_version"] == 2


def test_table_aligns_numbers_right_and_text_left() -> None:
    rows = [{"name": "a", "n": 1234567, "x": 0.25}, {"name": "long", "n": None, "x": 30.0}]
    lines = table(rows, [("name", "NAME"), ("n", "N"), ("x", "X")]).splitlines()
    assert lines == ["NAME          N     X", "a     1,234,567  0.25", "long          -    30"]


@pytest.mark.parametrize(
    ("quiet", "limit", "found", "said"),
    [
        (False, "", "no C compiler was found", True),
        (True, "", "no C compiler was found", False),
        (False, "none", "no kernel is wanted", False),
        (False, "", None, False),
    ],
)
def test_a_missing_kernel_is_said_before_long_work(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    quiet: bool,
    limit: str,
    found: str | None,
    said: bool,
) -> None:
    from neurodeploy.simulate.kernel import library

    if found is None and library.missing() is not None:
        pytest.skip("no kernel here")
    if found is not None:
        monkeypatch.setattr(library, "_loaded", lambda: found)
    monkeypatch.setenv(library.LIMIT, limit)
    say_if_slow(Settings(quiet=quiet))
    error = capsys.readouterr().err
    assert error == (
        f"{found}: the reference simulator gives the same integers some hundred times slower\n" if said else ""
    )
