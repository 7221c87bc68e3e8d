"""Bundles: a folder with the target's files, ``manifest.json`` and ``proof.npz``; putting one together and reading it.

The same model, options and image give the same bytes. A bundle is read only after every file it lists was found inside
it, with the size and hash of the manifest, and without links.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

import neurodeploy
from neurodeploy.errors import Finding, FindingsError, InternalError, UserError
from neurodeploy.quantize.bursts import without_ticks
from neurodeploy.quantize.digits import as_trained
from neurodeploy.quantize.network import (
    IntegerConv,
    IntegerDense,
    IntegerFlatten,
    IntegerInput,
    IntegerLif,
    IntegerNetwork,
    IntegerReadout,
)
from neurodeploy.simulate.restore import receptive_radius
from neurodeploy.targets.base import Job, Written
from neurodeploy.targets.manifest import (
    MANIFEST,
    PROOF,
    Equality,
    FileEntry,
    Layer,
    Manifest,
    Missing,
    Model,
    Program,
    Proof,
    Timing,
    manifest_bytes,
    read_manifest,
)
from neurodeploy.targets.proof import FloatRun, IntegerRun, Spikes, npz_bytes, proof_arrays, read_npz, unpack

LARGEST_FILE = 4 << 30
"""Bytes of one file of a bundle."""

_KINDS: dict[type, Any] = {
    IntegerInput: "input",
    IntegerConv: "conv",
    IntegerDense: "dense",
    IntegerFlatten: "flatten",
    IntegerLif: "lif",
    IntegerReadout: "readout",
}


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk whose files are those of its manifest."""

    path: Path
    manifest: Manifest

    def networks(self) -> Mapping[str, IntegerNetwork]:
        """File name -> the integer network it holds, in its compact form, read by the target's own reader."""
        from neurodeploy.targets import get_target

        return get_target(self.manifest.target).read(self.path, self.manifest)

    def integer_network(self) -> IntegerNetwork:
        """The integer network of the bundle, in its compact form.

        Raises:
            UserError: None of its files holds one.
        """
        found = next(iter(self.networks().values()), None)
        if found is None:
            raise UserError("holds no file with an integer network", node=str(self.path))
        return found

    def proof(self) -> Mapping[str, NDArray[Any]]:
        """The arrays of ``proof.npz``, as they are stored."""
        return read_npz(self.path / self.manifest.proof.path)

    def expected_spikes(self, *, of_float: bool = False) -> dict[str, Spikes]:
        """Layer -> (T, C, h, w) expected spikes; with ``of_float`` those of the float interpretation where it differs.

        Raises:
            UserError: The proof lacks a layer that the manifest lists.
        """
        arrays = self.proof()
        listed = self.manifest.proof.float_layers if of_float else self.manifest.proof.layers
        prefix = "float_spikes" if of_float else "spikes"
        spikes = {}
        for layer in listed:
            packed = arrays.get(f"{prefix}/{layer.name}")
            count = int(np.prod(layer.shape))
            if packed is None or packed.dtype != np.uint8 or packed.shape != (-(-count // 8),):
                raise UserError("the proof holds no spikes of this layer, or too few", node=layer.name)
            spikes[layer.name] = unpack(packed, layer.shape)
        return spikes


def read_bundle(path: str | Path) -> Bundle:
    """Reads a bundle's manifest and checks every file that it lists.

    Raises:
        UserError: Not a bundle, or (as FindingsError) files that are missing, changed, links or outside, a line each.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise UserError("is not a bundle: no such folder", node=str(folder))
    manifest = read_manifest(folder)
    findings = [found for entry in manifest.files if (found := _file_finding(folder, entry)) is not None]
    if findings:
        raise FindingsError(f"{folder}: the bundle is not whole", findings, exit_code=2)
    return Bundle(folder, manifest)


def _file_finding(folder: Path, entry: FileEntry) -> Finding | None:
    relative = PurePosixPath(entry.path)
    if relative.is_absolute() or not relative.parts or ".." in relative.parts or "\\" in entry.path:
        return Finding(entry.path, "lies outside of the bundle")
    path = folder
    for part in relative.parts:
        path = path / part
        if path.is_symlink():
            return Finding(entry.path, "is a link; a bundle holds none")
    if not path.is_file():
        return Finding(entry.path, "is missing", instead="export the bundle again")
    size = path.stat().st_size
    if size != entry.size or size > LARGEST_FILE:
        return Finding(entry.path, "has another size", f"{size} bytes", f"{entry.size} bytes", "export again")
    if sha256(path) != entry.sha256:
        return Finding(entry.path, "has another hash: its content was changed", instead="export the bundle again")
    return None


def sha256(path: Path) -> str:
    """Hash of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def equality(net: IntegerNetwork) -> Equality:
    """Whether the integers and the float interpretation of the network agree by construction, and why.

    They do where nothing is truncated between steps: with one step, or where a membrane loses everything or nothing.
    """
    if net.host.steps == 1:
        return Equality(
            integers_equal_float=True,
            reason="one time step: nothing decays, and every threshold lies half a unit above the integer one",
        )
    leaky = [node.name for node in net.lifs() if np.any((np.asarray(node.v_decay) % 4096) != 0)]
    current = [node.name for node in net.lifs() if np.any(np.asarray(node.i_decay) != 4096)]
    if not leaky and not current:
        return Equality(
            integers_equal_float=True,
            reason="no membrane keeps a part of itself from step to step, so that nothing is truncated",
        )
    named = ", ".join(dict.fromkeys([*leaky, *current]))
    return Equality(
        integers_equal_float=False,
        reason=f"the integers truncate toward zero what decays between steps, the float graph does not: {named}",
    )


def parameters(net: IntegerNetwork) -> int:
    """Weights, biases and one threshold a population and layer: numbers that the model holds."""
    total = 0
    for node in net.nodes.values():
        if isinstance(node, IntegerConv | IntegerDense):
            total += node.weight.size
        elif isinstance(node, IntegerLif):
            total += node.bias.size + len(node.levels)
        elif isinstance(node, IntegerReadout):
            total += node.bias.size
    return total


def layers_of(job: Job) -> list[Layer]:
    """The nodes as the files hold them."""
    rows = []
    for name, node in job.expanded.nodes.items():
        compact = job.network.nodes[name]
        rows.append(
            Layer(
                name=name,
                kind=_KINDS[type(node)],
                shape=job.shapes[name],
                populations=len(compact.levels) if isinstance(compact, IntegerLif) else 1,
                unit=job.network.units.get(name),
            )
        )
    return rows


def halo_of(net: IntegerNetwork) -> int | None:
    """Pixels at every side of a tile that depend on what lies outside; None where the network does not run in tiles."""
    try:
        return receptive_radius(net) * net.host.unshuffle
    except UserError:
        return None


@dataclass(frozen=True)
class Contents:
    """Everything that the manifest and the proof say beside what the job holds.

    Attributes:
        target: Name of the target.
        name: Name of the model.
        about: What else is said of the model.
        proof: The reference's run on the proof input.
        floats: The float interpretation's run, where it gives other spikes.
        placement: An estimate for the target's chip.
    """

    target: str
    name: str
    about: Mapping[str, Any]
    proof: IntegerRun
    floats: FloatRun | None = None
    placement: Mapping[str, Any] | None = None


def finish(folder: Path, job: Job, written: Written, contents: Contents) -> Manifest:
    """Writes ``proof.npz`` and ``manifest.json`` beside the target's files, which must all be there."""
    (folder / PROOF).write_bytes(npz_bytes(proof_arrays(contents.proof, contents.floats)))
    entries = [file_entry(folder, file) for file in (*written.files, PROOF)]
    net = job.network
    manifest = Manifest(
        program=Program(version=neurodeploy.__version__),
        target=contents.target,
        options=dict(job.options),
        model=Model(
            name=contents.name,
            parameters=parameters(as_trained(net)),
            parameters_repeated=parameters(without_ticks(job.expanded)),
            about=dict(contents.about),
        ),
        image_size=job.size,
        halo=halo_of(net),
        steps=net.host.steps,
        dt=net.host.dt,
        host=net.host,
        arithmetic=net.arithmetic,
        output_scale=net.output_scale,
        layers=layers_of(job),
        edges=list(net.edges),
        equality=equality(net),
        timing=None if written.timing is None else Timing.model_validate(written.timing),
        placement=None if contents.placement is None else dict(contents.placement),
        not_written=[Missing(file=left.file, reasons=list(left.reasons)) for left in written.not_written],
        proof=_proof_entry(contents, net.host.steps),
        files=entries,
    )
    (folder / MANIFEST).write_bytes(manifest_bytes(manifest))
    return manifest


def _proof_entry(contents: Contents, steps: int) -> Proof:
    result = contents.proof
    layers = result.layers()
    return Proof(
        image_shape=_three(result.image.shape),
        input_shape=_three(result.codes.shape),
        output_shape=_three(result.readout.shape),
        steps=steps,
        layers=layers,
        float_layers=[] if contents.floats is None else contents.floats.layers(),
        smallest_margin=min((layer.margin for layer in layers), default=None),
    )


def _three(shape: tuple[int, ...]) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise InternalError(f"an array of the proof has the shape {shape}")
    return shape[0], shape[1], shape[2]


def file_entry(folder: Path, file: str) -> FileEntry:
    """Path, hash and size of one file."""
    path = folder / file
    return FileEntry(path=file, sha256=sha256(path), size=path.stat().st_size)
