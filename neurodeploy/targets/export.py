"""Exporting a model: check, write, prove, read back, compare. What comes out is a bundle that was read once already."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import FindingsError, UserError
from neurodeploy.files import writing_folder
from neurodeploy.hardware.profile import Profile
from neurodeploy.quantize.grid import grid_network
from neurodeploy.simulate.restore import check_image
from neurodeploy.targets import get_target
from neurodeploy.targets.base import Deployable, Job, Options, Target, Written
from neurodeploy.targets.bundle import Bundle, Contents, equality, finish, read_bundle
from neurodeploy.targets.check import CheckResult, check
from neurodeploy.targets.equal import network_differences
from neurodeploy.targets.floats import float_run
from neurodeploy.targets.nir import NETWORK as NIR_FILE
from neurodeploy.targets.proof import FloatRun, IntegerRun, integer_run, synthetic_image
from neurodeploy.targets.script import SCRIPT, write_script


def export(
    model: Deployable,
    target: str,
    out: str | Path,
    *,
    profile: Profile | str | None = None,
    options: Options | None = None,
    force: bool = False,
    verify: bool = True,
) -> Bundle:
    """Writes the bundle of a model for a target.

    Args:
        model: The model, the image size and the image that proves it.
        target: Name of the target.
        out: The folder to write.
        profile: The chip to estimate the placement for; None takes the one that the target is for, if it is for one.
        options: Options of the target.
        force: Replace an existing folder.
        verify: Read the files back with the target's own reader and compare every value with what was exported.

    Raises:
        FindingsError: The check found reasons against it, or what was read back differs.
        UserError: The target or profile is unknown, the image does not fit, or the folder exists.
    """
    checked = check(model, target, profile, options=options)
    job = checked.usable_job()
    chosen = get_target(target)
    image = proof_image(model, job)
    with writing_folder(out, force=force) as folder:
        written = _with_script(chosen, job, folder)
        result = integer_run(job.network, image)
        contents = Contents(
            target=target,
            name=model.name,
            about=model.about,
            proof=result,
            floats=_float_run(job, result, written),
            placement=_placement(checked),
        )
        finish(folder, job, written, contents)
        if verify:
            compare_files(read_bundle(folder), job)
    return read_bundle(out)


def proof_image(model: Deployable, job: Job) -> NDArray[np.float32]:
    """The image of the proof: the model's own, or a synthetic one.

    Raises:
        UserError: It does not have the size that the files are written for.
    """
    if model.image is None:
        return synthetic_image(job.network.host, model.size)
    check_image(job.network, model.image)
    if model.image.shape[1:] != model.size:
        have, limit = (f"{size[0]}x{size[1]}" for size in (model.image.shape[1:], model.size))
        raise UserError("the proof image has another size than the files", have=have, limit=limit)
    return model.image.astype(np.float32)


def compare_files(bundle: Bundle, job: Job) -> None:
    """Reads every network of a bundle back and compares it, value by value, with the one that was exported.

    Raises:
        FindingsError: Something differs.
    """
    findings = [
        finding for file, read in bundle.networks().items() for finding in network_differences(job.network, read, file)
    ]
    if findings:
        raise FindingsError("what was read back is not what was exported", findings, target=bundle.manifest.target)


def _float_run(job: Job, result: IntegerRun, written: Written) -> FloatRun | None:
    """The float interpretation, where a file of the bundle holds it and it gives other spikes than the integers."""
    holds = written.float_form or NIR_FILE in written.files
    if equality(job.network).integers_equal_float or not holds:
        return None
    return float_run(grid_network(job.network, job.size), result.codes)


def _placement(checked: CheckResult) -> dict[str, Any] | None:
    if checked.placement is None:
        return None
    said = [finding.as_dict() for finding in checked.findings if finding.severity != "error"]
    return {**checked.placement.as_dict(), "findings": said}


def _with_script(target: Target, job: Job, folder: Path) -> Written:
    written = target.write(job, folder)
    if target.template is None:
        return written
    write_script(target.template, folder, written.files)
    return replace(written, files=(*written.files, SCRIPT))
