"""Reading and writing pictures, against Pillow and tifffile."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from neurodeploy.errors import UserError
from neurodeploy.images import io as images_io
from neurodeploy.images.io import list_images, read_image, read_levels, read_size, write_image

RNG = np.random.RandomState(0)
SMOOTH = np.add.outer(np.linspace(0, 0.5, 23), np.linspace(0, 0.5, 31)).astype(np.float32)
EXACT = [".png", ".tif", ".tiff", ".bmp", ".webp"]


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, bits: int, colour: int, raw: bytes, extra: bytes = b"", interlace: int = 0) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlace)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    )


def png16(levels: np.ndarray, colour: int, extra: bytes = b"") -> bytes:
    """A 16-bit PNG, written independently of the program: filter 0 on every row."""
    raw = b"".join(b"\0" + row.astype(">u2").tobytes() for row in levels)
    return png(levels.shape[1], levels.shape[0], 16, colour, raw, extra)


def refused(path: Path, **options: object) -> str:
    with pytest.raises(UserError) as caught:
        read_image(path, **options)
    line = str(caught.value)
    assert "\n" not in line and path.name in line and caught.value.exit_code == 2
    return line


# What is read


@pytest.mark.parametrize("suffix", EXACT)
@pytest.mark.parametrize("channels", [1, 3])
def test_eight_bits_read_as_pillow_reads_them(tmp_path: Path, suffix: str, channels: int) -> None:
    levels = RNG.randint(0, 256, (7, 9) if channels == 1 else (7, 9, 3)).astype(np.uint8)
    path = tmp_path / f"picture{suffix}"
    Image.fromarray(levels).save(path, **({"lossless": True} if suffix == ".webp" else {}))
    image = read_image(path, channels=channels)
    expected = levels[None] if channels == 1 else levels.transpose(2, 0, 1)
    assert image.dtype == np.float32 and image.flags.c_contiguous
    np.testing.assert_array_equal(image, expected.astype(np.float32) / np.float32(255))


def test_jpeg_reads_as_pillow_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "picture.jpg"
    Image.fromarray(RNG.randint(0, 256, (16, 24, 3)).astype(np.uint8)).save(path)
    np.testing.assert_array_equal(read_levels(path), np.asarray(Image.open(path)).transpose(2, 0, 1))


def test_content_decides_and_not_the_suffix(tmp_path: Path) -> None:
    path = tmp_path / "picture.jpg"
    Image.new("L", (3, 2), 77).save(path, "PNG")
    np.testing.assert_array_equal(read_levels(path), np.full((1, 2, 3), 77))


def test_gray_is_pillows_luma_and_stays_eight_bits(tmp_path: Path) -> None:
    levels = RNG.randint(0, 256, (40, 40, 3)).astype(np.uint8)
    Image.fromarray(levels).save(tmp_path / "colour.png")
    gray = read_levels(tmp_path / "colour.png", channels=1)
    assert gray.dtype == np.uint8
    np.testing.assert_array_equal(gray[0], np.asarray(Image.fromarray(levels).convert("L")))
    exact = levels @ np.array([0.299, 0.587, 0.114])
    assert np.abs(gray[0] - exact).max() < 0.51


def test_gray_to_colour_repeats_the_channel(tmp_path: Path) -> None:
    Image.fromarray(RNG.randint(0, 256, (5, 6)).astype(np.uint8)).save(tmp_path / "gray.png")
    gray, colour = (read_image(tmp_path / "gray.png", channels=channels) for channels in (1, 3))
    np.testing.assert_array_equal(colour, np.repeat(gray, 3, axis=0))
    assert read_image(tmp_path / "gray.png").shape == (1, 5, 6)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bit_gray(tmp_path: Path, suffix: str) -> None:
    levels = RNG.randint(0, 65536, (6, 5)).astype(np.uint16)
    Image.fromarray(levels).save(tmp_path / f"g{suffix}")
    np.testing.assert_array_equal(read_levels(tmp_path / f"g{suffix}")[0], levels)
    np.testing.assert_array_equal(read_image(tmp_path / f"g{suffix}")[0], levels.astype(np.float32) / np.float32(65535))


def test_sixteen_bit_rgb_png(tmp_path: Path) -> None:
    levels = RNG.randint(0, 65536, (6, 5, 3)).astype(np.uint16)
    (tmp_path / "c.png").write_bytes(png16(levels, 2))
    np.testing.assert_array_equal(read_levels(tmp_path / "c.png"), levels.transpose(2, 0, 1))
    gray = read_levels(tmp_path / "c.png", channels=1)
    assert gray.dtype == np.uint16
    assert np.abs(gray[0] - levels @ np.array([0.299, 0.587, 0.114])).max() < 1.5


@pytest.mark.parametrize("filtering", range(5))
def test_sixteen_bit_rgb_png_with_every_row_filter(tmp_path: Path, filtering: int) -> None:
    """The bytes after the filter type are arbitrary; the PNG standard says, byte by byte, which levels they mean."""
    width, height, step = 4, 3, 6
    coded = RNG.randint(0, 256, (height, width * step))
    plain = np.zeros((height + 1, (width + 1) * step), np.int64)
    for y in range(height):
        for x in range(width * step):
            left, above, corner = plain[y + 1, x], plain[y, x + step], plain[y, x]
            distances = [abs(above - corner), abs(left - corner), abs(left + above - 2 * corner)]
            paeth = (left, above, corner)[int(np.argmin(distances))]
            guess = (0, left, above, (left + above) // 2, paeth)[filtering]
            plain[y + 1, x + step] = (coded[y, x] + guess) % 256
    raw = b"".join(bytes([filtering, *row]) for row in coded)
    (tmp_path / "f.png").write_bytes(png(width, height, 16, 2, raw))
    levels = plain[1:, step:].reshape(height, width, 3, 2)
    np.testing.assert_array_equal(
        read_levels(tmp_path / "f.png"), (levels[..., 0] * 256 + levels[..., 1]).transpose(2, 0, 1)
    )


def test_sixteen_bit_rgb_png_interlaced(tmp_path: Path) -> None:
    levels = RNG.randint(0, 65536, (9, 11, 3)).astype(np.uint16)
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    raw = b"".join(
        b"\0" + row.astype(">u2").tobytes() for y, x, dy, dx in passes for row in levels[y::dy, x::dx] if row.size
    )
    (tmp_path / "i.png").write_bytes(png(11, 9, 16, 2, raw, interlace=1))
    np.testing.assert_array_equal(read_levels(tmp_path / "i.png"), levels.transpose(2, 0, 1))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bit_tiff_of_tifffile(tmp_path: Path, order: str, compression: str | None, channels: int) -> None:
    tifffile = pytest.importorskip("tifffile")
    levels = RNG.randint(0, 65536, (10, 8) if channels == 1 else (10, 8, 3)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "t.tif", levels, byteorder=order, compression=compression, rowsperstrip=3)
    read = read_levels(tmp_path / "t.tif")
    np.testing.assert_array_equal(read, levels[None] if channels == 1 else levels.transpose(2, 0, 1))


def with_tags(file: bytes, **changes: int) -> bytes:
    """A little-endian TIFF with another directory: ``t258=16`` sets tag 258 to 16."""
    (start,) = struct.unpack_from("<I", file, 4)
    (count,) = struct.unpack_from("<H", file, start)
    entries = [struct.unpack_from("<HHII", file, start + 2 + 12 * index) for index in range(count)]
    table = {tag: (kind, number, value) for tag, kind, number, value in entries}
    table |= {int(name[1:]): (3, 1, value) for name, value in changes.items()}
    packed = b"".join(struct.pack("<HHII", tag, *table[tag]) for tag in sorted(table))
    return file[:4] + struct.pack("<I", len(file)) + file[8:] + struct.pack("<H", len(table)) + packed + bytes(4)


@pytest.mark.parametrize(
    ("compression", "predictor"),
    [("tiff_lzw", 1), ("tiff_lzw", 2), ("tiff_adobe_deflate", 1), ("tiff_adobe_deflate", 2), ("packbits", 1)],
)
def test_sixteen_bit_tiff_compressed(tmp_path: Path, compression: str, predictor: int) -> None:
    """Compression knows no sample size: the bytes are written as an 8-bit gray picture, then the tags are changed."""
    levels = RNG.randint(0, 65536, (10, 8, 3)).astype(np.uint16)
    coded = levels.copy()
    if predictor == 2:
        coded[:, 1:] -= levels[:, :-1]
    buffer = io.BytesIO()
    Image.fromarray(coded.astype("<u2").view(np.uint8).reshape(10, 48)).save(buffer, "TIFF", compression=compression)
    tags = {"t256": 8, "t258": 16, "t262": 2, "t277": 3, "t317": predictor}
    (tmp_path / "c.tif").write_bytes(with_tags(buffer.getvalue(), **tags))
    np.testing.assert_array_equal(read_levels(tmp_path / "c.tif"), levels.transpose(2, 0, 1))


def test_eight_bit_planar_tiff_is_read_and_sixteen_bit_planar_is_refused(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    levels = RNG.randint(0, 256, (3, 10, 8))
    eight, sixteen = tmp_path / "eight.tif", tmp_path / "sixteen.tif"
    tifffile.imwrite(eight, levels.astype(np.uint8), photometric="rgb", planarconfig="separate")
    tifffile.imwrite(sixteen, levels.astype(np.uint16), photometric="rgb", planarconfig="separate")
    np.testing.assert_array_equal(read_levels(eight), levels)
    assert "separate planes" in refused(sixteen)


def test_palette_and_one_bit(tmp_path: Path) -> None:
    colour = Image.fromarray(RNG.randint(0, 256, (8, 8, 3)).astype(np.uint8))
    palette = colour.quantize(16)
    palette.save(tmp_path / "p.png")
    np.testing.assert_array_equal(
        read_levels(tmp_path / "p.png"), np.asarray(palette.convert("RGB")).transpose(2, 0, 1)
    )
    bits = RNG.rand(5, 9) > 0.5
    for name in ("b.png", "b.tif", "b.bmp"):
        Image.fromarray(bits).save(tmp_path / name)
        np.testing.assert_array_equal(read_levels(tmp_path / name, channels=1)[0], bits * 255)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_opaque_alpha_is_dropped_and_other_alpha_is_composited_on_black(tmp_path: Path, suffix: str) -> None:
    levels = RNG.randint(0, 256, (6, 7, 4)).astype(np.uint8)
    levels[0, 0, 3], levels[0, 1, 3] = 0, 255
    path = tmp_path / f"a{suffix}"
    options = {"lossless": True, "exact": True} if suffix == ".webp" else {}
    Image.fromarray(levels, "RGBA").save(path, **options)
    expected = np.floor(levels[..., :3].astype(int) * levels[..., 3:] / 255 + 0.5).transpose(2, 0, 1)
    np.testing.assert_array_equal(read_levels(path), expected)
    levels[..., 3] = 255
    Image.fromarray(levels, "RGBA").save(path, **options)
    np.testing.assert_array_equal(read_levels(path), levels[..., :3].transpose(2, 0, 1))


def test_other_kinds_of_transparency(tmp_path: Path) -> None:
    gray = np.array([[10, 20], [30, 40]], np.uint8)
    Image.fromarray(gray).save(tmp_path / "key.png", transparency=20)
    np.testing.assert_array_equal(read_levels(tmp_path / "key.png"), [[[10, 0], [30, 40]]])
    Image.fromarray(np.dstack([gray, gray * 0 + 51]), "LA").save(tmp_path / "la.png")
    np.testing.assert_array_equal(read_levels(tmp_path / "la.png"), [[[2, 4], [6, 8]]])
    palette = Image.fromarray(gray % 2, "P")
    palette.putpalette([9, 8, 7, 6, 5, 4])
    palette.save(tmp_path / "p.png", transparency=0)
    assert read_levels(tmp_path / "p.png").max() == 0


def test_sixteen_bit_transparency(tmp_path: Path) -> None:
    rgba = RNG.randint(0, 65536, (4, 5, 4)).astype(np.uint16)
    (tmp_path / "rgba.png").write_bytes(png16(rgba, 6))
    expected = np.floor(rgba[..., :3].astype(np.int64) * rgba[..., 3:] / 65535 + 0.5)
    np.testing.assert_array_equal(read_levels(tmp_path / "rgba.png"), expected.transpose(2, 0, 1))
    grays = RNG.randint(0, 65536, (4, 5, 2)).astype(np.uint16)
    (tmp_path / "la.png").write_bytes(png16(grays, 4))
    expected = np.floor(grays[..., 0].astype(np.int64) * grays[..., 1] / 65535 + 0.5)
    np.testing.assert_array_equal(read_levels(tmp_path / "la.png"), expected[None])
    colour = np.array([[[1000, 2000, 3000], [1000, 2000, 3001]]], np.uint16)
    (tmp_path / "key.png").write_bytes(png16(colour, 2, chunk(b"tRNS", struct.pack(">3H", 1000, 2000, 3000))))
    assert read_levels(tmp_path / "key.png")[:, 0].T.tolist() == [[0, 0, 0], [1000, 2000, 3001]]
    gray = np.array([[[500], [501]]], np.uint16)
    (tmp_path / "key.png").write_bytes(png16(gray, 0, chunk(b"tRNS", struct.pack(">H", 501))))
    assert read_levels(tmp_path / "key.png").tolist() == [[[500, 0]]]


def test_associated_alpha_of_a_sixteen_bit_tiff_is_on_black_already(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    levels = RNG.randint(0, 65536, (4, 5, 4)).astype(np.uint16)
    levels[..., :3] = np.minimum(levels[..., :3], levels[..., 3:])
    tifffile.imwrite(tmp_path / "a.tif", levels, photometric="rgb", extrasamples=["assocalpha"])
    np.testing.assert_array_equal(read_levels(tmp_path / "a.tif"), levels[..., :3].transpose(2, 0, 1))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation(tmp_path: Path, suffix: str, orientation: int) -> None:
    picture = Image.fromarray(np.kron(RNG.randint(0, 256, (2, 3, 3)), np.ones((8, 8, 1))).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"turned{suffix}"
    picture.save(path, exif=exif.tobytes(), **({"lossless": True} if suffix == ".webp" else {}))
    tagged = Image.open(path)
    tagged.load()
    expected = np.asarray(ImageOps.exif_transpose(tagged).convert("RGB"))
    assert expected.shape[:2] == ((24, 16) if orientation >= 5 else (16, 24))
    np.testing.assert_array_equal(read_levels(path), expected.transpose(2, 0, 1))
    assert read_size(path) == expected.shape[:2]


@pytest.mark.parametrize("orientation", [3, 6])
def test_exif_rotation_of_sixteen_bits(tmp_path: Path, orientation: int) -> None:
    levels = RNG.randint(0, 65536, (4, 6, 3)).astype(np.uint16)
    expected = np.rot90(levels, 2 if orientation == 3 else -1).transpose(2, 0, 1)
    exif = b"II*\0\x08\0\0\0\x01\0" + struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0) + b"\0\0\0\0"
    (tmp_path / "t.png").write_bytes(png16(levels, 2, chunk(b"eXIf", exif)))
    np.testing.assert_array_equal(read_levels(tmp_path / "t.png"), expected)
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "t.tif", levels, photometric="rgb", extratags=[(0x0112, 3, 1, orientation, True)])
    np.testing.assert_array_equal(read_levels(tmp_path / "t.tif"), expected)


def test_a_phone_picture_with_a_second_picture_is_its_first(tmp_path: Path) -> None:
    first, second = (Image.fromarray(RNG.randint(0, 256, (16, 16, 3)).astype(np.uint8)) for _ in range(2))
    first.save(tmp_path / "phone.jpg", "MPO", save_all=True, append_images=[second])
    expected = np.asarray(Image.open(tmp_path / "phone.jpg")).transpose(2, 0, 1)
    np.testing.assert_array_equal(read_levels(tmp_path / "phone.jpg"), expected)


# What is refused


def test_missing_folder_empty_and_special_files(tmp_path: Path) -> None:
    assert "no such file" in refused(tmp_path / "none.png")
    assert "is a folder" in refused(tmp_path)
    (tmp_path / "empty.png").write_bytes(b"")
    assert "is empty" in refused(tmp_path / "empty.png")
    os.mkfifo(tmp_path / "pipe.png")
    assert "not a regular file" in refused(tmp_path / "pipe.png")
    (tmp_path / "dangling.png").symlink_to(tmp_path / "nowhere.png")
    assert "no such file" in refused(tmp_path / "dangling.png")
    with pytest.raises(UserError, match=r"no such file|cannot be read"):
        read_image("nul\0byte.png")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file(tmp_path: Path) -> None:
    Image.new("L", (2, 2)).save(tmp_path / "secret.png")
    (tmp_path / "secret.png").chmod(0)
    assert "Permission denied" in refused(tmp_path / "secret.png")


@pytest.mark.parametrize(
    ("head", "word"),
    [
        (b"just some text", "not a picture"),
        (b"GIF89a" + bytes(40), "a GIF"),
        (b"%PDF-1.7", "a PDF"),
        (b"\0\0\0\x18ftypheic", "HEIC"),
        (b"PK\x03\x04rest", "zip"),
        (b"\x93NUMPY\x01\0", "NumPy"),
        (b"P5\n2 2\n255\n....", "PNM"),
        (b"<svg xmlns", "drawing"),
    ],
)
def test_other_files_are_named(tmp_path: Path, head: bytes, word: str) -> None:
    (tmp_path / "x.png").write_bytes(head)
    line = refused(tmp_path / "x.png")
    assert word in line and "PNG, JPEG" in line


def test_pixel_layouts_that_are_not_supported(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(
        tmp_path / "bands.tif", np.zeros((4, 4, 2), np.uint16), photometric="minisblack", planarconfig="contig"
    )
    assert "is a TIFF file whose header is damaged or whose pixel layout" in refused(tmp_path / "bands.tif")
    (tmp_path / "head.png").write_bytes(b"\x89PNG\r\n and nothing else")
    assert "is a PNG file" in refused(tmp_path / "head.png")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp", ".webp"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_truncated_files(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"cut{suffix}"
    Image.fromarray(RNG.randint(0, 256, (64, 64, 3)).astype(np.uint8)).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    refused(path)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_truncated_sixteen_bits(tmp_path: Path, share: float) -> None:
    image = RNG.rand(3, 40, 40).astype(np.float32)
    for name in ("cut.png", "cut.tif"):
        write_image(tmp_path / name, image, bits=16)
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[: int(len(data) * share)])
        refused(tmp_path / name)


def test_kinds_that_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    Image.new("CMYK", (4, 4)).save(path)
    assert "CMYK" in refused(path)
    Image.new("CMYK", (8, 8)).save(tmp_path / "x.jpg")
    assert "CMYK" in refused(tmp_path / "x.jpg")
    Image.new("F", (4, 4)).save(path)
    assert "floating-point" in refused(path)
    Image.new("I", (4, 4)).save(path)
    assert "32-bit" in refused(path)
    Image.new("LAB", (4, 4)).save(path)
    assert "Lab" in refused(path)


def test_animations_and_pages_are_refused(tmp_path: Path) -> None:
    frames = [Image.fromarray(RNG.randint(0, 256, (8, 8, 3)).astype(np.uint8)) for _ in range(3)]
    for name, word in (("a.png", "animation"), ("a.webp", "animation"), ("a.tif", "several pages")):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        line = refused(tmp_path / name)
        assert word in line and "3 frames" in line


def test_size_is_refused_from_the_header(tmp_path: Path) -> None:
    """Headers of 100000 x 100000 without any pixels: nothing may be allocated, nothing decoded."""
    (tmp_path / "bomb.png").write_bytes(png(100_000, 100_000, 8, 2, b""))
    (tmp_path / "bomb.bmp").write_bytes(
        b"BM"
        + struct.pack("<IHHI", 54, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, 100_000, 100_000, 1, 24, 0, 0, 0, 0, 0, 0)
    )
    for name in ("bomb.png", "bomb.bmp"):
        line = refused(tmp_path / name)
        assert "too large" in line and "10000000000" in line.replace(" ", "")
        with pytest.raises(UserError, match="too large"):
            read_size(tmp_path / name)
    (tmp_path / "big.png").write_bytes(png(10_000, 14_000, 8, 2, b""))
    assert "140000000 pixels" in refused(tmp_path / "big.png")


def test_limit_of_pixels_is_inclusive(tmp_path: Path) -> None:
    Image.new("L", (10, 10)).save(tmp_path / "ten.png")
    assert read_image(tmp_path / "ten.png", max_pixels=100).shape == (1, 10, 10)
    assert "limit 99 pixels" in refused(tmp_path / "ten.png", max_pixels=99)


def test_huge_files_are_refused_before_they_are_opened(tmp_path: Path) -> None:
    path = tmp_path / "sparse.png"
    with path.open("wb") as file:
        file.truncate(images_io.MAX_FILE_BYTES + 1)
    assert "too large" in refused(path)


def test_compressed_text_bomb(tmp_path: Path) -> None:
    text = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(100_000_000)))
    (tmp_path / "text.png").write_bytes(png(1, 1, 8, 0, b"\0\0", extra=text))
    refused(tmp_path / "text.png")


def test_wrong_number_of_channels(tmp_path: Path) -> None:
    Image.new("L", (2, 2)).save(tmp_path / "g.png")
    with pytest.raises(UserError, match="channels"):
        read_image(tmp_path / "g.png", channels=4)


def seeds() -> list[bytes]:
    colour = Image.fromarray(RNG.randint(0, 256, (12, 12, 3)).astype(np.uint8))
    files = []
    for form in ("PNG", "JPEG", "TIFF", "BMP", "WEBP"):
        buffer = io.BytesIO()
        colour.save(buffer, form)
        files.append(buffer.getvalue())
    buffer = io.BytesIO()
    colour.save(buffer, "TIFF", compression="tiff_lzw")
    files.append(buffer.getvalue())
    files.append(png16(RNG.randint(0, 65536, (6, 6, 3)).astype(np.uint16), 2))
    return files


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files_give_a_picture_or_one_clear_line(tmp_path: Path, data: st.DataObject) -> None:
    file = bytearray(data.draw(st.sampled_from(SEEDS)))
    for _ in range(data.draw(st.integers(1, 6))):
        position = data.draw(st.integers(0, len(file) - 1) | st.integers(0, 64))
        file[position] = data.draw(st.integers(0, 255) | st.just(0) | st.just(255))
    path = tmp_path / "fuzz.bin"
    path.write_bytes(file)
    try:
        image = read_image(path, max_pixels=2**20)
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert image.ndim == 3 and image.shape[0] in (1, 3) and image.min() >= 0 and image.max() <= 1
        assert read_size(path) == image.shape[1:]


SEEDS = seeds()


# What is written


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("suffix", "bits"), [(suffix, 8) for suffix in EXACT] + [(".png", 16), (".tiff", 16)])
def test_write_and_read_back(tmp_path: Path, channels: int, suffix: str, bits: int) -> None:
    image = RNG.rand(channels, 13, 17).astype(np.float32) * 1.4 - 0.2
    path = tmp_path / "deep" / f"out{suffix}"
    write_image(path, image, bits=bits)
    top = 2**bits - 1
    expected = np.rint(np.clip(image.astype(np.float64), 0, 1) * top)
    np.testing.assert_array_equal(read_levels(path, channels=channels), expected)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_sixteen_bit_rgb_is_read_by_others(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    image = RNG.rand(3, 21, 10)
    levels = np.rint(image * 65535).transpose(1, 2, 0)
    write_image(tmp_path / "o.tif", image, bits=16)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "o.tif"), levels)
    write_image(tmp_path / "o.png", image, bits=16)
    with Image.open(tmp_path / "o.png") as high:
        assert high.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(high), levels.astype(np.uint16) >> 8)


def test_smallest_sixteen_bit_files_to_the_byte(tmp_path: Path) -> None:
    image = np.array([1, 2, 65535], np.float64).reshape(3, 1, 1) / 65535
    write_image(tmp_path / "o.png", image, bits=16)
    data = (tmp_path / "o.png").read_bytes()
    assert data[:33] == bytes.fromhex("89504e470d0a1a0a0000000d4948445200000001000000011002000000") + data[29:33]
    assert zlib.decompress(data[41:-16]) == bytes.fromhex("04000100 02ffff")
    write_image(tmp_path / "o.tif", image, bits=16)
    data = (tmp_path / "o.tif").read_bytes()
    assert data[:8] == b"II*\0\x08\0\0\0" and data[-6:] == bytes.fromhex("01000200ffff")


def test_jpeg_is_close(tmp_path: Path) -> None:
    image = np.stack([SMOOTH, SMOOTH[::-1], SMOOTH[:, ::-1]])
    write_image(tmp_path / "o.jpg", image)
    assert np.abs(read_image(tmp_path / "o.jpg") - image).max() < 0.03


@pytest.mark.parametrize("suffix", [".jpg", ".bmp", ".webp"])
def test_formats_that_cannot_hold_sixteen_bits(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(UserError, match=r"16 bits.*\.png or \.tiff"):
        write_image(tmp_path / f"o{suffix}", SMOOTH[None], bits=16)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["o.gif", "o", "o.png.bak"])
def test_unknown_suffixes(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="suffix"):
        write_image(tmp_path / name, SMOOTH[None])


def test_sides_that_are_too_long(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="limit 16383"):
        write_image(tmp_path / "o.webp", np.zeros((1, 1, 16384), np.float32))
    with pytest.raises(UserError, match="limit 65500"):
        write_image(tmp_path / "o.jpg", np.zeros((1, 65501, 1), np.float32))


@pytest.mark.parametrize(
    ("image", "word"),
    [
        (np.zeros((2, 3)), "shape"),
        (np.zeros((2, 3, 3)), "shape"),
        (np.zeros((1, 0, 3)), "shape"),
        (np.zeros((1, 3, 3), np.uint8), "floating"),
        (np.full((1, 3, 3), np.nan), "not finite"),
        (np.full((1, 3, 3), np.inf), "not finite"),
    ],
)
def test_arrays_that_are_no_pictures(tmp_path: Path, image: np.ndarray, word: str) -> None:
    with pytest.raises(UserError, match=word):
        write_image(tmp_path / "o.png", image)
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten_without_force(tmp_path: Path) -> None:
    path = tmp_path / "o.png"
    write_image(path, SMOOTH[None])
    with pytest.raises(UserError, match="--force"):
        write_image(path, SMOOTH[None] * 0)
    assert read_image(path).max() > 0.9
    write_image(path, SMOOTH[None] * 0, force=True)
    assert read_image(path).max() == 0


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    channels=st.sampled_from([1, 3]),
    bits=st.sampled_from([8, 16]),
    suffix=st.sampled_from([".png", ".TIF"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_levels_survive_the_round_trip(
    tmp_path: Path, height: int, width: int, channels: int, bits: int, suffix: str, seed: int
) -> None:
    rng = np.random.RandomState(seed)
    levels = rng.randint(0, 2**bits, (channels, height, width))
    levels[rng.rand(*levels.shape) < 0.3] = 2**bits - 1
    write_image(tmp_path / f"o{suffix}", (levels / (2**bits - 1)).astype(np.float32), bits=bits, force=True)
    np.testing.assert_array_equal(read_levels(tmp_path / f"o{suffix}"), levels)
    assert read_size(tmp_path / f"o{suffix}") == (height, width)


# Folders


def test_list_images(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", "c.webp", ".hidden.png", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "folder.png").mkdir()
    assert [path.name for path in list_images(tmp_path)] == ["a.jpg", "b.PNG", "c.webp"]


def test_folders_without_pictures(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        list_images(tmp_path / "none")
    with pytest.raises(UserError, match="an empty folder"):
        list_images(tmp_path)
    (tmp_path / "x.txt").write_text("x")
    with pytest.raises(UserError, match="1 other entries"):
        list_images(tmp_path)
    with pytest.raises(UserError, match="is a file"):
        list_images(tmp_path / "x.txt")
