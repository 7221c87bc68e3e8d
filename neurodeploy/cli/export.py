"""``neurodeploy export``."""

from __future__ import annotations

from typing import Any

import click

from neurodeploy.cli.options import (
    force_option,
    image_option,
    model_argument,
    out_option,
    profile_option,
    seed_of,
    size_option,
    steps_option,
    target_option,
    target_options,
)
from neurodeploy.cli.output import answer, table
from neurodeploy.cli.settings import Settings, verb


@verb("export")
@model_argument
@target_option
@out_option
@profile_option
@size_option
@image_option
@steps_option
@target_options
@click.option("--no-verify", is_flag=True, help="Do not read the files back and compare.")
@force_option
def command(
    settings: Settings,
    model: str,
    target: str,
    out: str,
    profile: str | None,
    size: tuple[int, int] | None,
    image: str | None,
    steps: int | None,
    options: dict[str, str],
    no_verify: bool,
    force: bool,
) -> None:
    """Write a target's files and read them back.

    The bundle is a folder: the target's files, a manifest (T, scales, the host's share of the work, hashes), and a
    proof: a small input with the spikes that every layer owes and the output. What was written is read back and
    compared, value by value, before the folder takes its place.

    Examples:
      neurodeploy export demo --target loihi2 --out bundle
      neurodeploy export runs/mine --target nir --out mine-nir --size 256x256
      neurodeploy export demo --target loihi2 --out bundle --image photo.png --force
    """
    from neurodeploy.report.deployable import deployable
    from neurodeploy.targets.export import export
    from neurodeploy.zoo import resolve

    chosen = deployable(resolve(model, steps=steps), size=size, image=image, seed=seed_of(settings))
    bundle = export(chosen, target, out, profile=profile, options=options, force=force, verify=not no_verify)
    data = {"bundle": str(bundle.path), "verified": not no_verify, "manifest": bundle.manifest.model_dump(mode="json")}
    answer(settings, data, lambda: _text(data))


def _text(data: dict[str, Any]) -> str:
    manifest = data["manifest"]
    proof = manifest["proof"]
    layers = [{**layer, "total": _product(layer["shape"])} for layer in proof["layers"]]
    columns = [("name", "LAYER"), ("spikes", "SPIKES"), ("total", "OF"), ("margin", "SMALLEST |v - threshold|")]
    equal = "equal" if manifest["equality"]["integers_equal_float"] else "not equal"
    height, width = manifest["image_size"]
    what = f"{manifest['model']['name']} for {manifest['target']}, {height}x{width} pixels, T = {manifest['steps']}"
    parts = [
        f"{data['bundle']}: {what}",
        table(manifest["files"], [("path", "FILE"), ("size", "BYTES"), ("sha256", "SHA-256")]),
        "proof:\n" + table(layers, columns),
        f"integers and float graph: {equal} ({manifest['equality']['reason']})",
        "read back and compared: no value differs" if data["verified"] else "not read back (--no-verify)",
    ]
    for left in manifest["not_written"]:
        parts.insert(2, f"not written: {left['file']}: {'; '.join(left['reasons'])}")
    return "\n\n".join(parts)


def _product(shape: list[int]) -> int:
    total = 1
    for side in shape:
        total *= side
    return total
