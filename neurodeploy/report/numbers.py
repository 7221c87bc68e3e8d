"""Numbers as people read them."""

from __future__ import annotations

_PREFIXES = ((1e12, "J"), (1e9, "mJ"), (1e6, "µJ"), (1e3, "nJ"), (1.0, "pJ"))
NONE = "–"


def energy(picojoules: float | None) -> str:
    """An energy with three significant digits and a fitting unit; a dash for None."""
    if picojoules is None:
        return NONE
    for scale, unit in _PREFIXES:
        if abs(picojoules) >= 0.9995 * scale:
            return f"{_three(picojoules / scale)} {unit}"
    return f"{picojoules:.3g} pJ"


def count(value: float | None) -> str:
    """A count with separators; a mean over images with one decimal where it is not whole."""
    if value is None:
        return NONE
    return f"{value:,.0f}" if float(value).is_integer() or abs(value) >= 1e4 else f"{value:,.1f}"


def short(value: float) -> str:
    """A count for a headline: three significant digits and M or G from a million on, whole below."""
    for scale, unit in ((1e9, "G"), (1e6, "M")):
        if abs(value) >= 0.9995 * scale:
            return f"{_three(value / scale)} {unit}"
    return count(value)


def percent(share: float | None) -> str:
    """A share as a percentage with three significant digits."""
    return NONE if share is None else f"{_three(100 * share)} %"


def decimals(value: float | None, places: int = 2) -> str:
    """A number with a fixed number of decimals."""
    return NONE if value is None else f"{value:.{places}f}"


def ratio(value: float | None) -> str:
    """How many times, with three significant digits."""
    return NONE if value is None else f"{_three(value)}×"


def size(number: int) -> str:
    """A number of bytes."""
    if number < 1000:
        return f"{number} B"
    return f"{_three(number / 1e3)} kB" if number < 1e6 else f"{_three(number / 1e6)} MB"


def _three(value: float) -> str:
    """Three significant digits, never in exponents, thousands separated."""
    magnitude = abs(value)
    if magnitude >= 99.95:
        return f"{value:,.0f}"
    if magnitude >= 9.995:
        return f"{value:.1f}"
    return f"{value:.2f}" if magnitude >= 0.0995 or magnitude == 0 else f"{value:.3g}"
