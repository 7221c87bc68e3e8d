"""``neurodeploy check``."""

from __future__ import annotations

from typing import Any

import click

from neurodeploy.cli.findings import findings_text
from neurodeploy.cli.options import (
    assume_option,
    code_option,
    dt_option,
    first_step_bias_option,
    image_option,
    model_argument,
    profile_option,
    seed_of,
    size_option,
    steps_option,
    target_option,
    target_options,
    target_size_option,
    white_option,
)
from neurodeploy.cli.output import answer, table
from neurodeploy.cli.settings import Settings, verb


@verb("check")
@model_argument
@target_option
@profile_option
@size_option
@image_option
@target_size_option
@click.option("--chips", type=click.IntRange(min=1), metavar="N", help="Chips that there are (default 1).")
@assume_option
@steps_option
@dt_option
@white_option
@first_step_bias_option
@code_option
@target_options
def command(
    settings: Settings,
    model: str,
    target: str,
    profile: str | None,
    size: tuple[int, int] | None,
    image: str | None,
    target_size: tuple[int, int] | None,
    chips: int | None,
    assume: dict[str, float],
    steps: int | None,
    dt: float | None,
    white: float | None,
    first_step_bias: bool | None,
    code: Any,
    options: dict[str, str],
) -> int:
    """Say every reason why a model would not export, map or fit.

    The same code path as `export`, and nothing is written. Exit code 1 if there is an error among the findings. MODEL
    may also be a recipe: the student that it describes is looked at before it is trained. Cores and chips are an
    estimate, layer by layer and limit by limit, with what would have to change.

    Examples:
      neurodeploy check demo --target loihi2
      neurodeploy check mine.toml --target lava
      neurodeploy check graph.nir --target loihi2 --steps 16 --size 128x128
      neurodeploy check demo --target loihi2 --target-size 512x512 --chips 4
      neurodeploy --json check runs/mine --target loihi2 --profile my_chip.toml
    """
    from neurodeploy.report.deployable import deployable
    from neurodeploy.targets.check import check_fit
    from neurodeploy.zoo import resolve

    chosen = resolve(model, steps=steps, dt=dt, white=white, first_step_bias=first_step_bias, code=code, untrained=True)
    result = check_fit(
        deployable(chosen, size=size, image=image, seed=seed_of(settings)),
        target,
        profile,
        options=options,
        assume=assume,
        target_size=target_size,
        chips=chips,
    )
    data = {"model": chosen.name, **result.as_dict()}
    answer(settings, data, lambda: _text(data))
    return 0 if result.ok else 1


def _text(data: dict[str, Any]) -> str:
    errors = sum(finding["severity"] == "error" for finding in data["findings"])
    verdict = "would export" if data["ok"] else f"would not export: {errors} reason{'' if errors == 1 else 's'}"
    parts = [f"{data['model']} -> {data['target']}: {verdict}", findings_text(data["findings"])]
    if data["placement"] is not None:
        parts.append(placement_text(data["placement"]))
    if data["advice"] is not None:
        parts.append(advice_text(data["advice"]))
    return "\n\n".join(part for part in parts if part)


def placement_text(placement: dict[str, Any]) -> str:
    """The estimate of what a network takes on a chip: a summary, its layers, and the chip's limits."""
    height, width = placement["image_size"]
    summary = [
        f"on {placement['profile']}, {height}x{width} pixels a run (an estimate: {placement['estimate']}):",
        f"  {placement['neurons']:,} neurons, {placement['synapses']:,} synapses",
        f"  {_named(placement['cores'], 'core')}, {_named(placement['chips'], 'chip')}",
        f"  tightest: {placement['tightest']}",
        f"  {placement['pipeline_steps']} layers one after another: a pipeline of as many steps",
    ]
    return "\n\n".join(["\n".join(summary), _layers(placement["layers"]), _limits(placement["limits"])])


def advice_text(advice: dict[str, Any]) -> str:
    """What fits, and what would have to change, in a few lines."""
    there = advice["chips"]
    where = "one chip" if there == 1 else f"{there} chips"
    tile, target, plan = advice["largest_tile"], advice["target"], advice["plan"]
    lines = [
        f"on {where} (estimates):",
        f"  largest tile: {_side(tile['shared_weights'])} with weights shared,"
        f" {_side(tile['expanded_weights'])} with every synapse stored",
    ]
    if tile["halo"] is not None:
        lines.append(f"  of a tile, {tile['halo']} pixels at every side depend on what lies outside")
    height, width = target["size"]
    lines.append(f"  {height}x{width} at once: {_named(target['chips'], 'chip')}")
    lines += [f"  instead: {change}" for change in advice["changes"]]
    if plan is not None and plan["chips"] > 1:
        pairs = plan["traffic"]["pairs"]
        where = f"{plan['chips']} chips, {plan['strategy']}"
        lines.append(f"  one run on {where}: at most {pairs:,} spikes a step cross between chips")
    return "\n".join(lines)


def _layers(layers: list[dict[str, Any]]) -> str:
    columns = (
        ("name", "LAYER"), ("neurons", "NEURONS"), ("fan_in", "FAN-IN"), ("cores", "CORES"), ("by", "BOUND BY"),
        ("shared", "SHARED KBIT"), ("expanded", "EXPANDED KBIT"), ("width", "WEIGHT BITS"), ("state", "STATE KBIT"),
        ("axons", "AXONS IN/OUT A CORE"), ("delay", "DELAY"),
    )  # fmt: skip
    rows = [
        {
            "name": layer["name"],
            "neurons": layer["neurons"],
            "fan_in": layer["fan_in"],
            "cores": _span(layer["cores"]),
            "by": layer["bound_by"],
            "shared": layer["shared_bits"] // 1000,
            "expanded": layer["expanded_bits"] // 1000,
            "width": layer["weight_bits"],
            "state": layer["state_bits"] // 1000,
            "axons": f"{layer['input_axons']:,} / {layer['output_axons']:,}",
            "delay": layer["delay"],
        }
        for layer in layers
    ]
    return table(rows, columns)


def _limits(limits: list[dict[str, Any]]) -> str:
    columns = (("name", "LIMIT"), ("have", "ASKED"), ("limit", "OF THE CHIP"), ("status", ""), ("trust", "KNOWN"))
    rows = [
        {
            **use,
            "name": use["name"].replace("_", " "),
            "have": _span(use["have"]),
            "limit": "unknown" if use["limit"] is None else f"{use['limit']:,.0f}",
            "status": {"over": "more than one", "shared": "fits if shared", "broken": "does not fit"}.get(
                use["status"], use["status"]
            ),
        }
        for use in limits
    ]
    return table(rows, columns)


def _named(pair: Any, noun: str) -> str:
    """``"1 chip"``, ``"2 to 20 chips"``."""
    return f"{_span(pair)} {noun}{'' if pair is not None and tuple(pair) == (1, 1) else 's'}"


def _span(pair: Any) -> str:
    if pair is None:
        return "unknown"
    return f"{pair[0]:,}" if pair[0] == pair[1] else f"{pair[0]:,} to {pair[1]:,}"


def _side(side: int | None) -> str:
    return "none" if side is None else f"{side}x{side}"
