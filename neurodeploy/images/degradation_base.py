"""What all degradations share: parameters that are numbers or ranges, their limits, and their text forms."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer, model_validator


def _interval(value: object) -> tuple[float, float]:
    ends = tuple(value) if isinstance(value, list | tuple) else (value, value)
    if len(ends) != 2 or any(isinstance(end, bool) or not isinstance(end, int | float) for end in ends):
        raise ValueError(f"{value!r} is neither a number nor a range of two numbers")
    return float(ends[0]), float(ends[1])


def _short(value: tuple[float, float]) -> float | list[float]:
    return value[0] if value[0] == value[1] else list(value)


Interval: TypeAlias = Annotated[tuple[float, float], BeforeValidator(_interval), PlainSerializer(_short)]
"""A number, or the two ends of the range that it is drawn from: 25 or [5, 55]."""


@dataclass(frozen=True)
class Within:
    """Marks a parameter with the least and the greatest value that either end of its range may have."""

    low: float
    high: float

    def objection(self, name: str, value: tuple[float, float]) -> str:
        """What is wrong with a range that leaves the limits or runs downwards; empty if nothing is."""
        if not all(self.low <= end <= self.high for end in value):
            return f"{name} = {text(value)} is outside {self.low:g} to {self.high:g}"
        if value[0] > value[1]:
            return f"{name} = {text(value)} runs downwards; write {text(value[::-1])}"
        return ""


@dataclass(frozen=True)
class Place:
    """Where an array lies in the whole picture: its first row and column, and the picture's height and width."""

    top: int
    left: int
    height: int
    width: int


class DegradationBase(BaseModel, ABC):
    """What all degradations share: limits of their parameters, drawing, and their text forms."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str

    positional: ClassVar[str] = ""
    """The parameter that a bare value on the command line means."""
    grid: ClassVar[int] = 1
    """A part of a picture is degraded as the whole would be only if it begins at a multiple of this."""

    @model_validator(mode="after")
    def _within_limits(self) -> Self:
        objections = [
            limit.objection(name, value if isinstance(value, tuple) else (value, value))
            for name, field in type(self).model_fields.items()
            for limit in field.metadata
            if isinstance(limit, Within) and (value := getattr(self, name)) is not None
        ]
        if any(objections):
            raise ValueError("; ".join(filter(None, objections)))
        return self

    @property
    def margin(self) -> int:
        """How many pixels around a part of a picture have a say in it."""
        return 0

    @property
    def random_parameters(self) -> bool:
        """Whether anything but noise is drawn: then two pictures should not share their draws."""
        return any(isinstance(value, tuple) and value[0] != value[1] for _, value in self)

    @abstractmethod
    def apply(
        self, clean: NDArray[np.float32], rng: np.random.RandomState, *, place: Place | None = None
    ) -> tuple[NDArray[np.float32], float]:
        """The degraded picture.

        Args:
            clean: (C, H, W) float32 in [0, 1].
            rng: Where all randomness comes from.
            place: Where ``clean`` lies in the whole picture; None if it is the whole.

        Returns:
            The degraded picture (C, H, W) float32, and the noise level (standard deviation of the noise in units of
            the picture, sigma / 255; 0.0 where there is none).
        """

    @abstractmethod
    def describe(self) -> str:
        """One phrase for a report."""

    def check(self) -> None:
        """Reads what the degradation needs from outside, so that a fault shows before the work begins.

        Raises:
            UserError: A file is missing or not what it should be.
        """

    def spec(self) -> str:
        """The short form of the command line, which :func:`parse_degradation` reads back."""
        pairs = [f"{name}={text(value)}" for name, value in self if name != "kind" and value is not None]
        return f"{self.kind}:{','.join(pairs)}"


def draw(interval: tuple[float, float], rng: np.random.RandomState) -> float:
    """A value of the range; one that is fixed takes no draw, so that it cannot shift the noise behind it."""
    low, high = interval
    return low if low == high else float(rng.uniform(low, high))


def scaled(interval: tuple[float, float], scale: float) -> tuple[float, float]:
    """Both ends times ``scale``."""
    return interval[0] * scale, interval[1] * scale


def _number(value: float) -> str:
    return repr(value).removesuffix(".0")


def text(value: object) -> str:
    """A parameter as the command line writes it: ``25``, ``5-55``, ``kernels.npz``."""
    if isinstance(value, tuple):
        low, high = (_number(float(end)) for end in value)
        return low if low == high else f"{low}-{high}"
    return _number(float(value)) if isinstance(value, int | float) else str(value)


def words(interval: tuple[float, float]) -> str:
    """A range as a report writes it: ``25``, ``5 to 55``."""
    low, high = (f"{end:g}" for end in interval)
    return low if low == high else f"{low} to {high}"
