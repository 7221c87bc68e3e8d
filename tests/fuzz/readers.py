"""What is fuzzed: for every reader the sound files that it starts from, how they are damaged, and what reads them."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import nir
import numpy as np

from neurodeploy.graph.nir_file import write_nir
from neurodeploy.graph.shapes import node_shapes
from neurodeploy.graph.spec import StudentSpec
from neurodeploy.graph.student_file import write_student
from neurodeploy.quantize.lower import quantize
from neurodeploy.targets.base import Deployable
from neurodeploy.targets.export import export
from tests.fuzz import mutations
from tests.random_nets import random_student, student_network

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"

Seeds = Callable[[Path], None]
Mutate = Callable[[Path, Path, Random], None]
"""(seed, where the damaged copy goes, random numbers)"""


@dataclass(frozen=True)
class Reader:
    """One reader of the program.

    Attributes:
        seeds: Writes the sound files or folders into an empty folder.
        mutate: Makes a damaged copy of one of them.
        read: What the program does with such a file; may raise its own errors and nothing else.
        names_file: Whether every refusal owes the name of the file (a bundle's names the file inside).
    """

    seeds: Seeds
    mutate: Mutate
    read: Callable[[Path], Any]
    names_file: bool = True


def student(seed: int = 0) -> Any:
    """A small quantised student with two levels and a sum edge."""
    return random_student(StudentSpec(width=3, depth=3, levels=2, steps=1, edges=((1, 2),)), seed)


# NIR


def every_primitive() -> nir.NIRGraph:
    """A graph with one node of (nearly) every kind that NIR has."""
    grid = (2, 4, 4)

    def full(value: float, shape: tuple[int, ...] = grid) -> Any:
        return np.full(shape, value, np.float32)

    flat = (32,)
    nodes = {
        "input": nir.Input(input_type={"input": np.array((1, 8, 8))}),
        "conv": nir.Conv2d(
            input_shape=(8, 8), weight=np.ones((2, 1, 3, 3), np.float32), stride=1, padding=1, dilation=1, groups=1,
            bias=np.zeros(2, np.float32),
        ),
        "if": nir.IF(r=full(1, (2, 8, 8)), v_threshold=full(1, (2, 8, 8)), v_reset=full(0, (2, 8, 8))),
        "pool": nir.SumPool2d(kernel_size=np.array([2, 2]), stride=np.array([2, 2]), padding=np.array([0, 0])),
        "lif": nir.LIF(tau=full(1), r=full(1), v_leak=full(0), v_threshold=full(1), v_reset=full(0)),
        "scale": nir.Scale(scale=full(2)),
        "delay": nir.Delay(delay=full(1e-4)),
        "flatten": nir.Flatten(input_type={"input": np.array(grid)}, start_dim=0, end_dim=-1),
        "linear": nir.Linear(weight=np.ones((32, 32), np.float32)),
        "cuba": nir.CubaLIF(
            tau_syn=full(1, flat), tau_mem=full(1, flat), r=full(1, flat), v_leak=full(0, flat),
            v_threshold=full(1, flat), v_reset=full(0, flat), w_in=full(1, flat),
        ),
        "affine": nir.Affine(weight=np.ones((3, 32), np.float32), bias=np.zeros(3, np.float32)),
        "li": nir.LI(tau=full(1, (3,)), r=full(1, (3,)), v_leak=full(0, (3,))),
        "threshold": nir.Threshold(threshold=full(1, (3,))),
        "output": nir.Output(output_type={"output": np.array((3,))}),
    }  # fmt: skip
    return nir.NIRGraph(nodes, list(itertools.pairwise(nodes)), type_check=False)


def split(graph: nir.NIRGraph, name: str) -> tuple[nir.NIRGraph, nir.NIRGraph]:
    """A chain in two parts, up to a node and from it on: smaller files are read faster."""
    names, shapes = list(graph.nodes), node_shapes(graph)
    place = names.index(name)
    first, second = (
        {key: graph.nodes[key] for key in part} for part in (names[: place + 1], ["input", *names[place + 1 :]])
    )
    first["output"] = nir.Output(output_type={"output": np.array(shapes[name])})
    second["input"] = nir.Input(input_type={"input": np.array(shapes[name])})
    return tuple(nir.NIRGraph(part, list(itertools.pairwise(part)), type_check=False) for part in (first, second))


def _nir_seeds(folder: Path) -> None:
    small = random_student(StudentSpec(width=2, depth=1, levels=2, steps=1), 0)
    write_nir(folder / "student.nir", student_network(small, (6, 8)).graph)
    for name, graph in zip(("maps", "vectors"), split(every_primitive(), "delay"), strict=True):
        write_nir(folder / f"{name}.nir", graph)
    shutil.copy(GOLDEN / "nir" / "network.nir", folder / "golden.nir")


def _mutate_hdf5(seed: Path, out: Path, rng: Random) -> None:
    if rng.randrange(2):
        out.write_bytes(mutations.damaged_bytes(seed.read_bytes(), rng))
        return
    shutil.copyfile(seed, out)
    # where HDF5 itself refuses the change, what is left is a file all the same
    with contextlib.suppress(KeyError, OSError, RuntimeError, ValueError, TypeError):
        mutations.damage_hdf5(out, rng)


def _read_model(path: Path) -> None:
    """What every verb does with a MODEL, and what `inspect` shows of it."""
    from neurodeploy.report.inspect import inspect_path
    from neurodeploy.zoo import resolve

    inspect_path(path)
    resolve(str(path), steps=2, dt=1e-4)


# netx


def _net_seeds(folder: Path) -> None:
    shutil.copy(GOLDEN / "lava" / "network.net", folder / "golden.net")
    chain = random_student(StudentSpec(width=3, depth=2, levels=2, steps=1), 1)
    made = export(Deployable("s", quantize(student_network(chain, (6, 8))), (6, 8)), "lava", folder / "b")
    shutil.copy(made.path / "network.net", folder / "student.net")
    shutil.rmtree(folder / "b")


# ONNX


def _onnx_seeds(folder: Path) -> None:
    import onnx
    from onnx import helper, numpy_helper

    rng = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> Any:
        return numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)

    nodes = [
        helper.make_node("Conv", ["x", "w0", "b0"], ["conv1"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["conv1"], ["features"]),
        helper.make_node("Conv", ["features", "w1", "b1"], ["noise"], pads=[1, 1, 1, 1]),
        helper.make_node("Sub", ["x", "noise"], ["y"]),
    ]
    weights = [weight("w0", 4, 1, 3, 3), weight("b0", 4), weight("w1", 1, 4, 3, 3), weight("b1", 1)]
    kind = onnx.TensorProto.FLOAT
    model = helper.make_model(
        helper.make_graph(
            nodes, "restorer", [helper.make_tensor_value_info("x", kind, ["B", 1, "H", "W"])],
            [helper.make_tensor_value_info("y", kind, None)], weights,
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )  # fmt: skip
    onnx.save(model, str(folder / "restorer.onnx"))


def _mutate_onnx(seed: Path, out: Path, rng: Random) -> None:
    damage = mutations.damaged_onnx if rng.randrange(2) else mutations.damaged_bytes
    out.write_bytes(damage(seed.read_bytes(), rng))


def _read_onnx(path: Path) -> None:
    from neurodeploy.networks.teachers import load_teacher

    load_teacher(str(path))


# safetensors


def _safetensors_seeds(folder: Path) -> None:
    write_student(folder / "student.safetensors", student())
    write_student(folder / "float.safetensors", random_student(StudentSpec(width=2, depth=1), 0, quantized=False))


def _mutate_safetensors(seed: Path, out: Path, rng: Random) -> None:
    damage = mutations.damaged_safetensors if rng.randrange(2) else mutations.damaged_bytes
    out.write_bytes(damage(seed.read_bytes(), rng))


# bundles


def _bundle_seeds(folder: Path) -> None:
    for name in ("nir", "lava", "loihi2"):
        shutil.copytree(GOLDEN / name, folder / name)


def _mutate_bundle(seed: Path, out: Path, rng: Random) -> None:
    """The manifest damaged; or another of its files, with a manifest that says that it is whole."""
    shutil.copytree(seed, out)
    manifest = out / "manifest.json"
    kind = rng.randrange(4)
    if kind == 0:
        manifest.write_bytes(mutations.damaged_bytes(manifest.read_bytes(), rng))
        return
    values = json.loads(manifest.read_bytes())
    if kind == 1:
        names = [entry["path"] for entry in values["files"] if not entry["path"].endswith(".py")]
        path = out / rng.choice(names)
        if path.suffix in (".net", ".nir"):
            sound = shutil.copyfile(path, out / "sound")
            _mutate_hdf5(sound, path, rng)
            sound.unlink()
        else:
            path.write_bytes(mutations.damaged_bytes(path.read_bytes(), rng))
        entry = next(entry for entry in values["files"] if entry["path"] == path.name)
        content = path.read_bytes()
        entry.update(size=len(content), sha256=hashlib.sha256(content).hexdigest())
    else:
        values = mutations.damaged_json(values, rng)
    manifest.write_text(json.dumps(values), encoding="utf-8")


def _read_bundle(path: Path) -> None:
    from neurodeploy.report.inspect import inspect_path
    from neurodeploy.targets.bundle import read_bundle

    inspect_path(path)
    bundle = read_bundle(path)
    bundle.proof()
    bundle.expected_spikes()
    bundle.integer_network()


# TOML


def _profile_seeds(folder: Path) -> None:
    for path in sorted((ROOT / "hardware_profiles").glob("*.toml")):
        shutil.copy(path, folder / path.name)


def _recipe_seeds(folder: Path) -> None:
    for path in sorted((ROOT / "models").glob("*/recipe.toml")):
        shutil.copy(path, folder / f"{path.parent.name}.toml")
    whole = """name = "mine"
seed = 3
[degradation]
kind = "gaussian"
sigma = 25
[teacher]
model = "ffdnet-gray"
hints = [{student = "lif1", teacher = "model.3"}]
[data]
train = "photos/train"
test = "photos/test"
[student]
width = 48
depth = 7
levels = 4
edges = [[1, 3]]
dilation = [1, 1, 2, 2, 2, 1, 1, 1]
"""
    (folder / "whole.toml").write_text(whole, encoding="utf-8")


def _mutate_toml(seed: Path, out: Path, rng: Random) -> None:
    if rng.randrange(3) == 0:
        out.write_bytes(mutations.damaged_bytes(seed.read_bytes(), rng))
    else:
        text = mutations.damaged_text(seed.read_text(encoding="utf-8"), rng)
        out.write_bytes(text.encode("utf-8", "surrogatepass"))


def _read_profile(path: Path) -> None:
    from neurodeploy.hardware.profile import load_profile

    load_profile(path)


def _read_recipe(path: Path) -> None:
    from neurodeploy.distill.recipe import load_recipe

    load_recipe(path)


# pictures


def _image_seeds(folder: Path) -> None:
    from PIL import Image

    rng = np.random.default_rng(0)
    gray, colour = rng.integers(0, 256, (9, 11), np.uint8), rng.integers(0, 256, (9, 11, 3), np.uint8)
    deep = rng.integers(0, 65536, (9, 11), np.uint16)
    Image.fromarray(gray).save(folder / "gray.png")
    Image.fromarray(deep).save(folder / "deep.png")
    Image.fromarray(colour).save(folder / "colour.png")
    Image.fromarray(colour).quantize(8).save(folder / "palette.png")
    Image.fromarray(colour).convert("RGBA").save(folder / "alpha.png")
    Image.fromarray(colour).save(folder / "colour.jpg", quality=80)
    Image.fromarray(gray).save(folder / "gray.bmp")
    Image.fromarray(colour).save(folder / "colour.bmp")
    for compression in ("raw", "tiff_lzw", "tiff_deflate", "packbits"):
        Image.fromarray(colour).save(folder / f"{compression}.tif", compression=compression)
    Image.fromarray(deep).save(folder / "deep.tif")
    Image.fromarray(colour).save(folder / "colour.webp", lossless=True)


def _mutate_image(seed: Path, out: Path, rng: Random) -> None:
    data = seed.read_bytes()
    if seed.suffix == ".png" and rng.randrange(3):
        out.write_bytes(mutations.damaged_png(data, rng))
    else:
        out.write_bytes(mutations.damaged_bytes(data, rng))


def _read_image(path: Path) -> None:
    from neurodeploy.images.io import read_image, read_size

    try:
        read_size(path)
    finally:
        read_image(path)


# arrays


def _array_seeds(folder: Path) -> None:
    rng = np.random.default_rng(0)
    np.save(folder / "still.npy", rng.integers(0, 9, (4, 5, 6)))
    np.save(folder / "sequence.npy", rng.integers(0, 9, (2, 4, 5, 6)).astype(np.float32))


def _mutate_plain(seed: Path, out: Path, rng: Random) -> None:
    out.write_bytes(mutations.damaged_bytes(seed.read_bytes(), rng))


@functools.cache
def _array_network() -> Any:
    return quantize(student_network(student(), (10, 12)))


def _read_array(path: Path) -> None:
    from neurodeploy.report.arrays import read_codes

    net = _array_network()
    read_codes(path, dataclasses.replace(net, host=net.host.model_copy(update={"steps": 2})))


READERS: dict[str, Reader] = {
    "nir": Reader(_nir_seeds, _mutate_hdf5, _read_model),
    "netx": Reader(_net_seeds, _mutate_hdf5, _read_model),
    "onnx": Reader(_onnx_seeds, _mutate_onnx, _read_onnx),
    "safetensors": Reader(_safetensors_seeds, _mutate_safetensors, _read_model),
    "bundle": Reader(_bundle_seeds, _mutate_bundle, _read_bundle, names_file=False),
    "profile": Reader(_profile_seeds, _mutate_toml, _read_profile),
    "recipe": Reader(_recipe_seeds, _mutate_toml, _read_recipe),
    "array": Reader(_array_seeds, _mutate_plain, _read_array),
    "image": Reader(_image_seeds, _mutate_image, _read_image),
}
