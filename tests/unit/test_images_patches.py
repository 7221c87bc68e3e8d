"""Random patches: what is cut, how it is degraded, and that the sampler is a pure function of seed and step."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurodeploy.errors import FindingsError, UserError
from neurodeploy.images.datasets import DegradedFolder, PairedFolders
from neurodeploy.images.degradation_base import DegradationBase
from neurodeploy.images.degradations import Gaussian, parse_degradation
from neurodeploy.images.io import write_image
from neurodeploy.images.patches import PatchSampler
from tests.pictures import save, save_three

GAUSSIAN = Gaussian(sigma=25)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_three(tmp_path / "set")


@pytest.mark.parametrize("spec", ["gaussian:25", "gaussian:5-55", "rain", "haze", "motion", "defocus:2", "jpeg:40"])
@pytest.mark.parametrize("channels", [1, 3])
def test_batches(folder: Path, spec: str, channels: int) -> None:
    sampler = PatchSampler(folder, patch=16, batch=5, seed=7, degradation=parse_degradation(spec), channels=channels)
    batch = sampler.batch(3)
    assert batch.degraded.shape == batch.clean.shape == (5, channels, 16, 16)
    assert batch.degraded.dtype == batch.clean.dtype == batch.noise_level.dtype == np.float32
    assert batch.noise_level.shape == (5,) and batch.clean.min() >= 0 and batch.clean.max() <= 1
    assert (batch.noise_level > 0).all() == spec.startswith("gaussian")


def test_a_batch_depends_on_seed_and_step_alone(folder: Path) -> None:
    def sampler(seed: int) -> PatchSampler:
        return PatchSampler(DegradedFolder(folder, None, 3), patch=8, batch=4, seed=seed, degradation=GAUSSIAN)

    first = sampler(1)
    forwards = [first.batch(step).degraded for step in range(5)]
    second = sampler(1)
    for step in (4, 2, 0, 3, 1):
        np.testing.assert_array_equal(second.batch(step).degraded, forwards[step])
    assert np.abs(sampler(2).batch(0).degraded - forwards[0]).max() > 0.01
    assert np.abs(forwards[1] - forwards[0]).max() > 0.01


def test_noise_of_patches(folder: Path) -> None:
    sampler = PatchSampler(folder, patch=20, batch=400, seed=0, degradation=Gaussian(sigma=(10, 50)), channels=1)
    batch = sampler.batch(0)
    spread = (batch.degraded - batch.clean).std(axis=(1, 2, 3))
    np.testing.assert_allclose(spread, batch.noise_level, rtol=0.2)
    assert batch.noise_level.min() < 15 / 255 and batch.noise_level.max() > 45 / 255
    assert np.abs((batch.degraded - batch.clean).mean()) < 0.002


def test_every_patch_is_cut_from_a_picture_in_one_of_eight_ways(folder: Path) -> None:
    data = DegradedFolder(folder, None, 1)
    where = {}
    for index in range(3):
        picture = data.levels(index)[0]
        for top in range(24 - 8 + 1):
            for left in range(30 - 8 + 1):
                cut = picture[top : top + 8, left : left + 8]
                for turn in range(8):
                    view = np.rot90(cut, turn % 4)
                    where[(view.T if turn >= 4 else view).tobytes()] = (index, top, left, turn)
    batch = PatchSampler(data, patch=8, batch=600, seed=0, degradation=GAUSSIAN).batch(0)
    found = [where[np.rint(patch * 255).astype(np.uint8).tobytes()] for patch in batch.clean[:, 0]]
    index, top, left, turn = (np.array(values) for values in zip(*found, strict=True))
    assert np.bincount(index).min() > 150 and np.bincount(turn, minlength=8).min() > 40
    assert {top.min(), left.min()} == {0} and top.max() == 16 and left.max() == 22


def test_degraded_patches_are_parts_of_degraded_pictures(tmp_path: Path) -> None:
    """Blur and JPEG look beyond the patch: it has to be as if the whole, turned picture had been degraded."""
    save(tmp_path / "one.png", height=50, width=64, seed=4)
    for spec in ("defocus:2.5", "jpeg:30"):
        degradation = parse_degradation(spec)
        data = DegradedFolder(tmp_path, None, 3)
        batch = PatchSampler(data, patch=12, batch=40, seed=0, degradation=degradation).batch(0)
        clean = data[0].degraded
        wholes = []
        for turn in range(8):
            view = np.rot90(clean, turn % 4, axes=(1, 2))
            view = np.ascontiguousarray(view.swapaxes(1, 2) if turn >= 4 else view)
            wholes.append((view, degradation.apply(view, np.random.RandomState(0))[0]))
        for patch, degraded in zip(batch.clean, batch.degraded, strict=True):
            assert any(
                np.abs(whole[:, top : top + 12, left : left + 12] - degraded).max() < 1e-6
                for view, whole in wholes
                for top, left in zip(*np.nonzero(corners(view, patch)), strict=True)
            )


def corners(view: np.ndarray, patch: np.ndarray) -> np.ndarray:
    """Where the patch's first row begins in the picture."""
    rows = np.lib.stride_tricks.sliding_window_view(view[:, : view.shape[1] - 11], 12, axis=2)
    return (np.abs(rows - patch[:, 0][:, None, None]) < 1e-6).all(axis=(0, 3))


