"""Arguments and options that several verbs share."""

from __future__ import annotations

from math import isfinite
from typing import Any

import click

from neurodeploy.cli.settings import Settings

LARGEST_AREA = 1 << 28
"""Pixels of a picture that placement takes in some seconds."""


def _size(_context: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """``"64x48"`` -> (64, 48); ``"64"`` -> (64, 64)."""
    if value is None:
        return None
    sides = value.lower().split("x")
    if len(sides) not in (1, 2) or not all(side.isdecimal() and 0 < int(side) <= 1 << 16 for side in sides):
        raise click.BadParameter(f"{value!r} is not a size such as 64x64")
    size = int(sides[0]), int(sides[-1])
    if size[0] * size[1] > LARGEST_AREA:
        raise click.BadParameter(f"{value!r} is more than {LARGEST_AREA >> 20} Mi pixels")
    return size


def _key_values(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """``("a=b",)`` -> {"a": "b"}."""
    pairs = {}
    for value in values:
        key, equals, text = value.partition("=")
        if not equals or not key.strip():
            raise click.BadParameter(f"{value!r} is not of the form key=value")
        pairs[key.strip()] = text.strip()
    return pairs


def _numbers(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, float]:
    """``("a=1",)`` -> {"a": 1.0}."""
    found = {}
    for key, text in _key_values(context, parameter, values).items():
        try:
            found[key] = float(text)
        except ValueError:
            raise click.BadParameter(f"{text!r} is not a number") from None
    return found


class FiniteRange(click.FloatRange):
    """As click's range, without "nan", which no bound would keep out, and without "inf"."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number.

        Raises:
            click.BadParameter: It is none, lies outside of the range, or is not finite.
        """
        found = float(super().convert(value, param, ctx))
        if not isfinite(found):
            self.fail(f"{value} is not a finite number", param, ctx)
        return found


model_argument = click.argument("model", metavar="MODEL")
target_option = click.option(
    "--target", required=True, metavar="TARGET", help="What to export to; see `neurodeploy targets`."
)
target_options = click.option(
    "--option",
    "options",
    multiple=True,
    callback=_key_values,
    metavar="KEY=VALUE",
    help="An option of the target (repeatable).",
)
size_option = click.option(
    "--size", callback=_size, metavar="HxW", help="Image that one run on the chip takes (default 64x64)."
)
profile_option = click.option(
    "--profile", metavar="PROFILE", help="The chip: a shipped name or a .toml (default: the target's own)."
)
image_option = click.option(
    "--image", type=click.Path(), metavar="FILE", help="Clean picture whose degraded centre makes the proof."
)
target_size_option = click.option(
    "--target-size", callback=_size, metavar="HxW", help="Picture to restore: chips to hold it at once, or tiles."
)
assume_option = click.option(
    "--assume",
    multiple=True,
    callback=_numbers,
    metavar="LIMIT=VALUE",
    help="Set a limit of the chip, known or not, for example fan_in=4096 (repeatable).",
)
tile_option = click.option(
    "--tile", type=click.IntRange(min=8), default=None, metavar="N", help="Run large pictures in tiles of N pixels."
)
steps_option = click.option(
    "--steps",
    type=click.IntRange(1, 4096),
    default=None,
    metavar="T",
    help="Time steps for a .nir or .net that does not say.",
)
dt_option = click.option(
    "--dt",
    type=FiniteRange(min=0, min_open=True),
    default=None,
    metavar="SECONDS",
    help="Length of a time step for a .nir that does not say.",
)
white_option = click.option(
    "--white",
    type=FiniteRange(min=0, min_open=True),
    default=None,
    metavar="VALUE",
    help="What a .nir or .net that does not say takes for white in a picture (default: 1 for .nir, 255 for .net).",
)
first_step_bias_option = click.option(
    "--first-step-bias/--no-first-step-bias",
    default=None,
    help="Whether biases on feedback edges of a .nir count in the first step, as in snnTorch, or from the second on.",
)
code_option = click.option(
    "--code",
    type=click.Choice(["populations", "bursts", "digits"]),
    default="populations",
    show_default=True,
    help="How spikes carry D integer levels: D neurons in one step; one neuron in D steps, at a D-th of the operations;"
    " or the binary digits of what it counts to, at half of those again, with more neurons and weights.",
)
nir_compat_option = click.option(
    "--nir-compat",
    type=click.Choice(["1.0.4"]),
    default=None,
    help="Write NIR files that this older version of nir reads (the same as --option compat=1.0.4).",
)
force_option = click.option("--force", is_flag=True, help="Replace what is there.")
scheduler_option = click.option(
    "--scheduler", metavar="ADDRESS", help="Spread the work over the Dask cluster whose scheduler is there."
)
out_option = click.option("--out", required=True, type=click.Path(), metavar="DIR", help="Folder to write.")


def seed_of(settings: Settings) -> int:
    """The seed that was given, or 0."""
    return 0 if settings.seed is None else settings.seed


def device_of(settings: Settings) -> str:
    """The torch device that was given, or the CPU."""
    return settings.device or "cpu"
