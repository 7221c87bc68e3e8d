"""What is done to a clean picture so that there is something to restore, as data.

A degradation is a frozen pydantic model with a field ``kind``; :data:`Degradation` is the discriminated union of all,
for recipes and manifests, and :func:`parse_degradation` reads the short form of the command line (``gaussian:25``,
``gaussian:5-55``, ``rain:density=0.02,length=12``, ``haze:beta=1.0,airlight=0.8``, ``motion:kernels.npz``,
``defocus:3``, ``jpeg:40``). A parameter is a number or a range ``[low, high]``, from which a value is drawn.

Everything random comes from the ``RandomState`` that is handed in. A fixed parameter takes no draw, so noise of one
sigma is exactly the field's ``sigma / 255 * randn(...)``.
"""

from __future__ import annotations

import difflib
import io
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field, ValidationError, model_validator

from neurodeploy.errors import UserError
from neurodeploy.images import blur, weather
from neurodeploy.images.degradation_base import DegradationBase, Interval, Place, Within, draw, scaled, text, words
from neurodeploy.images.io import to_levels, to_unit


class Gaussian(DegradationBase):
    """Additive white Gaussian noise, not clipped: ``clean + sigma / 255 * n``, n standard normal.

    The draw is that of the denoising papers: ``rng.randn(H, W)`` for gray, ``rng.randn(H, W, 3)`` for colour, in
    float64; the sum is rounded to float32.
    """

    kind: Literal["gaussian"] = "gaussian"
    sigma: Annotated[Interval, Within(0, 255)] = Field(description="standard deviation in 8-bit units, 25 = 25/255")

    positional = "sigma"

    def apply(
        self, clean: NDArray[np.float32], rng: np.random.RandomState, *, place: Place | None = None
    ) -> tuple[NDArray[np.float32], float]:
        """See :meth:`DegradationBase.apply`."""
        level = draw(self.sigma, rng) / 255.0
        channels, height, width = clean.shape
        noise = (
            rng.randn(height, width)[None] if channels == 1 else rng.randn(height, width, channels).transpose(2, 0, 1)
        )
        return (clean + level * noise).astype(np.float32), level

    def describe(self) -> str:
        """One phrase for a report."""
        return f"Gaussian noise, sigma {words(self.sigma)} (8-bit units), not clipped"


class Rain(DegradationBase):
    """Rain streaks, ``min(1, clean + streaks)``: the linear model of the deraining papers, clipped as a file clips it.

    Two layers: one as described and, behind it, one of streaks 0.6 times as long, wide and bright. The streaks are
    gray.
    """

    kind: Literal["rain"] = "rain"
    density: Annotated[Interval, Within(0, 0.2)] = Field((0.001, 0.006), description="streaks a pixel")
    length: Annotated[Interval, Within(1, 300)] = Field(
        (15.0, 45.0), description="length of a streak in pixels, drawn for each"
    )
    angle: Annotated[Interval, Within(-60, 60)] = Field(
        (-15.0, 15.0), description="direction of fall in degrees from the vertical"
    )
    strength: Annotated[Interval, Within(0, 1)] = Field(
        (0.1, 0.4), description="brightness of a streak, 1 = white, drawn for each"
    )
    width: Annotated[Interval, Within(0.5, 4)] = Field(
        (1.0, 2.0), description="width of a streak in pixels, drawn for each"
    )

    positional = "density"

    @property
    def random_parameters(self) -> bool:
        """Always: where the streaks fall is drawn."""
        return True

    def apply(
        self, clean: NDArray[np.float32], rng: np.random.RandomState, *, place: Place | None = None
    ) -> tuple[NDArray[np.float32], float]:
        """See :meth:`DegradationBase.apply`."""
        density, angle = draw(self.density, rng), draw(self.angle, rng)
        streaks = sum(
            weather.rain_layer(
                (clean.shape[1], clean.shape[2]),
                density=density / 2.0,
                length=scaled(self.length, scale),
                angle=angle,
                strength=scaled(self.strength, scale),
                width=scaled(self.width, scale),
                rng=rng,
            )
            for scale in (1.0, 0.6)
        )
        return np.minimum(clean + streaks, 1.0).astype(np.float32), 0.0

    def describe(self) -> str:
        """One phrase for a report."""
        return (
            f"synthetic rain, {words(self.density)} streaks a pixel, length {words(self.length)} px,"
            f" {words(self.angle)} degrees, strength {words(self.strength)}"
        )


