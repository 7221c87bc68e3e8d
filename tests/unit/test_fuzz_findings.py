"""What fuzzing the readers found, one test each: damaged files that once were a crash, a hang or a waste of memory."""

from __future__ import annotations

import json
import shutil
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from neurodeploy.distill.recipe import load_recipe
from neurodeploy.errors import UserError
from neurodeploy.graph.hdf5 import check_objects
from neurodeploy.graph.nir_file import read_nir, write_nir
from neurodeploy.hardware.profile import load_profile
from neurodeploy.images.io import read_image, read_size
from neurodeploy.report.arrays import read_codes
from neurodeploy.report.inspect import inspect_path
from neurodeploy.shipped import shipped
from neurodeploy.targets.lava_net import read_net
from neurodeploy.targets.proof import read_npz
from neurodeploy.zoo import read_entry, resolve
from tests.fuzz.readers import every_primitive

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


def a_type_as_an_object(file: h5py.File) -> None:
    file["layer/1/link"] = np.dtype("f4")


def a_layer_that_is_data(file: h5py.File) -> None:
    del file["layer/1"]
    file["layer/1"] = np.zeros(3)


def a_shape_without_numbers(file: h5py.File) -> None:
    del file["layer/1/shape"]
    file["layer/1/shape"] = np.zeros(0, np.int64)


def a_shape_of_four(file: h5py.File) -> None:
    del file["layer/0/shape"]
    file["layer/0/shape"] = np.array([1, 5, 6, 2])


def a_threshold_a_neuron(file: h5py.File) -> None:
    """One threshold for each of 2**24 neurons, none of them stored."""
    del file["layer/1/neuron/vThMant"]
    file.create_dataset("layer/1/neuron/vThMant", shape=(1 << 20, 16), dtype="f4", chunks=(1024, 16))


def weights_that_nobody_wrote(file: h5py.File) -> None:
    del file["layer/1/weight"]
    file.create_dataset("layer/1/weight", shape=(1 << 20, 16), dtype="f4", chunks=(1024, 16))


def a_delay_of_nowhere(file: h5py.File) -> None:
    file.create_group("layer/1/delay")


def weights_of_other_channels(file: h5py.File) -> None:
    weight = file["layer/1/weight"][()]
    del file["layer/1/weight"]
    file["layer/1/weight"] = np.concatenate([weight, weight], axis=1)


def a_name_that_is_no_text(file: h5py.File) -> None:
    layers = file["layer"].id
    layers.links.move(b"1", layers, b"\xff1")


NETX: dict[Callable[[h5py.File], None], str] = {
    a_type_as_an_object: "neither a group nor a data set",
    a_layer_that_is_data: "layer/1: is no layer",
    a_shape_without_numbers: "layer/1/shape: is no shape",
    a_shape_of_four: "layer/0/shape: is no shape",
    a_threshold_a_neuron: "vThMant: declares more data than it can hold",
    weights_that_nobody_wrote: "weight: declares more data than it can hold",
    a_name_that_is_no_text: "has a name that is no text",
    a_delay_of_nowhere: "layer/1/delay: is missing",
    weights_of_other_channels: "gets another number of channels than it is made for",
}


@pytest.mark.parametrize("damage", NETX, ids=lambda damage: damage.__name__)
def test_a_damaged_netx_file_is_refused_at_once(tmp_path: Path, damage: Callable[[h5py.File], None]) -> None:
    path = tmp_path / "network.net"
    shutil.copy(GOLDEN / "lava" / "network.net", path)
    with h5py.File(path, "r+") as file:
        damage(file)
    started = time.process_time()
    with pytest.raises(UserError) as caught:
        read_net(path)
    assert time.process_time() - started < 2
    assert NETX[damage] in str(caught.value) and "network.net" in str(caught.value)


