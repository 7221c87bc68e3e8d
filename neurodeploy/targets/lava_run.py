"""Lava as a simulator: its own interpreter in a subprocess, which hands arrays back in an ``.npz``.

What is run are scripts that the program ships or makes anew, never those that lie in a bundle.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurodeploy import lava_env
from neurodeploy.errors import FindingsError, UserError
from neurodeploy.hardware.shapes import layer_shapes
from neurodeploy.quantize.levels import expand_levels
from neurodeploy.quantize.network import IntArray, IntegerConv, IntegerDense, IntegerNetwork
from neurodeploy.shipped import shipped
from neurodeploy.targets import lava
from neurodeploy.targets.base import Job
from neurodeploy.targets.bundle import Bundle
from neurodeploy.targets.canonical import without_idle_flattens
from neurodeploy.targets.lava_program import FILES as PROGRAM_FILES
from neurodeploy.targets.lava_program import PROGRAM, program_text, read_program
from neurodeploy.targets.manifest import MANIFEST
from neurodeploy.targets.script import write_script

CODES, RESULTS = "codes.npy", "results.npz"

IMAGES = 3
"""Runs of a proof's input that are made back to back."""

SECONDS_A_PAIR = 1e-4
"""What Lava takes for one pair of input and output channels in one step, on grids of about 32x32."""

PATIENCE_S = 300.0
"""Time beyond twenty times the estimate after which Lava is taken to hang; a busy machine takes its time."""

START_S = 60.0
"""The same for every network: dozens of processes are started."""

LIMIT = "NEURODEPLOY_LAVA_LIMIT"
"""Environment variable: seconds that Lava may take, whatever it is to do."""


@dataclass(frozen=True)
class LavaRun:
    """What Lava made of M images back to back.

    Attributes:
        spikes: Layer -> (M, T, C, h, w) bool, populations as channels.
        u: Layer -> the currents after every step, the same shape, in the chip's units.
        v: Layer -> the membranes after every step, 0 where a neuron spiked.
        output: (M, C, h, w), summed over the time steps.
    """

    spikes: Mapping[str, NDArray[np.bool_]]
    u: Mapping[str, IntArray]
    v: Mapping[str, IntArray]
    output: IntArray


@dataclass(frozen=True)
class LavaJob:
    """A network and what it is to run on.

    Attributes:
        network: Compact or expanded.
        codes: (M, C, h, w), the images.
        form: ``netx``, ``program``, or ``auto``: the former where the network is a chain.
        states: Whether u and v are wanted, too.
    """

    network: IntegerNetwork
    codes: IntArray
    form: str = "auto"
    states: bool = True


def lava_version() -> str | None:
    """Version of lava-nc in the environment that ``neurodeploy doctor --install-lava`` makes; None without one."""
    python = lava_env.python()
    if python is None:
        return None
    code = "from importlib.metadata import version; print(version('lava-nc'))"
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip() or None if done.returncode == 0 else None


def interpreter() -> Path:
    """The interpreter that has Lava.

    Raises:
        UserError: There is none.
    """
    python = lava_env.python()
    if python is None:
        raise UserError(
            "Lava is not installed",
            node=str(lava_env.folder()),
            instead="neurodeploy doctor --install-lava (an environment of its own: Lava needs Python 3.10)",
        )
    return python


def minutes_in_lava(bundle: Bundle) -> float:
    """Roughly how long Lava takes for the proof: it convolves one pair of channels after the other."""
    channels = {layer.name: layer.shape[0] for layer in bundle.manifest.layers}
    weighted = {layer.name for layer in bundle.manifest.layers if layer.kind in ("conv", "dense")}
    pairs = sum(channels[source] * channels[target] for source, target in bundle.manifest.edges if target in weighted)
    hops = 0 if bundle.manifest.timing is None else bundle.manifest.timing.hops
    return pairs * (IMAGES * bundle.manifest.steps + hops) * SECONDS_A_PAIR / 60


def _seconds(net: IntegerNetwork, images: int) -> float:
    pairs: int = sum(
        node.weight.shape[0] * node.weight.shape[1]
        for node in net.nodes.values()
        if isinstance(node, IntegerConv | IntegerDense)
    )
    return pairs * (images * net.host.steps + len(net.nodes)) * SECONDS_A_PAIR


