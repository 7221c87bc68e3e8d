"""Damaging files on purpose: single bytes of any format, and the structure of those that the program reads.

Every function is a pure function of its arguments and of the random numbers that it is handed: a ``random.Random``, or
hypothesis' stand-in for one.
"""

from __future__ import annotations

import json
import re
import struct
import zlib
from pathlib import Path
from random import Random
from typing import Any

import h5py
import numpy as np

NUMBERS = (
    0,
    1,
    2,
    3,
    127,
    128,
    255,
    256,
    32767,
    65535,
    65536,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**62,
    2**63 - 1,
    2**64 - 1,
)
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 64, 65, 2**31, 2**63, -(2**63), 10**30, 0.0, -0.0, 0.5, 1e-320, 1e308, float("nan"),
    float("inf"), "", "x", "../../../tmp/out", "/etc/passwd", "a" * 5000, "\u0000", "é", "1", "nan", [], [0], [1, 2, 3],
    [[]], {}, {"a": 1}, [None] * 40, [-1, -1], ["x"],
)  # fmt: skip
TOML_VALUES = (
    "0", "-1", "1", "nan", "inf", "-inf", "1e400", "9" * 30, "9" * 5000, "0x7fffffffffffffff", "true", '""', '"x"',
    '"../../../tmp/out"', "[]", "[1, 2]", "{}", "{a = 1}", "1979-05-27", "07:32:00", "[" * 900, "{a=" * 400, "'''",
    "\x00", "\ufeff", '"\\ud800"', "[[a]]", "a.b.c = 1", "= =",
)  # fmt: skip


def damaged_bytes(data: bytes, rng: Random) -> bytes:
    """Up to eight small accidents: bits, numbers, holes, repetitions, cuts."""
    content = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        length = len(content)
        if not length:
            break
        place = rng.randrange(length)
        size = rng.choice((1, 2, 4, 8, 16, 64, 512))
        kind = rng.randrange(8)
        if kind == 0:
            content[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            content[place] = rng.randrange(256)
        elif kind == 2:
            width = rng.choice((1, 2, 4, 8))
            number = rng.choice(NUMBERS) % (1 << (8 * width))
            content[place : place + width] = number.to_bytes(width, rng.choice(("little", "big")))
        elif kind == 3:
            del content[place : place + size]
        elif kind == 4:
            content[place:place] = content[place : place + size]
        elif kind == 5:
            content[place : place + size] = bytes(len(content[place : place + size]))
        elif kind == 6:
            other = rng.randrange(length)
            content[place : place + size] = content[other : other + size]
        elif rng.randrange(4) == 0:
            del content[place:]
        else:
            content[place : place + size] = bytes(rng.randrange(256) for _ in range(min(size, 16)))
    return bytes(content)


def damaged_text(text: str, rng: Random) -> str:
    """TOML, or other text of lines: values, keys and lines exchanged, doubled, taken out."""
    lines = text.splitlines()
    for _ in range(rng.randint(1, 4)):
        if not lines:
            return rng.choice(TOML_VALUES)
        place = rng.randrange(len(lines))
        kind = rng.randrange(7)
        if kind == 0:
            del lines[place]
        elif kind == 1:
            lines.insert(rng.randrange(len(lines)), lines[place])
        elif kind == 2:
            lines[place] = lines[place].partition("=")[0] + "= " + rng.choice(TOML_VALUES)
        elif kind == 3:
            words = re.findall(r"[\w.\-]+", lines[place])
            if words:
                lines[place] = lines[place].replace(rng.choice(words), rng.choice(TOML_VALUES), 1)
        elif kind == 4:
            lines[place] = lines[place] + rng.choice((" = 1", "]", '"', "\\", "\x07", "\r", "#"))
        elif kind == 5:
            other = rng.randrange(len(lines))
            lines[place], lines[other] = lines[other], lines[place]
        else:
            lines.insert(place, f"[{rng.choice(('a', 'student', 'arithmetic', 'x.y', ''))}]")
    return "\n".join(lines)


def damaged_json(value: Any, rng: Random) -> Any:
    """A JSON value with up to three of its parts replaced, renamed or taken out."""
    for _ in range(rng.randint(1, 3)):
        places = list(_places(value))
        if not places:
            return rng.choice(VALUES)
        parent, key = rng.choice(places)
        kind = rng.randrange(4)
        if kind == 0:
            del parent[key]
        elif kind == 1 and isinstance(parent, dict):
            parent[rng.choice(("", "x", "name", "path", str(key) + "_"))] = parent.pop(key)
        elif kind == 2 and isinstance(parent, list):
            parent.append(parent[key])
        else:
            parent[key] = rng.choice(VALUES)
        value = json.loads(json.dumps(value))
    return value


def _places(value: Any) -> Any:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield value, key
        yield from _places(inner)


def damaged_safetensors(data: bytes, rng: Random) -> bytes:
    """The header changed as JSON; lengths and numbers of the tensors stay what they were, or not."""
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    if rng.randrange(3) == 0 and "neurodeploy" in header.get("__metadata__", {}):
        inner = damaged_json(json.loads(header["__metadata__"]["neurodeploy"]), rng)
        header["__metadata__"]["neurodeploy"] = json.dumps(inner)
    else:
        header = damaged_json(header, rng)
    text = json.dumps(header).encode()
    size = rng.choice((len(text), len(text), len(text), rng.choice(NUMBERS))) % (1 << 64)
    body = data[8 + length :]
    return struct.pack("<Q", size) + text + (damaged_bytes(body, rng) if rng.randrange(4) == 0 else body)


def damaged_png(data: bytes, rng: Random) -> bytes:
    """Chunks changed, doubled and left out, with their checksums put right."""
    chunks = []
    place = 8
    while place + 8 <= len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += 12 + length
    for _ in range(rng.randint(1, 3)):
        spot = rng.randrange(len(chunks)) if chunks else 0
        kind = rng.randrange(4)
        if not chunks:
            break
        if kind == 0:
            name, body = chunks[spot]
            chunks[spot] = (name, damaged_bytes(body, rng))
        elif kind == 1:
            chunks.insert(rng.randrange(len(chunks)), chunks[spot])
        elif kind == 2:
            del chunks[spot]
        else:
            name = rng.choice((b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"tRNS", b"PLTE", b"acTL", b"eXIf", b"IDAT"))
            body = rng.choice(
                (b"", b"k\x00\x00" + zlib.compress(bytes(1 << rng.choice((4, 12, 24)))), bytes(3), b"\xff" * 9)
            )
            chunks.insert(spot, (name, body))
    made = [data[:8]]
    for name, body in chunks:
        made.append(struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)))
    return b"".join(made)


