"""The manifest of a bundle: what ``manifest.json`` holds, checked when it is written and when it is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from neurodeploy.errors import Finding, FindingsError, UserError
from neurodeploy.graph.spec import HostSide

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
PROOF = "proof.npz"
LARGEST_MANIFEST = 8 << 20

_STRICT = ConfigDict(extra="forbid", frozen=True)
_Count = Annotated[int, Field(ge=0)]
_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Shape3 = tuple[int, int, int]


class FileEntry(BaseModel):
    """One file of the bundle."""

    model_config = _STRICT

    path: str = Field(description="relative to the bundle, with forward slashes", max_length=200)
    sha256: _Sha256
    size: _Count = Field(description="bytes")


class Program(BaseModel):
    """What wrote the bundle."""

    model_config = _STRICT

    name: Literal["neurodeploy"] = "neurodeploy"
    version: str


class Model(BaseModel):
    """The model that was exported."""

    model_config = _STRICT

    name: str = Field(max_length=200)
    parameters: _Count = Field(description="weights and biases, each once, and one threshold a population and layer")
    parameters_repeated: _Count = Field(description="the same with the copies that the populations need")
    about: dict[str, Any] = {}


class Layer(BaseModel):
    """One node of the integer network as the files hold it: populations are channels."""

    model_config = _STRICT

    name: str
    kind: Literal["input", "conv", "dense", "flatten", "lif", "readout"]
    shape: Shape3 = Field(description="(C, h, w) of its output")
    populations: int = Field(1, ge=1, description="threshold populations D; channel d * C + c is population d")
    unit: float | None = Field(None, description="value in the NIR graph of one integer unit of current")


class Equality(BaseModel):
    """Whether the chip's integers and the float interpretation of the NIR file give the same spikes."""

    model_config = _STRICT

    integers_equal_float: bool
    reason: str


class Window(BaseModel):
    """Steps (from 1) in which one layer works on the first image."""

    model_config = _STRICT

    layer: str
    first: int
    last: int


class Timing(BaseModel):
    """How a pipeline with one step of delay a hop runs the zero-delay network. Steps count from 1."""

    model_config = _STRICT

    hop_delay_steps: int
    hops: int = Field(description="convolution and dense layers, each one hop")
    steps_for_images: str = Field(description="number of steps to run for M images back to back")
    reset_interval: int
    reset_offset: int
    input_message_bits: int
    windows: list[Window]
    readout: str = Field(description="where and when the output stands")
    readout_shift: int = Field(description="the membrane holds the output times 2 to this power")


class Missing(BaseModel):
    """A file that the target can write but this network does not allow."""

    model_config = _STRICT

    file: str
    reasons: list[str]


class ProofLayer(BaseModel):
    """The expected spikes of one layer on the proof input."""

    model_config = _STRICT

    name: str
    shape: tuple[int, int, int, int] = Field(description="(T, C, h, w), populations as channels")
    spikes: _Count
    margin: float = Field(description="smallest |v - threshold| that was met, in units of current")


class Proof(BaseModel):
    """What ``proof.npz`` holds: see the page of the target in ``export/``."""

    model_config = _STRICT

    path: Literal["proof.npz"] = "proof.npz"
    image_shape: Shape3
    input_shape: Shape3
    output_shape: Shape3
    steps: int = Field(ge=1)
    layers: list[ProofLayer]
    float_layers: list[ProofLayer] = Field([], description="only where the float interpretation differs")
    smallest_margin: float | None = Field(description="the smallest of the layers' margins; null without a layer")


