"""sinabs as a reader of bundles: a subprocess, because it asks for another release of nir than this program.

It is found in this environment, or in that of the interpreter which ``$NEURODEPLOY_SINABS`` names. What is run is the
script that the program ships, never the one that lies in the bundle.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import UserError
from neurodeploy.targets.bundle import Bundle
from neurodeploy.targets.events import INTEGERS
from neurodeploy.targets.manifest import MANIFEST, PROOF
from neurodeploy.targets.proof import Spikes
from neurodeploy.targets.script import SCRIPT, write_script
from neurodeploy.targets.speck import NETWORK, template

INSTALL = "pip install --no-deps sinabs pbr (here, or in an environment whose python $NEURODEPLOY_SINABS names)"


def python() -> str | None:
    """The interpreter that has sinabs; None without one."""
    named = os.environ.get("NEURODEPLOY_SINABS")
    if named:
        return named
    return sys.executable if find_spec("sinabs") is not None else None


def sinabs_version() -> str | None:
    """Version of sinabs; None where it is not installed."""
    chosen = python()
    if chosen is None:
        return None
    code = "from importlib.metadata import version; print(version('sinabs'))"
    try:
        done = subprocess.run([chosen, "-c", code], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def run_sinabs(bundle: Bundle) -> tuple[dict[str, Spikes], NDArray[np.int64]]:
    """Runs the proof of a bundle: every layer's spikes (T, C, h, w), and the output summed over the steps.

    Raises:
        UserError: The bundle's files differ from what they should hold, or sinabs fails; its last line says why.
    """
    bundle.networks()  # our own reader first: it has limits
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file in (NETWORK, INTEGERS, MANIFEST, PROOF):
            shutil.copyfile(bundle.path / file, folder / file)
        write_script(str(template), folder, [NETWORK])
        command = [str(python()), SCRIPT, "--proof", "--arrays", "out.npz"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
        if not (folder / "out.npz").is_file():
            lines = (done.stderr or done.stdout).strip().splitlines()
            reason = lines[-1] if lines else "without a word"
            raise UserError(f"sinabs fails: {reason}", node=str(bundle.path / NETWORK))
        with np.load(folder / "out.npz", allow_pickle=False) as arrays:
            spikes = {key.removeprefix("spikes/"): arrays[key][0] for key in arrays.files if key != "output"}
            return spikes, arrays["output"][0].astype(np.int64)