def run_jobs(jobs: Sequence[LavaJob], python: Path | None = None) -> list[LavaRun]:
    """Runs networks in Lava's bit-accurate CPU models, all in one process, one after another.

    Args:
        jobs: The networks and their images.
        python: The interpreter that has Lava; None takes the one that the program installed.

    Raises:
        UserError: Lava is not installed, or fails, or hangs; its log is kept and named. As FindingsError: a network
            cannot be written for Lava.
    """
    chosen = python or interpreter()
    seconds = 0.0
    with tempfile.TemporaryDirectory(prefix="neurodeploy-lava-") as name:
        folders = []
        for number, job in enumerate(jobs):
            folder = Path(name) / str(number)
            folder.mkdir()
            expanded = _prepare(folder, job)
            seconds += _seconds(expanded, len(job.codes))
            folders.append(folder)
        _drive(chosen, folders, seconds)
        return [_results(folder) for folder in folders]


def run_lava(bundle: Bundle, python: Path) -> LavaRun:
    """Runs the proof of a bundle in Lava, three times back to back, in the form that the bundle has.

    A program has passed :func:`check_program`.

    Raises:
        UserError: Lava fails or hangs.
    """
    with tempfile.TemporaryDirectory(prefix="neurodeploy-lava-") as name:
        folder = Path(name)
        listed = {entry.path for entry in bundle.manifest.files}
        files = (lava.NETWORK,) if lava.NETWORK in listed else PROGRAM_FILES
        for file in (*files, MANIFEST):
            shutil.copyfile(bundle.path / file, folder / file)
        if PROGRAM in files:
            (folder / PROGRAM).write_text(_own_program(bundle), encoding="utf-8")
        write_script(lava.template, folder, files)
        np.save(folder / CODES, np.stack([bundle.proof()["codes"]] * IMAGES))
        _drive(python, [folder], 60 * minutes_in_lava(bundle))
        return _results(folder)


def check_program(bundle: Bundle) -> None:
    """Refuses a program that says something else than the network beside it: it would not be what is run here.

    Raises:
        UserError: It does.
    """
    if (bundle.path / PROGRAM).read_text(encoding="utf-8") != _own_program(bundle):
        raise UserError(
            "is not the program that this version writes for the network beside it",
            node=str(bundle.path / PROGRAM),
            instead="export the bundle again",
        )


def _own_program(bundle: Bundle) -> str:
    expanded, size = expand_levels(read_program(bundle.path)), bundle.manifest.image_size
    return program_text(expanded, layer_shapes(expanded, size), size, lava.MESSAGE_BITS)


def _prepare(folder: Path, job: LavaJob) -> IntegerNetwork:
    """Writes the network, the script and the images of one job; hands back the expanded network."""
    net = without_idle_flattens(job.network)
    expanded = expand_levels(net)
    factor = net.host.unshuffle
    size = (job.codes.shape[-2] * factor, job.codes.shape[-1] * factor)
    made = Job(net, expanded, size, layer_shapes(expanded, size), {"form": job.form})
    errors = [finding for finding in lava.check(made) if finding.severity == "error"]
    if errors:
        raise FindingsError("the network cannot be written for Lava", errors, target=lava.name)
    written = lava.write(made, folder)
    write_script(lava.template, folder, written.files)
    manifest: dict[str, Any] = {
        "steps": net.host.steps,
        "host": net.host.model_dump(mode="json"),
        "timing": dict(written.timing or {}),
        "states": job.states,
    }
    (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    np.save(folder / CODES, job.codes.astype(np.int32))
    return expanded


def _drive(python: Path, folders: Sequence[Path], seconds: float) -> None:
    given = os.environ.get(LIMIT)
    try:
        limit_s = float(given) if given else PATIENCE_S + START_S * len(folders) + 20 * seconds
    except ValueError as error:
        raise UserError("wants a number of seconds", node=LIMIT, have=given or "") from error
    worker = shipped("export") / "lava" / "worker.py"
    command = [str(python), str(worker), *(str(folder) for folder in folders)]
    lava_env.drive(command, folders[0], limit_s, [folder / RESULTS for folder in folders])


def _results(folder: Path) -> LavaRun:
    parts: dict[str, dict[str, NDArray[Any]]] = {"spikes": {}, "u": {}, "v": {}}
    with np.load(folder / RESULTS, allow_pickle=False) as arrays:
        for key in arrays.files:
            part, _, layer = key.partition("/")
            if layer:
                parts[part][layer] = arrays[key] if part == "spikes" else arrays[key].astype(np.int64)
        return LavaRun(**parts, output=arrays["output"].astype(np.int64))