class Manifest(BaseModel):
    """The whole of ``manifest.json``."""

    model_config = _STRICT

    format: Literal["neurodeploy-bundle"] = "neurodeploy-bundle"
    schema_version: Literal[1] = 1
    program: Program
    target: str
    options: dict[str, str] = {}
    model: Model
    image_size: tuple[int, int] = Field(description="(H, W) of the image that one run takes")
    halo: _Count | None = Field(
        description="pixels at every side of a tile that depend on what lies outside of it; null: no tiles"
    )
    steps: int = Field(ge=1, description="time steps T an image")
    dt: float = Field(gt=0, description="seconds a step; NIR has no field for it")
    host: HostSide
    arithmetic: str
    output_scale: float = Field(description="image value of one unit of the integer output's mean over time steps")
    layers: list[Layer]
    edges: list[tuple[str, str]]
    equality: Equality
    timing: Timing | None = None
    placement: dict[str, Any] | None = Field(None, description="an estimate; see its own key 'estimate'")
    not_written: list[Missing] = []
    proof: Proof
    files: list[FileEntry]

    @model_validator(mode="after")
    def _agree(self) -> Manifest:
        if self.steps != self.host.steps or self.dt != self.host.dt:
            raise ValueError("steps and dt differ from those of the host side")
        paths = [entry.path for entry in self.files]
        if len(set(paths)) != len(paths):
            raise ValueError("files: a path stands twice")
        if self.proof.path not in paths:
            raise ValueError("files: the proof is not listed")
        return self


def manifest_bytes(manifest: Manifest) -> bytes:
    """The bytes of ``manifest.json``: UTF-8 JSON, two spaces of indent, keys in the order of the schema.

    Raises:
        UserError: What is said of the model cannot stand in JSON.
    """
    try:
        # pydantic would write null for a number that is not finite
        json.dumps(manifest.model.about, allow_nan=False)
        values = manifest.model_dump(mode="json")
        return (json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
    except (ValueError, TypeError) as error:
        raise UserError(f"what is said of the model cannot stand in JSON: {error}", node=MANIFEST) from error


def manifest_schema(target: str) -> dict[str, Any]:
    """The JSON schema of ``manifest.json`` in a bundle of one target: ``export/TARGET/manifest.schema.json``."""
    schema = Manifest.model_json_schema()
    schema["properties"]["target"] = {"const": target, "title": "Target", "type": "string"}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def read_manifest(folder: Path) -> Manifest:
    """Reads and checks ``manifest.json`` of a bundle; the files it lists are not looked at.

    Raises:
        UserError: Missing, too large, not JSON, of an unknown schema version, or (as FindingsError) against the schema.
    """
    path = folder / MANIFEST
    if path.is_symlink() or not path.is_file():
        what = "is a link; a bundle holds none" if path.is_symlink() else "is missing: this folder is no bundle"
        raise UserError(what, node=str(path), instead="make a bundle with `neurodeploy export`")
    with path.open("rb") as file:
        data = file.read(LARGEST_MANIFEST + 1)
    if len(data) > LARGEST_MANIFEST:
        raise UserError("is too large for a manifest", node=str(path), limit=f"{LARGEST_MANIFEST} bytes")
    return _parsed(path, data)


def _parsed(path: Path, data: bytes) -> Manifest:
    try:
        values = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"is not JSON: {error}", node=str(path)) from error
    if not isinstance(values, dict) or values.get("format") != "neurodeploy-bundle":
        raise UserError("is not the manifest of a bundle: its 'format' is not 'neurodeploy-bundle'", node=str(path))
    version = values.get("schema_version")
    if version != SCHEMA_VERSION or isinstance(version, bool):
        raise UserError(
            "unknown schema version of the manifest",
            node=str(path),
            have=repr(version),
            limit=str(SCHEMA_VERSION),
            instead="read it with the version of the program that wrote it",
        )
    try:
        return Manifest.model_validate(values)
    except ValidationError as error:
        findings = [
            Finding(
                ".".join(str(part) for part in detail["loc"]) or MANIFEST, detail["msg"].removeprefix("Value error, ")
            )
            for detail in error.errors()
        ]
        raise FindingsError(f"{path}: against the schema of a bundle", findings, exit_code=2) from error