def damage_hdf5(path: Path, rng: Random) -> None:
    """Up to three changes inside an HDF5 file: objects replaced, taken out, linked, made huge."""
    with h5py.File(path, "r+") as file:
        for _ in range(rng.randint(1, 3)):
            names: list[str] = []
            file.visit(names.append)
            if names:
                _damage_object(file, rng.choice(sorted(names)), rng)


def _damage_object(file: h5py.File, name: str, rng: Random) -> None:
    kind = rng.randrange(12)
    item = file[name]
    if kind == 0:
        del file[name]
    elif kind == 1:
        file.move(name, name + rng.choice(("x", ".", " ", "/y", "é")))
    elif kind == 2 and isinstance(item, h5py.Group):
        _linked(item, rng)
    elif kind == 3:
        parent = item if isinstance(item, h5py.Group) else item.parent
        parent.create_group("/".join("abcdefghijklmnopqrstuvwxyz"[: rng.choice((1, 3, 25))]))
    elif kind == 4 and isinstance(item, h5py.Group) and name.count("/") > 0:
        del file[name]
        file[name] = np.zeros(3)
    elif isinstance(item, h5py.Dataset) and item.shape is not None and item.size <= 1 << 20:
        dtype, shape, value = item.dtype, item.shape, item[()]
        del file[name]
        _dataset(file, name, dtype, shape, value, rng)


def _linked(group: h5py.Group, rng: Random) -> None:
    kind = rng.randrange(4)
    if kind == 0:
        group["link"] = h5py.SoftLink(rng.choice(("/", "/node", "/layer/0", "link")))
    elif kind == 1:
        group["link"] = h5py.ExternalLink(rng.choice(("other.h5", "/etc/passwd")), "/")
    elif kind == 2:
        group["link"] = group.file["/"]
    else:
        group["link"] = np.dtype("f4")


