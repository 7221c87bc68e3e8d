"""Where Lava's environment is looked for, and what is said when it cannot be made."""

from __future__ import annotations

from pathlib import Path

import pytest

from neurodeploy import lava_env
from neurodeploy.errors import UserError


def test_the_variable_wins_over_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.delenv("NEURODEPLOY_LAVA", raising=False)
    assert lava_env.folder() == tmp_path / "data" / "neurodeploy" / "lava"
    monkeypatch.setenv("NEURODEPLOY_LAVA", str(tmp_path / "own"))
    assert lava_env.folder() == tmp_path / "own"


def test_an_environment_that_was_not_finished_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEURODEPLOY_LAVA", str(tmp_path))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").touch()
    assert lava_env.python() is None
    (tmp_path / lava_env.READY).touch()
    assert lava_env.python() == tmp_path / "bin" / "python"
    assert lava_env.install(pytest.fail) == tmp_path / "bin" / "python"


def test_without_python_3_10_nothing_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "lava"
    monkeypatch.setenv("NEURODEPLOY_LAVA", str(place))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    with pytest.raises(UserError, match=r"Python 3\.10"):
        lava_env.install(lambda line: None)
    assert not place.exists()


def test_a_step_that_fails_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "python3.10"
    fake.write_text('#!/bin/sh\n[ "$1" = -c ] && exit 0\necho "no space left" >&2\nexit 1\n')
    fake.chmod(0o755)
    monkeypatch.setenv("NEURODEPLOY_LAVA", str(tmp_path / "lava"))
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(UserError, match="no space left"):
        lava_env.install(lambda line: None)
    assert lava_env.python() is None