class Haze(DegradationBase):
    """Haze by the scattering model, ``I = J t + A (1 - t)``, ``t = exp(-beta d)`` (Narasimhan and Nayar, IJCV 2002).

    The depth d is a smooth synthetic map between 0.2 and 1.2, far at the top (:func:`weather.scene_depth`); the
    airlight A is the same for all channels. The default ranges are those of the RESIDE indoor set.
    """

    kind: Literal["haze"] = "haze"
    beta: Annotated[Interval, Within(0, 10)] = Field((0.6, 1.8), description="scattering coefficient")
    airlight: Annotated[Interval, Within(0, 1)] = Field((0.7, 1.0), description="brightness of the haze itself")

    positional = "beta"

    @property
    def random_parameters(self) -> bool:
        """Always: the depth map is drawn."""
        return True

    def apply(
        self, clean: NDArray[np.float32], rng: np.random.RandomState, *, place: Place | None = None
    ) -> tuple[NDArray[np.float32], float]:
        """See :meth:`DegradationBase.apply`."""
        _, height, width = clean.shape
        place = place or Place(0, 0, height, width)
        beta, airlight = draw(self.beta, rng), draw(self.airlight, rng)
        depth = weather.scene_depth(
            (place.top + np.arange(height) + 0.5) / place.height,
            (place.left + np.arange(width) + 0.5) / place.width,
            rng,
        )
        transmission = np.exp(-beta * depth)[None]
        return (clean * transmission + airlight * (1.0 - transmission)).astype(np.float32), 0.0

    def describe(self) -> str:
        """One phrase for a report."""
        return f"synthetic haze, beta {words(self.beta)}, airlight {words(self.airlight)}, smooth random depth"


