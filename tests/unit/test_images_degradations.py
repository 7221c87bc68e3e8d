"""The degradations: exact noise, blur against a plain loop, weather by its statistics, and every wrong spelling."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import BaseModel, TypeAdapter, ValidationError

from neurodeploy.errors import UserError
from neurodeploy.images import blur, weather
from neurodeploy.images.degradation_base import DegradationBase, Place
from neurodeploy.images.degradations import (
    KINDS,
    Defocus,
    Degradation,
    Gaussian,
    Haze,
    Jpeg,
    Motion,
    Rain,
    parse_degradation,
)
from tests.shared import shared_data

RNG = np.random.RandomState(11)
GRAY = RNG.rand(1, 40, 52).astype(np.float32)
COLOUR = RNG.rand(3, 40, 52).astype(np.float32)
EVERY = ["gaussian:25", "gaussian:5-55", "rain", "haze", "motion:length=9", "defocus:2.5", "jpeg:30", "jpeg:20-80"]


def state(seed: int = 0) -> np.random.RandomState:
    return np.random.RandomState(seed)


# Noise


def test_gray_noise_is_the_fields_draw() -> None:
    degraded, level = parse_degradation("gaussian:25").apply(GRAY, state())
    noise = np.random.RandomState(0).randn(40, 52)
    np.testing.assert_array_equal(degraded[0], (GRAY[0].astype(np.float64) + 25 / 255 * noise).astype(np.float32))
    assert level == 25 / 255 and degraded.dtype == np.float32


def test_colour_noise_is_drawn_with_the_channels_last() -> None:
    degraded, _ = parse_degradation("gaussian:50").apply(COLOUR, state())
    noise = np.random.RandomState(0).randn(40, 52, 3)
    expected = COLOUR.transpose(1, 2, 0).astype(np.float64) + 50 / 255 * noise
    np.testing.assert_array_equal(degraded.transpose(1, 2, 0), expected.astype(np.float32))


def test_noise_is_not_clipped() -> None:
    degraded, _ = Gaussian(sigma=50).apply(GRAY, state())
    assert degraded.min() < 0 and degraded.max() > 1


@given(seed=st.integers(0, 2**32 - 1))
def test_noise_level_of_a_range(seed: int) -> None:
    flat = np.full((1, 60, 60), 0.5, np.float32)
    degraded, level = Gaussian(sigma=(5, 55)).apply(flat, state(seed))
    assert 5 / 255 <= level <= 55 / 255
    assert degraded.std() == pytest.approx(level, rel=0.1)


def test_no_noise_at_sigma_zero() -> None:
    degraded, level = Gaussian(sigma=0).apply(GRAY, state())
    np.testing.assert_array_equal(degraded, GRAY)
    assert level == 0


# All


@pytest.mark.parametrize("spec", EVERY)
@pytest.mark.parametrize("clean", [GRAY, COLOUR], ids=["gray", "colour"])
def test_shape_type_range_and_repeatability(spec: str, clean: np.ndarray) -> None:
    degradation = parse_degradation(spec)
    kept = clean.copy()
    degraded, level = degradation.apply(clean, state(4))
    again, _ = degradation.apply(clean, state(4))
    np.testing.assert_array_equal(degraded, again)
    np.testing.assert_array_equal(clean, kept)
    assert degraded.shape == clean.shape and degraded.dtype == np.float32 and np.abs(degraded - clean).max() > 0.01
    if not isinstance(degradation, Gaussian):
        assert level == 0 and degraded.min() >= 0 and degraded.max() <= 1


@pytest.mark.parametrize("spec", EVERY)
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 1, 7), (1, 2, 2), (3, 5, 1)])
def test_tiny_pictures(spec: str, shape: tuple[int, int, int]) -> None:
    degraded, _ = parse_degradation(spec).apply(np.full(shape, 0.5, np.float32), state())
    assert degraded.shape == shape and np.isfinite(degraded).all()


@pytest.mark.parametrize("spec", ["defocus:3.3", "jpeg:25", "motion:length=12", "haze"])
@pytest.mark.parametrize("clean", [GRAY, COLOUR], ids=["gray", "colour"])
@pytest.mark.parametrize(("top", "left"), [(0, 0), (17, 3), (24, 36), (20, 20)])
def test_a_part_with_its_surroundings_is_a_part_of_the_whole(spec: str, clean: np.ndarray, top: int, left: int) -> None:
    degradation, side = parse_degradation(spec), 16
    whole, _ = degradation.apply(clean, state(2))
    margin, grid = degradation.margin, degradation.grid
    first, begin = (max(0, start - margin) // grid * grid for start in (top, left))
    window = clean[:, first : top + side + margin, begin : left + side + margin]
    part, _ = degradation.apply(window, state(2), place=Place(first, begin, 40, 52))
    np.testing.assert_allclose(
        part[:, top - first :, left - begin :][:, :side, :side],
        whole[:, top : top + side, left : left + side],
        atol=1e-6,
    )


# Blur


def convolved_slowly(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    r, s = kernel.shape[0] // 2, kernel.shape[1] // 2
    padded = np.pad(image, ((0, 0), (r, r), (s, s)), mode="reflect").astype(np.float64)
    out = np.zeros(image.shape)
    for i in range(kernel.shape[0]):
        for j in range(kernel.shape[1]):
            out += (
                kernel[i, j] * padded[:, 2 * r - i : 2 * r - i + image.shape[1], 2 * s - j : 2 * s - j + image.shape[2]]
            )
    return out


@settings(max_examples=40)
@given(
    height=st.integers(2, 25),
    width=st.integers(2, 25),
    rows=st.integers(0, 6),
    columns=st.integers(0, 6),
    seed=st.integers(0, 1000),
)
def test_convolution_against_a_plain_loop(height: int, width: int, rows: int, columns: int, seed: int) -> None:
    rng = state(seed)
    image, kernel = rng.rand(2, height, width), rng.rand(2 * rows + 1, 2 * columns + 1)
    np.testing.assert_allclose(blur.convolve(image, kernel), convolved_slowly(image, kernel), atol=1e-10)


def test_convolution_against_scipy() -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    kernel = RNG.rand(7, 9)
    expected = ndimage.convolve(GRAY[0].astype(np.float64), kernel, mode="mirror")
    np.testing.assert_allclose(blur.convolve(GRAY, kernel)[0], expected, atol=1e-10)


def test_a_kernel_is_the_picture_of_a_point() -> None:
    point = np.zeros((1, 31, 31))
    point[0, 15, 15] = 1
    kernel = blur.path_kernel(13, 0.5, state(3))
    reach = kernel.shape[0] // 2
    np.testing.assert_allclose(
        blur.convolve(point, kernel)[0, 15 - reach : 16 + reach, 15 - reach : 16 + reach], kernel, atol=1e-12
    )


@pytest.mark.parametrize("spec", ["motion:length=20", "defocus:5"])
def test_blur_keeps_a_constant_picture(spec: str) -> None:
    flat = np.full((3, 30, 20), 0.3, np.float32)
    np.testing.assert_allclose(parse_degradation(spec).apply(flat, state())[0], flat, atol=1e-6)


@given(radius=st.floats(1, 20))
def test_disc(radius: float) -> None:
    kernel = blur.disc_kernel(radius)
    side = kernel.shape[0]
    assert kernel.sum() == pytest.approx(1) and side % 2 == 1 and side // 2 <= Defocus(radius=radius).margin
    for symmetric in (kernel[::-1], kernel[:, ::-1], kernel.T):
        np.testing.assert_allclose(kernel, symmetric)
    # The area under the disc, and its second moment: r**2 / 4 an axis, and 1/12 for the pixels' own extent.
    assert 1 / kernel.max() == pytest.approx(np.pi * radius**2, rel=0.1 if radius > 2 else 0.3)
    offsets = np.arange(side) - side // 2
    assert (kernel.sum(axis=0) * offsets**2).sum() == pytest.approx(radius**2 / 4 + 1 / 12, abs=0.1)


def test_disc_has_a_soft_edge() -> None:
    kernel = blur.disc_kernel(3.5)
    assert np.all(np.diff(kernel[3, :4]) >= 0) and 0 < kernel[0, 1] < kernel[0, 2] < kernel[0, 3] < kernel[3, 3]


@given(length=st.floats(1, 60), shake=st.floats(0, 1), seed=st.integers(0, 2**32 - 1))
def test_camera_path(length: float, shake: float, seed: int) -> None:
    kernel = blur.path_kernel(length, shake, state(seed))
    side = 2 * blur.path_reach(length) + 1
    assert kernel.shape == (side, side) and kernel.sum() == pytest.approx(1) and kernel.min() >= 0
    # Nothing of the path was cut off: its outermost ring is never reached.
    assert kernel[[0, -1]].sum() + kernel[:, [0, -1]].sum() < 0.02


def test_a_path_without_shake_is_a_line_of_the_given_length() -> None:
    kernel = blur.path_kernel(21, 0, state(5))
    offsets = np.arange(kernel.shape[0]) - kernel.shape[0] // 2
    y, x = (kernel.sum(axis=axis) @ offsets for axis in (1, 0))
    assert abs(y) < 0.1 and abs(x) < 0.1
    spread = kernel.sum(axis=1) @ offsets**2 + kernel.sum(axis=0) @ offsets**2
    assert spread == pytest.approx(21**2 / 12, rel=0.05)


def test_splat_keeps_what_lies_inside_and_drops_the_rest() -> None:
    y, x, weight = np.array([1.25, -0.5, 9.0, -5.0]), np.array([2.5, 0.0, 9.0, 1.0]), np.array([1.0, 1.0, 1.0, 1.0])
    grid = blur.splat(y, x, weight, (3, 4))
    expected = np.zeros((3, 4))
    expected[1, 2], expected[1, 3], expected[2, 2], expected[2, 3] = 0.375, 0.375, 0.125, 0.125
    expected[0, 0] = 0.5
    np.testing.assert_allclose(grid, expected)


# Files of kernels


def test_kernels_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "kernels.npz"
    np.savez(path, a=np.eye(3, dtype=np.float32) * 7, b=np.ones((4, 2)))
    first, second = blur.load_kernels(path)
    np.testing.assert_allclose(first, np.eye(3) / 3)
    assert second.shape == (5, 3) and second[4].sum() == 0 and second.sum() == pytest.approx(1)
    motion = parse_degradation(f"motion:{path}")
    assert isinstance(motion, Motion) and motion.margin == 2 and motion.kernels == path
    results = {motion.apply(GRAY, state(seed))[0].tobytes() for seed in range(12)}
    assert results == {
        np.clip(blur.convolve(GRAY, kernel), 0, 1).astype(np.float32).tobytes() for kernel in (first, second)
    }
    np.savez(path, c=np.ones((1, 1)))
    assert len(blur.load_kernels(path)) == 1


def test_kernels_of_levin() -> None:
    kernels = blur.load_kernels(shared_data("kernels/levin09.npz"))
    assert len(kernels) == 8 and all(kernel.sum() == pytest.approx(1) for kernel in kernels)


@pytest.mark.parametrize(
    ("arrays", "word"),
    [
        ({"a": np.ones(3)}, "shape"),
        ({"a": np.ones((300, 3))}, "at most 255"),
        ({"a": np.zeros((3, 3))}, "not all zero"),
        ({"a": -np.ones((3, 3))}, "none negative"),
        ({"a": np.full((3, 3), np.nan)}, "finite"),
        ({"a": np.ones((3, 3), complex)}, "real"),
        ({"a": np.array([["x"]])}, "dtype"),
        ({"a": np.array([[{}]], dtype=object)}, "plain arrays"),
        ({}, "no kernels"),
    ],
)
def test_files_that_hold_no_kernels(tmp_path: Path, arrays: dict[str, np.ndarray], word: str) -> None:
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(UserError, match=word) as caught:
        parse_degradation(f"motion:{tmp_path / 'bad.npz'}")
    assert "bad.npz" in str(caught.value)


def test_files_that_are_no_npz(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        parse_degradation(f"motion:{tmp_path / 'none.npz'}")
    (tmp_path / "text.npz").write_text("kernels")
    with pytest.raises(UserError, match=r"no \.npz file"):
        parse_degradation(f"motion:{tmp_path / 'text.npz'}")
    np.save(tmp_path / "plain.npy", np.ones((3, 3)))
    with pytest.raises(UserError, match=r"no \.npz file"):
        parse_degradation(f"motion:{tmp_path / 'plain.npy'}")
    whole = io.BytesIO()
    np.savez(whole, a=np.ones((3, 3)))
    (tmp_path / "cut.npz").write_bytes(whole.getvalue()[:-30])
    with pytest.raises(UserError, match=r"no \.npz file"):
        parse_degradation(f"motion:{tmp_path / 'cut.npz'}")


def test_a_zip_bomb_is_refused_from_its_directory(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", bytes(blur.MAX_KERNEL_FILE_BYTES + 1))
    with pytest.raises(UserError, match="too large"):
        blur.load_kernels(tmp_path / "bomb.npz")


# Weather


def test_rain_only_adds_light_and_falls_in_its_direction() -> None:
    dark = np.zeros((3, 200, 200), np.float32)
    for angle, sign in ((30, 1), (-30, -1), (0, 0)):
        rain = Rain(density=0.003, length=25, angle=angle, strength=0.5, width=3)
        layer = rain.apply(dark, state())[0]
        np.testing.assert_array_equal(layer[0], layer[2])
        assert layer.min() == 0 and 0.01 < layer.mean() < 0.2
        # The structure tensor's main axis: a streak that falls to the right has gradients of opposite signs.
        gy, gx = np.gradient(layer[0].astype(float))
        slope = np.degrees(0.5 * np.arctan2(-2 * (gx * gy).mean(), (gx**2 - gy**2).mean()))
        assert slope == pytest.approx(angle, abs=4) and np.sign(round(slope / 20)) == sign


def test_rain_has_the_asked_amount_of_light_up_to_the_border() -> None:
    layer = np.mean(
        [
            weather.rain_layer(
                (80, 60),
                density=0.01,
                length=(20, 20),
                angle=10,
                strength=(0.3, 0.3),
                width=(1.5, 1.5),
                rng=state(seed),
            )
            for seed in range(200)
        ],
        axis=0,
    )
    # Light a streak adds: length * width * strength * the mean of its soft ends' profile, sqrt(cos).
    fade = np.mean(np.cos(np.pi * ((np.arange(1000) + 0.5) / 1000 - 0.5)) ** 0.5)
    expected = 0.01 * 20 * 1.5 * 0.3 * fade
    assert layer.mean() == pytest.approx(expected, rel=0.03)
    for border in (layer[:4], layer[-4:], layer[:, :4], layer[:, -4:]):
        assert border.mean() == pytest.approx(expected, rel=0.15)


def test_a_streak_is_as_bright_as_asked() -> None:
    layer = weather.rain_layer(
        (400, 400), density=0.0001, length=(40, 40), angle=0, strength=(0.4, 0.4), width=(2, 2), rng=state(3)
    )
    assert np.quantile(layer[layer > 0.02], 0.97) == pytest.approx(0.4, rel=0.2)


def test_rain_of_density_zero_is_no_rain() -> None:
    np.testing.assert_array_equal(Rain(density=0).apply(COLOUR, state())[0], COLOUR)


def test_many_streaks_are_drawn_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weather, "_CHUNK", 500)
    layer = weather.rain_layer(
        (60, 60), density=0.05, length=(10, 10), angle=0, strength=(0.2, 0.2), width=(1, 1), rng=state()
    )
    assert layer.mean() == pytest.approx(0.05 * 10 * 0.2 * 0.763, rel=0.2)


def test_haze_follows_the_scattering_model() -> None:
    black, white = np.zeros((3, 90, 70), np.float32), np.ones((3, 90, 70), np.float32)
    haze = Haze(beta=1.0, airlight=0.8)
    dark, light = haze.apply(black, state(1))[0], haze.apply(white, state(1))[0]
    transmission = light - dark  # I(1) - I(0) = t
    np.testing.assert_allclose(dark, 0.8 * (1 - transmission), atol=1e-6)
    depth = -np.log(transmission[0])
    assert depth.min() >= weather.NEAR - 1e-5 and depth.max() <= weather.FAR + 1e-5
    assert depth[:20].mean() > depth[-20:].mean() + 0.3
    assert np.abs(np.diff(depth, axis=0)).max() < 0.1 and np.abs(np.diff(depth, axis=1)).max() < 0.1
    thick = Haze(beta=2.0, airlight=0.8)
    np.testing.assert_allclose(
        thick.apply(white, state(1))[0] - thick.apply(black, state(1))[0], transmission**2, atol=1e-6
    )


def test_haze_sees_the_same_scene_at_half_size() -> None:
    rows = (np.arange(64) + 0.5) / 64
    fine, coarse = (
        weather.scene_depth(values, values, state(7)) for values in (rows, rows.reshape(32, 2).mean(axis=1))
    )
    np.testing.assert_allclose(fine.reshape(32, 2, 32, 2).mean(axis=(1, 3)), coarse, atol=0.01)


# JPEG


def test_jpeg_is_pillows() -> None:
    levels = np.rint(COLOUR * 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(levels.transpose(1, 2, 0)).save(buffer, "JPEG", quality=30, subsampling="4:2:0")
    expected = np.asarray(Image.open(buffer)).transpose(2, 0, 1)
    np.testing.assert_array_equal(np.rint(Jpeg(quality=30).apply(COLOUR, state())[0] * 255), expected)


def test_jpeg_range_draws_whole_qualities() -> None:
    one_by_one = {Jpeg(quality=q).apply(GRAY, state())[0].tobytes() for q in (40, 41, 42)}
    drawn = {Jpeg(quality=(40, 42)).apply(GRAY, state(seed))[0].tobytes() for seed in range(30)}
    assert drawn == one_by_one


# The text form


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("gaussian:25", Gaussian(sigma=25)),
        ("gaussian:5-55", Gaussian(sigma=(5, 55))),
        (" gaussian : sigma = 12.5 ", Gaussian(sigma=12.5)),
        ("rain:density=0.02,length=12", Rain(density=0.02, length=12)),
        ("rain:angle=-10-10", Rain(angle=(-10, 10))),
        ("rain:angle=-20--10", Rain(angle=(-20, -10))),
        ("rain:1e-3-2e-3", Rain(density=(0.001, 0.002))),
        ("haze:beta=1.0,airlight=0.8", Haze(beta=1, airlight=0.8)),
        ("motion:length=15", Motion(length=15)),
        ("motion:15-25", Motion(length=(15, 25))),
        ("motion", Motion()),
        ("defocus:3", Defocus(radius=3)),
        ("jpeg:40", Jpeg(quality=40)),
        ({"kind": "gaussian", "sigma": [5, 55]}, Gaussian(sigma=(5, 55))),
        ({"kind": "motion", "shake": 0}, Motion(shake=0)),
    ],
)
def test_parse(spec: object, expected: DegradationBase) -> None:
    assert parse_degradation(spec) == expected


def test_kernel_files_with_commas_in_their_names(tmp_path: Path) -> None:
    path = tmp_path / "a,b.npz"
    np.savez(path, a=np.ones((3, 3)))
    assert parse_degradation(f"motion:{path}") == Motion(kernels=path)
    assert parse_degradation(Motion(kernels=path).spec()) == Motion(kernels=path)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("gausian:25", ["'gausian'", "did you mean 'gaussian'?", "defocus"]),
        ("", ["no kind", "gaussian, rain"]),
        ("25", ["'25'", "gaussian, rain"]),
        ("gaussian", ["sigma is missing", "8-bit"]),
        ("gaussian:", ["sigma is missing"]),
        ("gaussian:sgma=25", ["no 'sgma'", "did you mean 'sigma'?"]),
        ("rain:lenght=12", ["did you mean 'length'?", "density, length, angle"]),
        ("rain:kind=haze", ["no 'kind'"]),
        ("gaussian:300", ["sigma = 300", "0 to 255"]),
        ("gaussian:-1", ["sigma = -1", "0 to 255"]),
        ("gaussian:1e999", ["outside 0 to 255"]),
        ("gaussian:nan", ["neither a number nor a range"]),
        ("gaussian:abc", ["sigma = 'abc'", "5-55"]),
        ("gaussian:25,30", ["neither a number"]),
        ("gaussian:55-5", ["runs downwards", "write 5-55"]),
        ("gaussian:sigma=25,sigma=30", ["'sigma' twice"]),
        ("gaussian:sigma=", ["no value for 'sigma'"]),
        ("rain:density=3,strength=2", ["density = 3", "strength = 2"]),
        ("jpeg:40.5", ["not whole"]),
        ("jpeg:0", ["1 to 100"]),
        ("motion:length=3,kernels=k.npz", ["exclude each other"]),
        ("motion:shake=0-1", ["shake"]),
        ({"sigma": 25}, ["no kind"]),
        ({"kind": "gaussian", "sigma": "25"}, ["'25' is neither a number"]),
        ({"kind": "gaussian", "sigma": True}, ["neither a number"]),
        ({"kind": "gaussian", "sigma": [1, 2, 3]}, ["neither a number"]),
        ({"kind": "gaussian", "sigma": 25, "seed": 0}, ["no 'seed'"]),
        ({"kind": "gaussian", "sigma": None}, ["neither a number"]),
    ],
)
def test_wrong_spellings(spec: object, words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        parse_degradation(spec)
    line = str(caught.value)
    assert "\n" not in line and caught.value.exit_code == 2
    for word in words:
        assert word in line


class Recipe(BaseModel):
    degradation: Degradation


def test_union_in_a_recipe() -> None:
    recipe = Recipe.model_validate({"degradation": {"kind": "haze", "beta": [0.5, 1]}})
    assert recipe.degradation == Haze(beta=(0.5, 1))
    with pytest.raises(ValidationError, match="outside"):
        Recipe.model_validate({"degradation": {"kind": "haze", "beta": 99}})
    with pytest.raises(ValidationError, match="kind"):
        Recipe.model_validate({"degradation": {"kind": "fog"}})


@pytest.mark.parametrize("spec", EVERY)
def test_text_json_and_description(spec: str) -> None:
    degradation = parse_degradation(spec)
    assert parse_degradation(degradation.spec()) == degradation
    adapter: TypeAdapter[DegradationBase] = TypeAdapter(Degradation)
    assert adapter.validate_json(adapter.dump_json(degradation)) == degradation
    assert "\n" not in degradation.describe() and len(degradation.describe()) > 10
    assert KINDS[degradation.kind] is type(degradation)
    with pytest.raises(ValidationError):
        degradation.kind = "other"


def test_which_parameters_are_drawn() -> None:
    drawn = {spec for spec in EVERY if parse_degradation(spec).random_parameters}
    assert drawn == {"gaussian:5-55", "rain", "haze", "motion:length=9", "jpeg:20-80"}


@given(low=st.floats(0, 255), high=st.floats(0, 255))
def test_ranges_survive_the_text_form(low: float, high: float) -> None:
    degradation = Gaussian(sigma=(min(low, high), max(low, high)))
    assert parse_degradation(degradation.spec()) == degradation
