"""The run script of a bundle: a template of the folder ``export/``, which needs this program no more."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from neurodeploy.shipped import shipped

SCRIPT = "run.py"


def write_script(template: str, folder: Path, files: Sequence[str]) -> None:
    """Writes ``run.py``.

    Args:
        template: Path of the template, relative to ``export/``.
        folder: Where the script goes; it reads the manifest, the proof and the network beside itself.
        files: The target's files that lie there.
    """
    environment = Environment(
        loader=FileSystemLoader(shipped("export")), undefined=StrictUndefined, keep_trailing_newline=True
    )
    text = environment.get_template(template).render(files=list(files))
    (folder / SCRIPT).write_text(text, encoding="utf-8", newline="\n")
