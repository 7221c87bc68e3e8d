"""Data sets: what they hold, what they draw, how pairs are found, and that the sampler is a pure function."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from neurodeploy.errors import FindingsError, UserError
from neurodeploy.images import photographs
from neurodeploy.images.datasets import Builtin, DegradedFolder, PairedFolders
from neurodeploy.images.degradations import Gaussian, parse_degradation
from neurodeploy.images.io import read_image
from neurodeploy.images.pairing import pairs_by_name, pairs_by_order
from tests.pictures import save, save_three
from tests.shared import shared_data

GAUSSIAN = Gaussian(sigma=25)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_three(tmp_path / "set")


# Folders that are degraded


def test_degraded_folder(folder: Path) -> None:
    data = DegradedFolder(folder, GAUSSIAN, 3)
    assert len(data) == 3 and data.names == ("a.png", "b.bmp", "c.png")
    for name, sample in zip(data.names, data, strict=True):
        clean = read_image(folder / name)
        noise = np.random.RandomState(0).randn(24, 30, 3).transpose(2, 0, 1)
        np.testing.assert_array_equal(sample.clean, clean)
        np.testing.assert_array_equal(sample.degraded, (clean + 25 / 255 * noise).astype(np.float32))
        assert sample.name == name and sample.noise_level == 25 / 255
    assert "3 pictures of set" in data.describe() and "sigma 25" in data.describe()


def test_gray_and_seed(folder: Path) -> None:
    gray = DegradedFolder(folder, GAUSSIAN, 1, seed=5)[0]
    noise = np.random.RandomState(5).randn(24, 30)
    np.testing.assert_array_equal(gray.degraded[0], (gray.clean[0] + 25 / 255 * noise).astype(np.float32))


def test_pictures_without_a_reference(folder: Path) -> None:
    sample = DegradedFolder(folder, None, 3)[1]
    assert sample.clean is None and sample.noise_level == 0
    np.testing.assert_array_equal(sample.degraded, read_image(folder / "b.bmp"))


@pytest.mark.parametrize("spec", ["gaussian:5-55", "rain", "motion:length=9"])
def test_drawn_parameters_differ_from_picture_to_picture(tmp_path: Path, spec: str) -> None:
    for name in ("a.png", "b.png"):
        save(tmp_path / name, seed=1)
    data = DegradedFolder(tmp_path, parse_degradation(spec), 1)
    assert np.abs(data[0].degraded - data[1].degraded).max() > 0.01
    np.testing.assert_array_equal(data[1].degraded, DegradedFolder(tmp_path, parse_degradation(spec), 1)[1].degraded)


def test_an_index_outside(folder: Path) -> None:
    data = DegradedFolder(folder, GAUSSIAN, 1)
    for index in (3, -1):
        with pytest.raises(IndexError):
            data[index]


def test_wrong_arguments(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        DegradedFolder(tmp_path / "none", GAUSSIAN, 1)
    with pytest.raises(UserError, match="1 channel"):
        DegradedFolder(folder, GAUSSIAN, 4)
    with pytest.raises(UserError, match="range of seeds"):
        DegradedFolder(folder, GAUSSIAN, 1, seed=-1)
    with pytest.raises(UserError, match="no such file of blur kernels"):
        DegradedFolder(folder, type(parse_degradation("motion"))(kernels=tmp_path / "k.npz"), 1)


def test_set12_is_the_papers_input() -> None:
    sample = DegradedFolder(shared_data("set12"), GAUSSIAN, 1)[6]
    levels = np.asarray(Image.open(shared_data("set12") / sample.name)).astype(np.float64)
    noisy = levels / 255 + 25 / 255 * np.random.RandomState(0).randn(*levels.shape)
    np.testing.assert_allclose(sample.degraded[0], noisy, atol=1e-6)


# The built-in photographs


def test_builtin_photographs() -> None:
    pytest.importorskip("skimage")
    test, train = Builtin("test", GAUSSIAN, 1), Builtin("train", None, 1)
    assert test.names == ("camera", "chelsea", "coffee") and len(train) == 8
    assert not set(test.names) & set(train.names)
    assert [sample.degraded.shape for sample in test] == [(1, 512, 512), (1, 300, 451), (1, 400, 512)]
    assert {"astronaut": (1, 512, 512), "retina": (1, 705, 705), "hubble_deep_field": (1, 436, 500)}.items() <= {
        name: train.levels(index).shape for index, name in enumerate(train.names)
    }.items()
    assert "3 built-in photographs (test)" in test.describe()


def test_builtin_photographs_in_colour() -> None:
    pytest.importorskip("skimage")
    test, train = Builtin("test", GAUSSIAN, 3), Builtin("train", GAUSSIAN, 3)
    assert test.names == ("chelsea", "coffee") and len(train) == 8
    gray = train.levels(train.names.index("grass"))
    assert gray.shape == (3, 512, 512) and (gray[0] == gray[2]).all()


def test_builtin_pixels_are_scikit_images() -> None:
    data = pytest.importorskip("skimage.data")
    test, train = Builtin("test", GAUSSIAN, 3), Builtin("train", GAUSSIAN, 3)
    np.testing.assert_array_equal(test.levels(0).transpose(1, 2, 0), data.chelsea())
    np.testing.assert_array_equal(test.levels(1).transpose(1, 2, 0), data.coffee()[:, 44:556])
    retina = data.retina()[:1410, :1410].reshape(705, 2, 705, 2, 3).mean(axis=(1, 3))
    assert np.abs(train.levels(train.names.index("retina")).transpose(1, 2, 0) - retina).max() <= 0.5


def test_no_photograph_is_in_both_parts() -> None:
    digests = [photograph.sha256 for photograph in photographs.PHOTOGRAPHS]
    assert len(set(digests)) == len(digests)
    assert all(photograph.name in (photographs.__doc__ or "") for photograph in photographs.PHOTOGRAPHS)


def test_builtin_without_scikit_image(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such part"):
        Builtin("validation", GAUSSIAN, 1)
    monkeypatch.setattr(photographs, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"neurodeploy\[train\]"):
        Builtin("test", GAUSSIAN, 1)
    monkeypatch.setattr(photographs, "_folder", lambda: tmp_path)
    with pytest.raises(UserError, match="is missing"):
        Builtin("test", GAUSSIAN, 1)
    save(tmp_path / "camera.png")
    with pytest.raises(UserError, match="not the picture that it was"):
        Builtin("test", GAUSSIAN, 1)


def test_the_room_needs_neither_torch_nor_scikit_image() -> None:
    pytest.importorskip("skimage")
    code = (
        "import sys; from neurodeploy.images.datasets import Builtin; Builtin('test', None, 1)[0];"
        "assert not {'torch', 'skimage', 'scipy', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# Pairs


def names(*stems: str) -> list[Path]:
    return [Path(f"{stem}.png") for stem in sorted(stems)]


@pytest.mark.parametrize(
    ("degraded", "clean", "expected"),
    [
        (["a", "b"], ["a", "b"], {"a": "a", "b": "b"}),
        (["rain-001", "rain-010"], ["norain-001", "norain-010"], {"rain-001": "norain-001", "rain-010": "norain-010"}),
        (["norain-2", "norain-1"], ["x1", "x02"], {"norain-1": "x1", "norain-2": "x02"}),
        (["1400_3", "1400_8", "1401_3"], ["1400", "1401"], {"1400_3": "1400", "1400_8": "1400", "1401_3": "1401"}),
        (["0001_0.8_0.2"], ["0001"], {"0001_0.8_0.2": "0001"}),
        (["a_b_3", "a_3"], ["a", "a_b"], {"a_b_3": "a_b", "a_3": "a"}),
    ],
)
def test_pairing_by_name(degraded: list[str], clean: list[str], expected: dict[str, str]) -> None:
    pairs = pairs_by_name(names(*degraded), names(*clean))
    assert {left.stem: right.stem for left, right in pairs} == expected
    assert [left for left, _ in pairs] == names(*degraded)


@pytest.mark.parametrize(
    ("degraded", "clean", "alone"),
    [
        (["a", "b", "c"], ["a", "b"], ["c"]),
        (["a", "b"], ["a", "b", "c", "d"], ["c", "d"]),
        (["rain-1", "rain-2"], ["norain-1", "norain-3"], ["rain-2", "norain-3"]),
        (["1400_3", "1500_3"], ["1400", "1401"], ["1500_3", "1401"]),
        (["x", "y"], ["p", "q"], ["x", "y", "p", "q"]),
        (["a1", "b1"], ["c1", "d1"], ["a1", "b1", "c1", "d1"]),
    ],
)
def test_files_without_a_partner_are_all_named(degraded: list[str], clean: list[str], alone: list[str]) -> None:
    with pytest.raises(FindingsError) as caught:
        pairs_by_name(names(*degraded), names(*clean))
    assert {Path(finding.node).stem for finding in caught.value.findings} == set(alone)
    assert caught.value.exit_code == 2 and all(stem in str(caught.value) for stem in alone)


def test_the_same_name_twice_is_not_guessed() -> None:
    with pytest.raises(FindingsError):
        pairs_by_name([Path("a.png")], [Path("a.jpg"), Path("a.png")])


def test_pairing_by_order() -> None:
    assert pairs_by_order(names("x", "y"), names("p", "q")) == [
        (Path("x.png"), Path("p.png")),
        (Path("y.png"), Path("q.png")),
    ]
    with pytest.raises(FindingsError, match="2 degraded and 1 clean") as caught:
        pairs_by_order(names("x", "y"), names("p"))
    assert [finding.node for finding in caught.value.findings] == ["y.png"]


@given(
    stems=st.sets(st.text("ab12_-", min_size=1, max_size=6), min_size=1, max_size=8),
    other=st.sets(st.text("ab12_-", min_size=1, max_size=6), min_size=1, max_size=8),
)
def test_pairing_uses_every_file_or_names_some(stems: set[str], other: set[str]) -> None:
    degraded, clean = names(*stems), names(*other)
    try:
        pairs = pairs_by_name(degraded, clean)
    except FindingsError as error:
        assert error.findings
    else:
        assert [left for left, _ in pairs] == degraded and {right for _, right in pairs} == set(clean)
    assert pairs_by_name(degraded, degraded) == [(path, path) for path in degraded]


def test_paired_folders(tmp_path: Path) -> None:
    for index in range(2):
        save(tmp_path / "lq" / f"rain-{index}.png", seed=index)
        save(tmp_path / "gt" / f"norain-{index}.png", seed=10 + index, bits=16)
    data = PairedFolders(tmp_path / "lq", tmp_path / "gt", 3)
    assert len(data) == len(list(data)) == 2
    sample = data[1]
    np.testing.assert_array_equal(sample.degraded, read_image(tmp_path / "lq" / "rain-1.png"))
    np.testing.assert_array_equal(sample.clean, read_image(tmp_path / "gt" / "norain-1.png"))
    assert sample.name == "rain-1.png" and sample.noise_level == 0 and "2 pairs" in data.describe()
    assert PairedFolders(tmp_path / "lq", tmp_path / "gt", 1)[0].degraded.shape == (1, 24, 30)
    with pytest.raises(IndexError):
        data[2]


def test_pairs_that_do_not_fit_are_all_named(tmp_path: Path) -> None:
    for name, height in (("a", 24), ("b", 25), ("c", 26), ("d", 24)):
        save(tmp_path / "lq" / f"{name}.png", height=height)
        save(tmp_path / "gt" / f"{name}.png", height=24)
    (tmp_path / "gt" / "d.png").write_bytes(b"no picture")
    with pytest.raises(FindingsError) as caught:
        PairedFolders(tmp_path / "lq", tmp_path / "gt", 3)
    nodes = [Path(finding.node).name for finding in caught.value.findings]
    assert nodes == ["b.png", "c.png", "d.png"] and caught.value.exit_code == 2
    text = str(caught.value)
    assert "have 25 x 30" in text and "limit 24 x 30" in text and "not a picture" in text


def test_paired_folders_with_wrong_arguments(tmp_path: Path) -> None:
    save(tmp_path / "lq" / "a.png")
    save(tmp_path / "gt" / "b.png")
    with pytest.raises(UserError, match="are the same"):
        PairedFolders(tmp_path / "lq", tmp_path / "lq", 3)
    with pytest.raises(UserError, match="names or by order"):
        PairedFolders(tmp_path / "lq", tmp_path / "gt", 3, match="size")
    with pytest.raises(UserError, match="no such folder"):
        PairedFolders(tmp_path / "lq", tmp_path / "none", 3)
    assert len(PairedFolders(tmp_path / "lq", tmp_path / "gt", 3, match="order")) == 1


def test_published_pairs_are_found() -> None:
    rain = PairedFolders(shared_data("rain100l_8/rain"), shared_data("rain100l_8/norain"), 3)
    assert all(clean.name == f"no{degraded.name}" for degraded, clean in rain.paths) and len(rain) == 8
    haze = PairedFolders(shared_data("sots_indoor_a/hazy"), shared_data("sots_indoor_a/gt"), 3)
    assert all(clean.stem == degraded.stem.split("_")[0] for degraded, clean in haze.paths) and len(haze) == 30