class Motion(DegradationBase):
    """Camera shake: convolution with a random path (:func:`blur.path_kernel`) or with a kernel drawn from a file."""

    kind: Literal["motion"] = "motion"
    length: Annotated[Interval | None, Within(1, 200)] = Field(
        None, description="length of the path in pixels (15 unless kernels are given)"
    )
    shake: Annotated[float, Within(0, 1)] = Field(0.4, description="0 = straight and even, 1 = wildly curved")
    kernels: Path | None = Field(None, description="an .npz file of kernels, one of which is drawn, instead of a path")

    positional = "length"

    @model_validator(mode="after")
    def _one_source(self) -> Motion:
        if self.length is not None and self.kernels is not None:
            raise ValueError("length and kernels exclude each other: a kernel has its own length")
        return self

    @property
    def path_length(self) -> tuple[float, float]:
        """The range of the path's length in pixels."""
        return self.length or (15.0, 15.0)

    @property
    def margin(self) -> int:
        """The reach of the longest path or of the largest kernel."""
        if self.kernels is None:
            return blur.path_reach(self.path_length[1])
        reach: int = max(max(kernel.shape) // 2 for kernel in blur.load_kernels(self.kernels))
        return reach

    @property
    def random_parameters(self) -> bool:
        """Always: the path or the kernel is drawn."""
        return True

    def check(self) -> None:
        """Reads the file of kernels, if one is given."""
        if self.kernels is not None:
            blur.load_kernels(self.kernels)

    def apply(
        self, clean: NDArray[np.float32], rng: np.random.RandomState, *, place: Place | None = None
    ) -> tuple[NDArray[np.float32], float]:
        """See :meth:`DegradationBase.apply`."""
        if self.kernels is not None:
            choices = blur.load_kernels(self.kernels)
            kernel = choices[int(rng.randint(len(choices)))]
        else:
            kernel = blur.path_kernel(draw(self.path_length, rng), self.shake, rng)
        return _blurred(clean, kernel), 0.0

    def describe(self) -> str:
        """One phrase for a report."""
        if self.kernels is not None:
            return f"motion blur, kernels of {self.kernels.name}, border reflected"
        return f"motion blur, random paths of {words(self.path_length)} px, shake {self.shake:g}, border reflected"


class Defocus(DegradationBase):
    """Defocus: convolution with a uniform disc whose edge is anti-aliased (:func:`blur.disc_kernel`)."""

    kind: Literal["defocus"] = "defocus"
    radius: Annotated[Interval, Within(0.5, 64)] = Field(description="radius of the disc in pixels")

    positional = "radius"

    @property
    def margin(self) -> int:
        """The largest radius."""
        return math.ceil(self.radius[1])

    def apply(
        self, clean: NDArray[np.float32], rng: np.random.RandomState, *, place: Place | None = None
    ) -> tuple[NDArray[np.float32], float]:
        """See :meth:`DegradationBase.apply`."""
        return _blurred(clean, blur.disc_kernel(draw(self.radius, rng))), 0.0

    def describe(self) -> str:
        """One phrase for a report."""
        return f"defocus, disc of radius {words(self.radius)} px, border reflected"


class Jpeg(DegradationBase):
    """JPEG compression at a quality of libjpeg's scale, chroma halved (4:2:0) as cameras and web sites do."""

    kind: Literal["jpeg"] = "jpeg"
    quality: Annotated[Interval, Within(1, 100)] = Field(description="1 (worst) to 100, whole numbers")

    positional = "quality"
    grid = 16

    @model_validator(mode="after")
    def _whole(self) -> Jpeg:
        if any(end != round(end) for end in self.quality):
            raise ValueError(f"quality = {text(self.quality)} is not whole")
        return self

    @property
    def margin(self) -> int:
        """One block of halved chroma."""
        return 16

    def apply(
        self, clean: NDArray[np.float32], rng: np.random.RandomState, *, place: Place | None = None
    ) -> tuple[NDArray[np.float32], float]:
        """See :meth:`DegradationBase.apply`."""
        low, high = (int(end) for end in self.quality)
        quality = low if low == high else rng.randint(low, high + 1)
        levels = to_levels(clean)
        picture = Image.fromarray(
            levels[0] if levels.shape[0] == 1 else np.ascontiguousarray(levels.transpose(1, 2, 0))
        )
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=int(quality), subsampling=2)
        with Image.open(buffer) as decoded:
            coded = np.asarray(decoded)
        return to_unit(coded[None] if coded.ndim == 2 else coded.transpose(2, 0, 1)).copy(order="C"), 0.0

    def describe(self) -> str:
        """One phrase for a report."""
        return f"JPEG, quality {words(self.quality)}, chroma 4:2:0"


Degradation: TypeAlias = Annotated[Gaussian | Rain | Haze | Motion | Defocus | Jpeg, Field(discriminator="kind")]
"""Any of them, told apart by ``kind``."""

KINDS: dict[str, type[DegradationBase]] = {
    "gaussian": Gaussian,
    "rain": Rain,
    "haze": Haze,
    "motion": Motion,
    "defocus": Defocus,
    "jpeg": Jpeg,
}
"""kind -> model, in the order of the help texts."""


_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_RANGE = re.compile(rf"({_NUMBER})(?:-({_NUMBER}))?")


