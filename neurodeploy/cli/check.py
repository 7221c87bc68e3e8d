"""``neurodeploy check``."""

from __future__ import annotations

from typing import Any

from neurodeploy.cli.findings import findings_text
from neurodeploy.cli.options import (
    image_option,
    model_argument,
    profile_option,
    seed_of,
    size_option,
    steps_option,
    target_option,
    target_options,
)
from neurodeploy.cli.output import answer
from neurodeploy.cli.settings import Settings, verb


@verb("check")
@model_argument
@target_option
@profile_option
@size_option
@image_option
@steps_option
@target_options
def command(
    settings: Settings,
    model: str,
    target: str,
    profile: str | None,
    size: tuple[int, int] | None,
    image: str | None,
    steps: int | None,
    options: dict[str, str],
) -> int:
    """Say every reason why a model would not export, map or fit.

    The same code path as `export`, and nothing is written. Exit code 1 if there is an error among the findings. MODEL
    may also be a recipe: the student that it describes is looked at before it is trained.

    Examples:
      neurodeploy check demo --target loihi2
      neurodeploy check mine.toml --target lava
      neurodeploy check graph.nir --target loihi2 --steps 16 --size 128x128
      neurodeploy --json check runs/mine --target loihi2 --profile my_chip.toml
    """
    from neurodeploy.report.deployable import deployable
    from neurodeploy.targets.check import check
    from neurodeploy.zoo import resolve

    chosen = resolve(model, steps=steps, untrained=True)
    result = check(deployable(chosen, size=size, image=image, seed=seed_of(settings)), target, profile, options=options)
    data = {"model": chosen.name, **result.as_dict()}
    answer(settings, data, lambda: _text(data))
    return 0 if result.ok else 1


def _text(data: dict[str, Any]) -> str:
    errors = sum(finding["severity"] == "error" for finding in data["findings"])
    verdict = "would export" if data["ok"] else f"would not export: {errors} reason{'' if errors == 1 else 's'}"
    parts = [f"{data['model']} -> {data['target']}: {verdict}", findings_text(data["findings"])]
    if data["placement"] is not None:
        parts.append(placement_text(data["placement"]))
    return "\n\n".join(part for part in parts if part)


def placement_text(placement: dict[str, Any]) -> str:
    """The estimate of what a network takes on a chip, in a few lines."""

    def span(pair: Any) -> str:
        return "unknown" if pair is None else str(pair[0]) if pair[0] == pair[1] else f"{pair[0]} to {pair[1]}"

    height, width = placement["image_size"]
    return "\n".join(
        [
            f"on {placement['profile']}, {height}x{width} pixels a run (an estimate: {placement['estimate']}):",
            f"  {placement['neurons']:,} neurons, {placement['synapses']:,} synapses",
            f"  {span(placement['cores'])} cores, {span(placement['chips'])} chips",
            f"  tightest: {placement['tightest']}",
        ]
    )
