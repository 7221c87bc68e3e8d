"""``neurodeploy export``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from neurodeploy.cli.options import (
    code_option,
    dt_option,
    first_step_bias_option,
    force_option,
    image_option,
    model_argument,
    nir_compat_option,
    out_option,
    profile_option,
    seed_of,
    size_option,
    steps_option,
    target_option,
    target_options,
    white_option,
)
from neurodeploy.cli.output import answer, table
from neurodeploy.cli.settings import Settings, verb

if TYPE_CHECKING:
    from neurodeploy.model.teacher import TeacherModel


@verb("export")
@model_argument
@target_option
@out_option
@profile_option
@size_option
@image_option
@steps_option
@dt_option
@white_option
@first_step_bias_option
@code_option
@target_options
@nir_compat_option
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
    dt: float | None,
    white: float | None,
    first_step_bias: bool | None,
    code: Any,
    options: dict[str, str],
    nir_compat: str | None,
    no_verify: bool,
    force: bool,
) -> None:
    """Write a target's files and read them back.

    The bundle is a folder: the target's files, a manifest (T, scales, the host's share of the work, hashes), and a
    proof: a small input with the spikes that every layer owes and the output. What was written is read back and
    compared, value by value, before the folder takes its place.

    Examples:
      neurodeploy export demo --target loihi2 --out bundle
      neurodeploy export runs/mine --target nir --out mine-nir --size 256x256 --nir-compat 1.0.4
      neurodeploy export demo --target loihi2 --out bundle --image photo.png --force
      neurodeploy export demo --target onnx --out graph --option form=float --option time=state
      neurodeploy export demo --target loihi2 --out small --code bursts
      neurodeploy export ffdnet-gray --target onnx --out teacher
    """
    from neurodeploy.model.teacher import TeacherModel
    from neurodeploy.report.deployable import deployable
    from neurodeploy.targets.export import export
    from neurodeploy.zoo import resolve

    options |= {} if nir_compat is None else {"compat": nir_compat}
    named = resolve(model, steps=steps, dt=dt, white=white, first_step_bias=first_step_bias, code=code)
    if isinstance(named, TeacherModel) and target == "onnx":
        _teacher(settings, named, out, options, force)
        return
    chosen = deployable(named, size=size, image=image, seed=seed_of(settings))
    bundle = export(chosen, target, out, profile=profile, options=options, force=force, verify=not no_verify)
    data = {"bundle": str(bundle.path), "verified": not no_verify, "manifest": bundle.manifest.model_dump(mode="json")}
    answer(settings, data, lambda: _text(data))


def _teacher(settings: Settings, model: TeacherModel, out: str, options: dict[str, str], force: bool) -> None:
    """A network without spikes, as an ONNX graph for use as a baseline elsewhere."""
    from neurodeploy.errors import UserError
    from neurodeploy.networks.teachers.export import export_teacher

    if options:
        given = ", ".join(sorted(options))
        raise UserError("a teacher has no options of the target", node=f"--option {given}", instead="leave them out")
    manifest = export_teacher(model.teacher, out, force=force)
    compared = manifest["compared"]
    any_size = "of any size" if manifest["multiple"] == 1 else f"whose sides are multiples of {manifest['multiple']}"
    answer(
        settings,
        {"folder": str(out), "manifest": manifest},
        lambda: (
            f"{out}/{manifest['files'][0]['path']}: {manifest['name']}, {manifest['parameters']:,} parameters, "
            f"for images {any_size}\nonnxruntime and torch differ by {compared['largest_difference']:.2g} at most"
        ),
    )


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