def _dataset(file: h5py.File, name: str, dtype: Any, shape: tuple[int, ...], value: Any, rng: Random) -> None:
    """The dataset anew, with another value, shape or type."""
    kind = rng.randrange(13)
    numeric = dtype.kind in "iufb"
    if kind == 0:
        file.create_dataset(name, shape=(1 << 20, 1 << rng.choice((4, 10, 18))), dtype="f4", chunks=(1024, 16))
    elif kind == 1:
        file.create_dataset(name, shape=(1 << 12,) * 3, dtype="i1", chunks=(64,) * 3, compression="gzip")
    elif kind == 2:
        file[name] = h5py.Empty("f4")
    elif kind == 3:
        file[name] = rng.choice(("LIF", "conv", "NIRGraph", "same", "", "x" * 3000, "é"))
    elif kind == 4:
        file[name] = np.zeros(3, [("a", "f4"), ("b", "i4")])
    elif kind == 5:
        file[name] = np.ones(shape, rng.choice(("c8", "f2", "f8", "i8", "u1", "S3", "?", "u8")))
    elif kind == 6:
        file[name] = np.zeros(rng.choice(((), (0,), (1,), (2, 0), (1, 1, 1, 1, 1, 1), (7,), (2, 2))))
    elif kind == 7 and numeric and np.size(value):
        changed = np.array(value, np.float64).reshape(-1)
        changed[rng.randrange(changed.size)] = rng.choice((np.nan, np.inf, -1.0, 0.0, 1e30, 0.5, 1e300))
        file[name] = changed.reshape(shape)
    elif kind == 8 and numeric:
        file[name] = np.full(shape, rng.choice((0, -1, 1, 4097, 2**31, 2**62)), np.int64)
    elif kind == 9 and len(shape) > 0:
        file[name] = np.zeros((*shape[:-1], shape[-1] + 1))
    elif kind == 10:
        layout = h5py.VirtualLayout(shape=(4,), dtype="f4")
        layout[:] = h5py.VirtualSource("elsewhere.h5", "x", shape=(4,))
        file.create_virtual_dataset(name, layout)
    elif kind == 11:
        file.create_dataset(name, shape=(16,), dtype="f4", external=[("raw.bin", 0, 64)])
    else:
        file[name] = np.array([["a", "b"], ["b", "zz"]], dtype=object).astype("S")


def damaged_onnx(data: bytes, rng: Random) -> bytes:
    """Nodes, attributes, tensors and shapes of an ONNX graph changed; the file stays a well-formed message."""
    import onnx

    model = onnx.ModelProto.FromString(data)
    graph = model.graph
    for _ in range(rng.randint(1, 3)):
        kind = rng.randrange(9)
        node = rng.choice(list(graph.node)) if graph.node else None
        tensor = rng.choice(list(graph.initializer)) if graph.initializer else None
        if kind == 0 and node is not None:
            node.op_type = rng.choice(("Conv", "Relu", "Loop", "If", "Scan", "MatMul", "Resize", "", "Nothing"))
        elif kind == 1 and node is not None and node.input:
            node.input[rng.randrange(len(node.input))] = rng.choice(
                ("", "x", "nothing", node.output[0] if node.output else "")
            )
        elif kind == 2 and node is not None and node.attribute:
            attribute = rng.choice(list(node.attribute))
            if attribute.ints:
                attribute.ints[rng.randrange(len(attribute.ints))] = rng.choice((0, -1, 7, 2**31, 2**62))
            else:
                attribute.i = rng.choice((0, -1, 9, 2**40))
        elif kind == 3 and tensor is not None and tensor.dims:
            tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice((0, -1, 1, 2**31, 2**40))
        elif kind == 4 and tensor is not None:
            tensor.data_type = rng.choice((0, 1, 2, 7, 8, 10, 11, 16, 99))
        elif kind == 5 and tensor is not None:
            tensor.data_location = onnx.TensorProto.EXTERNAL
            entry = tensor.external_data.add()
            entry.key, entry.value = "location", rng.choice(("../../../etc/passwd", "/etc/passwd", "weights.bin"))
        elif kind == 6 and node is not None:
            graph.node.remove(node)
        elif kind == 7 and graph.input:
            dims = graph.input[0].type.tensor_type.shape.dim
            if dims:
                rng.choice(list(dims)).dim_value = rng.choice((0, -1, 1, 2, 3, 2**31))
        else:
            model.opset_import[0].version = rng.choice((0, 1, 7, 99, 2**31))
    return model.SerializeToString()