def parse_degradation(value: str | Mapping[str, object]) -> DegradationBase:
    """A degradation from its short form or from a table with ``kind``.

    Args:
        value: ``KIND``, ``KIND:VALUE`` or ``KIND:KEY=VALUE,KEY=VALUE``; a VALUE is a number (``25``), a range
            (``5-55``) or, for ``motion``, a file of kernels. Or the same as a table, ``{"kind": "gaussian", "sigma":
            [5, 55]}``.

    Raises:
        UserError: An unknown kind or key (with the nearest right one), a missing or wrong value, a file of kernels that
            cannot be read.
    """
    if isinstance(value, str):
        node = f"degradation {value!r}"
        kind, _, rest = value.strip().partition(":")
        model = _model(node, kind.strip())
        table: dict[str, object] = dict(_pairs(node, model, rest))
        _check_keys(node, model, table)
        table = {key: raw if key == "kernels" else _value(node, key, str(raw)) for key, raw in table.items()}
    else:
        node = "degradation"
        model = _model(node, str(value.get("kind", "")))
        table = {key: given for key, given in value.items() if key != "kind"}
        _check_keys(node, model, table)
    try:
        degradation = model.model_validate(table)
    except ValidationError as error:
        raise UserError(_sentence(error, model), node=node) from error
    degradation.check()
    return degradation


def _model(node: str, kind: str) -> type[DegradationBase]:
    if kind not in KINDS:
        what = f"no degradation is called {kind!r}" if kind else "says no kind of degradation"
        raise UserError(what, node=node, limit=", ".join(KINDS), instead=_nearest(kind, list(KINDS)))
    return KINDS[kind]


def _check_keys(node: str, model: type[DegradationBase], table: Mapping[str, object]) -> None:
    keys = [name for name in model.model_fields if name != "kind"]
    for key in table:
        if key not in keys:
            kind = model.model_fields["kind"].default
            raise UserError(f"{kind} has no {key!r}", node=node, limit=", ".join(keys), instead=_nearest(key, keys))


def _nearest(word: str, words: list[str]) -> str:
    close = difflib.get_close_matches(word.lower(), words, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else ""


def _pairs(node: str, model: type[DegradationBase], rest: str) -> dict[str, str]:
    """``VALUE`` or ``KEY=VALUE,...`` as a table; a comma inside a value (a file name) stays in it."""
    parts: list[str] = []
    for part in rest.split(",") if rest.strip() else []:
        if parts and "=" not in part:
            parts[-1] += f",{part}"
        else:
            parts.append(part)
    table: dict[str, str] = {}
    for part in parts:
        key, equals, raw = part.partition("=")
        if not equals:
            key, raw = model.positional, part
            if model is Motion and not _RANGE.fullmatch(raw.strip()):
                key = "kernels"
        key, raw = key.strip(), raw.strip()
        if key in table:
            raise UserError(f"gives {key!r} twice", node=node)
        if not raw:
            raise UserError(f"gives no value for {key!r}", node=node)
        table[key] = raw
    return table


def _value(node: str, key: str, raw: str) -> float | tuple[float, float]:
    match = _RANGE.fullmatch(raw)
    if match is None:
        raise UserError(f"{key} = {raw!r} is neither a number nor a range", node=node, limit="25 or 5-55")
    low, high = match.groups()
    return float(low) if high is None else (float(low), float(high))


def _sentence(error: ValidationError, model: type[DegradationBase]) -> str:
    """All that is wrong with the values, in one line."""
    found = []
    for detail in error.errors():
        where = str(detail["loc"][0]) if detail["loc"] else ""
        if detail["type"] == "missing":
            found.append(f"{where} is missing ({model.model_fields[where].description})")
        else:
            message = detail["msg"].removeprefix("Value error, ")
            found.append(f"{where}: {message[0].lower()}{message[1:]}" if where and where not in message else message)
    return "; ".join(dict.fromkeys(found))


def _blurred(clean: NDArray[np.float32], kernel: blur.Kernel) -> NDArray[np.float32]:
    # The Fourier transform leaves rounding of 1e-16 on either side of the range.
    return np.clip(blur.convolve(clean, kernel), 0.0, 1.0).astype(np.float32)