def test_arrays_that_compress_well_are_no_bombs(tmp_path: Path) -> None:
    """A layer of equal thresholds is what NIR files hold: gzip makes very little of it."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("tau", data=np.full((64, 256, 256), 1e-4, np.float32), compression="gzip")
        check_objects(tmp_path / "a.h5", file)


def test_a_text_without_an_end_is_no_hang(tmp_path: Path) -> None:
    """HDF5 itself goes round for ever at a free object of size 0 in a collection of texts."""
    content = bytearray((GOLDEN / "nir" / "network.nir").read_bytes())
    place = content.index(b"GCOL") + 16
    content[place : place + 2] = bytes(2)
    content[place + 8 : place + 16] = bytes(8)
    path = tmp_path / "network.nir"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"network\.nir: its texts are damaged"):
        read_nir(path)


@pytest.mark.parametrize("damage", [(b"{", b"("), (b"'", b'"'), (b"<", b"\\"), (b"(", b"{"), (b"f4", b"O ")])
def test_a_header_that_is_no_python_is_refused(tmp_path: Path, damage: tuple[bytes, bytes]) -> None:
    """numpy reads the header of an array with Python's parser, which raises what it likes."""
    np.save(tmp_path / "x.npy", np.zeros((4, 3, 4), np.float32))
    content = (tmp_path / "x.npy").read_bytes()
    (tmp_path / "x.npy").write_bytes(content.replace(damage[0], damage[1], 1))
    net = resolve(str(GOLDEN / "nir")).integer()
    with pytest.raises(UserError, match=r"x\.npy"):
        read_codes(tmp_path / "x.npy", net)
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.write(tmp_path / "x.npy", "x.npy")
    with pytest.raises(UserError, match=r"x\.npz"):
        read_npz(tmp_path / "x.npz")


def test_a_header_of_four_gigabytes_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    path.write_bytes(b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + b"{" * 80)
    with pytest.raises(UserError, match=r"x\.npy: .*its header has 4294967295 bytes"):
        read_codes(path, resolve(str(GOLDEN / "nir")).integer())


WORDY = {"conv": ("stride", "dilation"), "pool": ("kernel_size", "stride", "padding"), "flatten": ("start_dim",)}


@pytest.mark.parametrize(("node", "field"), [(node, field) for node, fields in WORDY.items() for field in fields])
def test_a_word_where_numbers_belong_is_refused(tmp_path: Path, node: str, field: str) -> None:
    path = tmp_path / "network.nir"
    write_nir(path, every_primitive())
    with h5py.File(path, "r+") as file:
        del file[f"node/nodes/{node}/{field}"]
        file[f"node/nodes/{node}/{field}"] = "LIF"
    with pytest.raises(UserError, match=rf"network\.nir(.|\n)*{node}"):
        read_nir(path)


def test_names_larger_than_their_file_take_no_memory(tmp_path: Path) -> None:
    content = bytearray((GOLDEN / "nir" / "network.nir").read_bytes())
    place = content.index(b"HEAP\x00") + 8
    content[place : place + 8] = (1 << 40).to_bytes(8, "little")
    path = tmp_path / "network.nir"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"network\.nir: its names are damaged"):
        read_nir(path)


def own_free_place(content: bytearray) -> None:
    """The chain of free places among a group's names leads back to where it begins."""
    heap = next(at for at in places(content, b"HEAP\x00") if content[at + 16 : at + 24] != ONE)
    free, address = (int.from_bytes(content[at : at + 8], "little") for at in (heap + 16, heap + 24))
    content[address + free : address + free + 8] = content[heap + 16 : heap + 24]


def endless_header(content: bytearray) -> None:
    """The header of the first object of a group claims four gigabytes."""
    entry = content.index(b"SNOD\x01\x00") + 8
    header = int.from_bytes(content[entry + 8 : entry + 16], "little")
    assert content[header] == 1
    content[header + 8 : header + 12] = b"\xf0\xff\xff\xff"


def endless_texts(content: bytearray) -> None:
    place = content.index(b"GCOL\x01") + 8
    content[place : place + 8] = (1 << 40).to_bytes(8, "little")


def endless_text(content: bytearray) -> None:
    """What refers to a text among them, by length, address and number, claims that it has a gigabyte."""
    texts = content.index(b"GCOL\x01")
    reference = content.index(texts.to_bytes(8, "little") + (1).to_bytes(4, "little")) - 4
    content[reference + 3] = 0x4F


ONE = (1).to_bytes(8, "little")
HDF5: dict[Callable[[bytearray], None], str] = {
    own_free_place: "its names are damaged: their free places go in a circle",
    endless_header: "an object is damaged: its header is larger than the file",
    endless_texts: "its texts are damaged: they are larger than the file",
    endless_text: "its texts are damaged: one is larger than the file",
}


def places(content: bytes | bytearray, word: bytes) -> list[int]:
    return [at for at in range(len(content)) if content.startswith(word, at)]


@pytest.mark.parametrize("damage", HDF5, ids=lambda damage: damage.__name__)
def test_what_hdf5_would_take_all_memory_for_is_refused(tmp_path: Path, damage: Callable[[bytearray], None]) -> None:
    content = bytearray((GOLDEN / "nir" / "network.nir").read_bytes())
    damage(content)
    path = tmp_path / "network.nir"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"network\.nir.*{HDF5[damage]}"):
        read_nir(path)


