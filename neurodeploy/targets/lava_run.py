"""Lava as a reader of bundles: its own interpreter in a subprocess, which hands arrays back in an ``.npz``.

What is run is the script that the program ships, never the one that lies in the bundle.
"""

from __future__ import annotations

import itertools
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from neurodeploy import lava_env
from neurodeploy.errors import UserError
from neurodeploy.targets.bundle import Bundle
from neurodeploy.targets.lava import NETWORK, template
from neurodeploy.targets.manifest import MANIFEST, PROOF
from neurodeploy.targets.proof import Spikes
from neurodeploy.targets.script import SCRIPT, write_script


@dataclass(frozen=True)
class LavaRun:
    """One of several runs of the proof input back to back: spikes a layer (T, C, h, w), and the summed output."""

    spikes: dict[str, Spikes]
    output: NDArray[np.int64]


def lava_version() -> str | None:
    """Version of lava-nc in the environment that ``neurodeploy doctor --install-lava`` makes; None without one."""
    python = lava_env.python()
    if python is None:
        return None
    code = "from importlib.metadata import version; print(version('lava-nc'))"
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip() or None if done.returncode == 0 else None


IMAGES = 3
"""Runs of the proof input that the script makes back to back."""

SECONDS_A_PAIR = 1e-4
"""What Lava takes for one pair of input and output channels in one step, on grids of about 32x32."""


def minutes_in_lava(bundle: Bundle) -> float:
    """Roughly how long Lava takes for the proof: it convolves one pair of channels after the other."""
    channels = [layer.shape[0] for layer in bundle.manifest.layers if layer.kind in ("input", "lif", "readout")]
    pairs = sum(before * after for before, after in itertools.pairwise(channels))
    hops = 0 if bundle.manifest.timing is None else bundle.manifest.timing.hops
    return pairs * (IMAGES * bundle.manifest.steps + hops) * SECONDS_A_PAIR / 60


def run_lava(bundle: Bundle, python: Path) -> list[LavaRun]:
    """Runs the proof of a bundle in Lava's bit-accurate CPU models, three times back to back.

    Args:
        bundle: A bundle with a ``network.net``.
        python: The interpreter that has Lava.

    Raises:
        UserError: Lava fails; its last line says why.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file in (NETWORK, MANIFEST, PROOF):
            shutil.copyfile(bundle.path / file, folder / file)
        write_script(template, folder, [NETWORK])
        command = [str(python), str(folder / SCRIPT), "--proof", "--arrays", str(folder / "out.npz")]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
        if not (folder / "out.npz").is_file():
            lines = (done.stderr or done.stdout).strip().splitlines()
            raise UserError(f"Lava fails: {lines[-1] if lines else 'without a word'}", node=str(bundle.path / NETWORK))
        with np.load(folder / "out.npz", allow_pickle=False) as arrays:
            spikes = {key.removeprefix("spikes/"): arrays[key] for key in arrays.files if key.startswith("spikes/")}
            outputs = arrays["output"]
    return [
        LavaRun({layer: seen[image] for layer, seen in spikes.items()}, outputs[image]) for image in range(len(outputs))
    ]