def test_paired_patches_stay_aligned(tmp_path: Path) -> None:
    for index in range(2):
        image = np.random.RandomState(index).rand(3, 30, 20).astype(np.float32) / 2
        write_image(tmp_path / "gt" / f"{index}.png", image, bits=16)
        write_image(tmp_path / "lq" / f"{index}.png", image + 0.25, bits=16)
    sampler = PatchSampler(PairedFolders(tmp_path / "lq", tmp_path / "gt", 3), patch=8, batch=50, seed=3)
    batch = sampler.batch(0)
    np.testing.assert_allclose(batch.degraded, batch.clean + 0.25, atol=2 / 65535)
    assert (batch.noise_level == 0).all() and sampler.degradation is None


def test_pictures_smaller_than_a_patch_are_all_named(folder: Path) -> None:
    save(folder / "low.png", height=15)
    save(folder / "slim.png", width=15)
    with pytest.raises(FindingsError) as caught:
        PatchSampler(folder, patch=16, batch=1, seed=0, degradation=GAUSSIAN, channels=1)
    assert [finding.node for finding in caught.value.findings] == ["low.png", "slim.png"]
    assert caught.value.exit_code == 2 and "15 x 30" in str(caught.value)


def test_a_patch_may_be_as_large_as_the_picture(tmp_path: Path) -> None:
    save(tmp_path / "one.png", height=16, width=16)
    batch = PatchSampler(
        tmp_path, patch=16, batch=3, seed=0, degradation=parse_degradation("defocus:3"), channels=3
    ).batch(0)
    assert batch.degraded.shape == (3, 3, 16, 16)


def test_sampler_with_wrong_arguments(folder: Path, tmp_path: Path) -> None:
    options = {"patch": 8, "batch": 2, "seed": 0, "degradation": GAUSSIAN, "channels": 1}
    for change, word in (
        ({"patch": 0}, "patch: has to be positive"),
        ({"batch": -1}, "batch: has to be positive"),
        ({"seed": 2**32}, "seed: is outside"),
        ({"channels": 2}, "1 channel"),
        ({"degradation": None}, "need a degradation"),
        ({"contrast": 0.41}, "contrast: is outside"),
        ({"max_bytes": 1000}, "do not fit into memory"),
    ):
        with pytest.raises(UserError, match=word):
            PatchSampler(folder, **(options | change))
    with pytest.raises(UserError, match="differs from the channels"):
        PatchSampler(DegradedFolder(folder, None, 3), **options)
    with pytest.raises(UserError, match="step: is outside"):
        PatchSampler(folder, **options).batch(-1)
    save(tmp_path / "lq" / "a.png")
    save(tmp_path / "gt" / "a.png")
    with pytest.raises(UserError, match="degraded already"):
        PatchSampler(PairedFolders(tmp_path / "lq", tmp_path / "gt", 1), **options)
    with pytest.raises(UserError, match="taken as they are"):
        pairs = PairedFolders(tmp_path / "lq", tmp_path / "gt", 1)
        PatchSampler(pairs, patch=8, batch=2, seed=0, contrast=0.1)


def test_contrast_clips_up_to_its_share_and_keeps_the_order(folder: Path) -> None:
    plain, stretched = (
        PatchSampler(folder, patch=16, batch=60, seed=5, degradation=Gaussian(sigma=0), channels=1, contrast=contrast)
        for contrast in (0.0, 0.3)
    )
    before, after = plain.batch(0).clean, stretched.batch(0).clean
    clipped = (after == 0).mean(axis=(1, 2, 3)), (after == 1).mean(axis=(1, 2, 3))
    assert after.min() == 0 and after.max() == 1 and (before == 0).mean() < 0.02
    for share in clipped:
        assert 0.05 < share.mean() < 0.25 and share.max() < 0.4 and share.min() < 0.1
    # the first patch is cut before the share is drawn, so it is the same place
    order = np.argsort(before[0], axis=None)
    assert np.all(np.diff(after[0].ravel()[order]) >= 0)


def test_the_sources_own_degradation_is_used(folder: Path) -> None:
    data = DegradedFolder(folder, GAUSSIAN, 1)
    sampler = PatchSampler(data, patch=8, batch=2, seed=0)
    assert sampler.degradation == GAUSSIAN
    other: DegradationBase = Gaussian(sigma=5)
    assert PatchSampler(data, patch=8, batch=2, seed=0, degradation=other).degradation == other


@pytest.fixture(scope="module")
def small_set(tmp_path_factory: pytest.TempPathFactory) -> DegradedFolder:
    folder = tmp_path_factory.mktemp("small")
    save(folder / "a.png")
    return DegradedFolder(folder, GAUSSIAN, 1)


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), step=st.integers(0, 2**32 - 1))
def test_any_seed_and_step(small_set: DegradedFolder, seed: int, step: int) -> None:
    first, second = (PatchSampler(small_set, patch=8, batch=2, seed=seed) for _ in range(2))
    np.testing.assert_array_equal(first.batch(step).degraded, second.batch(step).degraded)


def test_patches_come_fast_enough(folder: Path) -> None:
    """At least 2000 gray patches of 64 x 64 a second on one core, by processor time, so that a busy machine passes."""
    save(folder / "large.png", height=180, width=180)
    for name in ("a.png", "b.bmp", "c.png"):
        (folder / name).unlink()
    sampler = PatchSampler(folder, patch=64, batch=64, seed=0, degradation=GAUSSIAN, channels=1)
    sampler.batch(0)
    start = time.process_time()
    for step in range(8):
        sampler.batch(step)
    assert 8 * 64 / (time.process_time() - start) > 2000