def test_a_netx_file_is_looked_at_in_the_same_way(tmp_path: Path) -> None:
    content = bytearray((GOLDEN / "lava" / "network.net").read_bytes())
    own_free_place(content)
    path = tmp_path / "network.net"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"network\.net: its names are damaged: their free places go in a circle"):
        read_net(path)


def test_texts_that_are_kept_in_pieces_are_refused(tmp_path: Path) -> None:
    """Their lengths cannot be looked at before the library believes them."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("names", data=["a", "b"], dtype=h5py.string_dtype(), chunks=(1,))
        with pytest.raises(UserError, match=r"a\.h5: names: keeps its texts in pieces"):
            check_objects(tmp_path / "a.h5", file)


def test_one_text_that_stands_for_many_is_counted_every_time(tmp_path: Path) -> None:
    """4,096 references to one text of a mebibyte: a file of one MiB, and four GiB once it is read."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("names", data=["x" * (1 << 20), *[""] * 4095], dtype=h5py.string_dtype())
        start = file["names"].id.get_offset()
    content = path.read_bytes()
    path.write_bytes(content[:start] + content[start : start + 16] * 4096 + content[start + 16 * 4096 :])
    with h5py.File(path, "r") as file, pytest.raises(UserError, match=r"a\.h5: names: its arrays are too large"):
        check_objects(path, file)


@pytest.mark.parametrize("field", ["stride", "padding"])
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_a_field_of_whole_numbers_is_not_infinite(tmp_path: Path, value: float, field: str) -> None:
    path = tmp_path / "network.nir"
    shutil.copy(GOLDEN / "nir" / "network.nir", path)
    with h5py.File(path, "r+") as file:
        del file[f"node/nodes/conv0/{field}"]
        file[f"node/nodes/conv0/{field}"] = np.array([value, 1.0])
    with pytest.raises(UserError, match=r"network\.nir(.|\n)*conv0: "):
        read_nir(path)


def test_a_member_of_a_proof_that_claims_a_terabyte_takes_no_memory(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00" + bytes(120))
    content = bytearray((tmp_path / "x.npz").read_bytes())
    entry = content.index(b"PK\x01\x02")
    content[entry + 20 : entry + 28] = b"\xf0\xff\xff\x7f" * 2
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"x\.npz: x\.npy: holds a member that is larger than it"):
        read_npz(tmp_path / "x.npz")


@pytest.mark.parametrize("height", [0x2C0009, 0x400009])
def test_a_picture_of_millions_of_rows_in_half_a_kilobyte_is_refused(tmp_path: Path, height: int) -> None:
    """The decoder makes black rows of what is missing: a gigabyte of them, and seconds for what is transparent."""
    path = tmp_path / "p.png"
    Image.fromarray(np.zeros((9, 11, 4), np.uint8)).save(path)
    content = bytearray(path.read_bytes())
    content[20:24] = height.to_bytes(4, "big")
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    path.write_bytes(content)
    for read in (read_image, read_size):
        with pytest.raises(UserError, match=r"p\.png: is damaged or cut short.*more pixels than its bytes can hold"):
            read(path)


def test_a_picture_whose_strips_do_not_cover_it_is_refused(tmp_path: Path) -> None:
    """A TIFF of nine rows that claims four million of them: they were all made, black, for more than 2 s."""
    path = tmp_path / "p.tif"
    Image.fromarray(np.ones((9, 11, 3), np.uint8)).save(path, compression="raw")
    content = bytearray(path.read_bytes())
    height = content.index(b"\x01\x01")  # the tag of the height is 257
    content[height + 8 : height + 12] = (0x400009).to_bytes(4, "little")
    path.write_bytes(content)
    for read in (read_image, read_size):
        with pytest.raises(UserError, match=r"p\.tif: is damaged or cut short.*its parts do not cover it"):
            read(path)


def test_a_picture_that_compresses_well_is_read(tmp_path: Path) -> None:
    """64 million pixels of one bit, in as few bytes as deflate makes of them, are no claim."""
    Image.new("1", (8192, 8192)).save(tmp_path / "p.png", optimize=True)
    assert (tmp_path / "p.png").stat().st_size < 20_000
    assert read_size(tmp_path / "p.png")[-2:] == (8192, 8192)


