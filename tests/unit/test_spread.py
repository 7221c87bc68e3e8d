"""Pictures and tiles at once: the same values whatever runs where, within a bound of memory, after interruptions."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from neurodeploy.errors import UserError
from neurodeploy.images.io import read_image, write_image
from neurodeploy.images.sequences import find_pictures
from neurodeploy.model.base import Facts
from neurodeploy.model.integer import IntegerModel
from neurodeploy.report import pictures
from neurodeploy.report.pictures import How, simulate
from neurodeploy.report.reproduce import network_sha256
from neurodeploy.report.resume import RECORD
from neurodeploy.simulate import restore as room
from neurodeploy.simulate import spread
from neurodeploy.simulate.restore import core_side, restore
from neurodeploy.simulate.spread import Cores, Memory, SpikeTally, restore_spread
from tests.kernel_nets import student_like

NET = student_like(steps=2, levels=1, width=8, depth=2)


def model(net: Any = NET) -> IntegerModel:
    return IntegerModel(net=net, facts=Facts("model"))


def noisy(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((1, height, width), np.float32)


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("tile", [None, 16, 50])
def test_spread_tiles_give_the_very_numbers_and_spikes_of_one_go(
    backend: str, tile: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spread, "TILE", 12)
    image = noisy(61, 90)
    expected = SpikeTally()
    want = restore(NET, image, backend=backend, observer=expected)
    pool, have, ticks = Cores(3), SpikeTally(), []
    found = restore_spread(NET, image, pool, tile=tile, backend=backend, tally=have, progress=lambda: ticks.append(1))
    pool.close()
    np.testing.assert_array_equal(found, want)
    assert sorted(have.rows(), key=str) == sorted(expected.rows(), key=str)
    assert len(ticks) > 1


def test_tiles_share_the_memory_and_are_of_about_one_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MEMORY", 100 * 1000 * 1000)
    assert core_side(NET, (1000, 1000), needed=100) is None
    radius = room.receptive_radius(NET)
    for at_once in (2, 4):
        side = core_side(NET, (1000, 1000), needed=100, at_once=at_once)
        assert side is not None and (side + 2 * radius) ** 2 * 100 * at_once <= room.MEMORY * 1.01
    assert core_side(NET, (1000, 300), needed=1, largest=400) == 334
    assert core_side(NET, (400, 300), needed=1, largest=400) is None


def test_what_fails_in_a_tile_is_told_and_the_rest_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(net: Any, codes: Any, *, observer: Any = None) -> Any:
        raise UserError("out of order")

    monkeypatch.setitem(room.BACKENDS, "broken", broken)
    pool = Cores(2)
    with pytest.raises(UserError, match="out of order"):
        restore_spread(NET, noisy(60, 60), pool, tile=8, backend="broken")
    pool.close()
    with pytest.raises(UserError, match="unknown back end"):
        restore_spread(NET, noisy(8, 8), pool, backend="nothing")


def test_memory_makes_wait_and_lets_a_giant_be_alone() -> None:
    memory, order = Memory(100), []
    memory.take(60)

    def other(name: str, needed: int) -> None:
        memory.take(needed)
        order.append(name)
        memory.give(needed)

    threads = [threading.Thread(target=other, args=("small", 50))]
    threads[0].start()
    time.sleep(0.1)
    assert order == []
    memory.give(60)
    threads[0].join(10)
    assert order == ["small"]
    other("giant", 1000)
    assert order == ["small", "giant"]


def frames(folder: Path, count: int, size: tuple[int, int] = (30, 40)) -> list[np.ndarray]:
    folder.mkdir()
    for number in range(count):
        write_image(folder / f"f{number:02d}.png", noisy(*size, seed=number))
    return [read_image(path) for path in sorted(folder.iterdir())]


def levels(restored: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(restored[0], 0, 1) * 255).astype(np.uint8)


def test_a_folder_is_restored_within_a_bound_of_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = frames(tmp_path / "in", 9)
    live, most, lock = [0], [0], threading.Lock()
    whole = pictures.restore_spread

    def counted(*args: Any, **more: Any) -> np.ndarray:
        with lock:
            live[0] += 1
            most[0] = max(most[0], live[0])
        time.sleep(0.02)
        try:
            return whole(*args, **more)
        finally:
            with lock:
                live[0] -= 1

    monkeypatch.setattr(pictures, "restore_spread", counted)
    needed = spread.picture_bytes(NET, (30, 40))
    told: list[tuple[int, int, str]] = []
    how = How(jobs=6, memory=3 * needed)
    data = simulate(model(), [tmp_path / "in"], tmp_path / "out", how=how, progress=lambda *all: told.append(all))
    assert 2 <= most[0] <= 3
    assert [row["input"] for row in data["images"]] == [str(tmp_path / "in" / f"f{n:02d}.png") for n in range(9)]
    assert [done for done, _, _ in told] == list(range(1, 10)) and {total for _, total, _ in told} == {9}
    for number, image in enumerate(images):
        with Image.open(tmp_path / "out" / f"f{number:02d}.png") as picture:
            np.testing.assert_array_equal(np.asarray(picture), levels(restore(NET, image)))


def test_a_picture_that_fails_ends_the_run_and_leaves_nothing(tmp_path: Path) -> None:
    frames(tmp_path / "in", 4)
    (tmp_path / "in" / "f02.png").write_bytes((tmp_path / "in" / "f02.png").read_bytes()[:-60])
    with pytest.raises(UserError, match=r"f02\.png"):
        simulate(model(), [tmp_path / "in"], tmp_path / "out", how=How(jobs=2))
    assert not (tmp_path / "out").exists() and [path.name for path in tmp_path.iterdir()] == ["in"]


def test_a_run_that_was_interrupted_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames(tmp_path / "in", 6)
    out = tmp_path / "out"
    whole, left = pictures.restore_spread, [3]

    def interrupted(*args: Any, **more: Any) -> np.ndarray:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return whole(*args, **more)

    monkeypatch.setattr(pictures, "restore_spread", interrupted)
    with pytest.raises(KeyboardInterrupt):
        simulate(model(), [tmp_path / "in"], out, how=How(jobs=1), resume=True)
    monkeypatch.undo()
    there = sorted(path.name for path in out.glob("*.png"))
    assert there == ["f00.png", "f01.png", "f02.png"]
    before = {name: (out / name).stat().st_mtime_ns for name in there}
    # the line of the last one was cut short, and the source of the first has changed since
    record = out / RECORD
    record.write_text(record.read_text()[:-20])
    write_image(tmp_path / "in" / "f00.png", noisy(30, 40, seed=77), force=True)
    data = simulate(model(), [tmp_path / "in"], out, resume=True)
    assert data["resumed"] == 1 and [row["resumed"] for row in data["images"]] == [False, True, *[False] * 4]
    assert (out / "f01.png").stat().st_mtime_ns == before["f01.png"]
    fresh = simulate(model(), [tmp_path / "in"], tmp_path / "fresh")
    for row, other in zip(data["images"], fresh["images"], strict=True):
        assert row["layers"] == other["layers"]
        assert Path(row["output"]).read_bytes() == Path(other["output"]).read_bytes()
    assert simulate(model(), [tmp_path / "in"], out, resume=True)["resumed"] == 6


def test_pictures_of_another_network_are_not_gone_on_with(tmp_path: Path) -> None:
    frames(tmp_path / "in", 1)
    simulate(model(), [tmp_path / "in"], tmp_path / "out", resume=True)
    other = student_like(steps=1, levels=1, width=8, depth=2)
    assert network_sha256(other) != network_sha256(NET)
    with pytest.raises(UserError, match="another network has restored"):
        simulate(model(other), [tmp_path / "in"], tmp_path / "out", resume=True)
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "diary.txt").write_text("mine")
    with pytest.raises(UserError, match="no record of a run"):
        simulate(model(), [tmp_path / "in"], tmp_path / "strange", resume=True)
    for first in ("", "not json\n", '{"network": 1}\n', "[]\n"):
        (tmp_path / "out" / RECORD).write_text(first)
        with pytest.raises(UserError, match="another network"):
            simulate(model(), [tmp_path / "in"], tmp_path / "out", resume=True)


def test_a_trace_and_a_resumed_run_do_not_go_together(tmp_path: Path) -> None:
    frames(tmp_path / "in", 1)
    with pytest.raises(UserError, match="--resume"):
        simulate(model(), [tmp_path / "in"], tmp_path / "out", trace=tmp_path / "t.npz", resume=True)


@pytest.mark.parametrize("suffix", ["tif", "gif", "png", "webp"])
def test_the_pages_of_a_file_are_pictures_of_their_own(tmp_path: Path, suffix: str) -> None:
    rng = np.random.default_rng(4)
    pages = [Image.fromarray(rng.integers(0, 256, (24, 32), np.uint8)) for _ in range(4)]
    path = tmp_path / f"movie.{suffix}"
    more = {"lossless": True} if suffix == "webp" else {}
    pages[0].save(path, save_all=True, append_images=pages[1:], **more)
    found = find_pictures([path])
    assert [picture.label for picture in found] == [f"{path}[{page}]" for page in range(1, 5)]
    assert [picture.stem for picture in found] == [f"movie-{page:05d}" for page in range(1, 5)]
    assert {picture.size for picture in found} == {(24, 32)}
    for want, picture in zip(pages, found, strict=True):
        np.testing.assert_array_equal(picture.read(1)[0], np.asarray(want, np.float32) / np.float32(255))
        assert picture.read(3).shape == (3, 24, 32)
    data = simulate(model(), [path], tmp_path / "out")
    assert [Path(row["output"]).name for row in data["images"]] == [f"movie-{page:05d}.png" for page in range(1, 5)]
    for picture, row in zip(found, data["images"], strict=True):
        with Image.open(row["output"]) as restored:
            np.testing.assert_array_equal(np.asarray(restored), levels(restore(NET, picture.read(1))))


def test_pages_of_sixteen_bits(tmp_path: Path) -> None:
    pages = [Image.fromarray(np.full((8, 8), value, np.uint16)) for value in (0, 1000, 65535)]
    pages[0].save(tmp_path / "deep.tif", save_all=True, append_images=pages[1:])
    found = [picture.read(1) for picture in find_pictures([tmp_path / "deep.tif"])]
    assert [float(page.max()) for page in found] == [0.0, pytest.approx(1000 / 65535), 1.0]


def test_files_folders_and_pages_go_together_but_not_under_one_name(tmp_path: Path) -> None:
    frames(tmp_path / "in", 2)
    write_image(tmp_path / "f00.png", noisy(8, 8))
    assert len(find_pictures([tmp_path / "in", tmp_path / "f00.png"])) == 3
    with pytest.raises(UserError, match="two pictures would be written to one name"):
        simulate(model(), [tmp_path / "in", tmp_path / "f00.png"], tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no pictures"):
        find_pictures([tmp_path / "empty"])
    with pytest.raises(UserError, match="no such file"):
        find_pictures([tmp_path / "nothing.png"])


class _Elsewhere:
    """A pool that is not local: what is given to it goes through JSON-like copies, and comes back late."""

    local, workers = False, 2

    def __init__(self) -> None:
        self.kinds: set[str] = set()

    def submit(self, function: Any, net: Any, *arguments: Any) -> Future[Any]:
        self.kinds.add(str(arguments[0].dtype))
        future: Future[Any] = Future()
        threading.Timer(0.01, lambda: future.set_result(function(net, *arguments))).start()
        return future


def test_a_pool_elsewhere_gets_narrow_codes_and_gives_the_same(tmp_path: Path) -> None:
    images = frames(tmp_path / "in", 3, (50, 70))
    pool = _Elsewhere()
    data = simulate(model(), [tmp_path / "in"], tmp_path / "out", how=How(tile=24, pool=pool))
    assert pool.kinds == {"int32"}
    here = simulate(model(), [tmp_path / "in"], tmp_path / "here")
    assert [row["layers"] for row in data["images"]] == [row["layers"] for row in here["images"]]
    for number, image in enumerate(images):
        with Image.open(tmp_path / "out" / f"f{number:02d}.png") as picture:
            np.testing.assert_array_equal(np.asarray(picture), levels(restore(NET, image)))
    assert json.dumps(data)