def test_what_is_transparent_is_composited_in_strips(tmp_path: Path) -> None:
    """The same values as all at once, behind the first strip too."""
    pixels = np.random.default_rng(0).integers(0, 256, (600, 3, 4), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "p.png")
    alpha = pixels[..., 3:].astype(int)
    wanted = (pixels[..., :3] * alpha + 127) // 255
    have = read_image(tmp_path / "p.png", channels=3)
    assert np.array_equal(np.round(have * 255).astype(int), wanted.transpose(2, 0, 1))


@pytest.mark.parametrize(("place", "value"), [(6, b"\x01"), (4, b"\xff"), (10, b"\x63\x00")])
def test_an_archive_of_another_kind_is_refused(tmp_path: Path, place: int, value: bytes) -> None:
    """Encrypted, of another version, or compressed in a way of its own: in the archive's own list and in the member."""
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00")
    content = bytearray((tmp_path / "x.npz").read_bytes())
    for start in (0, content.index(b"PK\x01\x02") + 2):
        content[start + place : start + place + len(value)] = value
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"x\.npz"):
        read_npz(tmp_path / "x.npz")


def test_a_text_of_an_unknown_encoding_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.nir"
    write_nir(path, every_primitive())
    content = path.read_bytes()
    # a datatype message of class 9 (variable length), bits: a string, padded with zeros, of encoding 0 or 1
    found = [content.find(bytes((0x19, 0x01, encoding, 0x00))) for encoding in (0, 1)]
    place = min(spot for spot in found if spot >= 0)
    path.write_bytes(content[: place + 2] + b"\x05" + content[place + 3 :])
    with pytest.raises(UserError, match=r"a\.nir"):
        read_nir(path)


@pytest.mark.parametrize(("node", "field"), [("conv", "stride"), ("pool", "stride"), ("lif", "tau")])
def test_zeros_where_something_is_divided_by_are_refused(tmp_path: Path, node: str, field: str) -> None:
    path = tmp_path / "network.nir"
    write_nir(path, every_primitive())
    with h5py.File(path, "r+") as file:
        file[f"node/nodes/{node}/{field}"][...] = 0
    with pytest.raises(UserError, match=rf"network\.nir(.|\n)*{node}"):
        read_nir(path)


def test_a_damaged_hint_is_refused_by_file_and_name(tmp_path: Path) -> None:
    graph = read_nir(GOLDEN / "nir" / "network.nir")
    graph.metadata["host"] = "7"
    write_nir(tmp_path / "network.nir", graph)
    with pytest.raises(UserError, match=r"network\.nir: metadata: its hint 'host' is refused"):
        resolve(str(tmp_path / "network.nir"))


def test_a_part_of_a_picture_that_claims_a_gigabyte_takes_no_memory(tmp_path: Path) -> None:
    """Behind the pixels Pillow reads on, in pieces as long as they say."""
    path = tmp_path / "p.png"
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(path)
    content = path.read_bytes()
    path.write_bytes(content[:-12] + (0x4E470D0A).to_bytes(4, "big") + b"IDAT" + content[-40:])
    for read in (read_image, read_size):
        with pytest.raises(UserError, match=r"p\.png: is damaged or cut short.*claims more than the file holds"):
            read(path)


DEEP = "a = " + "[" * 5000
LONG = "a = " + "9" * 5000


@pytest.mark.parametrize("text", [DEEP, LONG], ids=["deep", "long"])
@pytest.mark.parametrize("read", [load_recipe, load_profile, inspect_path, read_entry])
def test_toml_that_python_chokes_on_is_refused(tmp_path: Path, read: Callable[[Path], object], text: str) -> None:
    path = tmp_path / "x.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"x\.toml"):
        read(path)


@pytest.mark.parametrize("text", ["[" * 100000, "9" * 5000], ids=["deep", "long"])
def test_json_that_python_chokes_on_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "recipe.json").write_text('{"name": ' + text + "}" if text[0] == "9" else text)
    with pytest.raises(UserError, match=r"recipe\.json"):
        load_recipe(tmp_path / "recipe.json")
    with pytest.raises(UserError, match=r"recipe\.json"):
        inspect_path(tmp_path)


def test_a_golden_bundle_and_the_shipped_recipes_are_sound() -> None:
    """The files that fuzzing starts from are read: what is refused is the damage."""
    assert inspect_path(GOLDEN / "lava")["kind"] == "bundle"
    for path in shipped("models").glob("*/recipe.toml"):
        assert json.loads(load_recipe(path).to_json())
