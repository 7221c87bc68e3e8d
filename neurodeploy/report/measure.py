"""Running pictures for their operations: from a model and a set to the energy report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neurodeploy.energy.baselines import Teacher
from neurodeploy.energy.count import OperationCounter
from neurodeploy.energy.results import Counts
from neurodeploy.errors import UserError
from neurodeploy.files import writing_file
from neurodeploy.hardware.profile import load_profile
from neurodeploy.model import Model, TeacherModel
from neurodeploy.quantize.network import IntegerNetwork
from neurodeploy.report.energy import energy_report
from neurodeploy.report.evaluate import ImageSet
from neurodeploy.report.page import energy_html
from neurodeploy.simulate.restore import restore

DEFAULT_PROFILES = ("loihi2", "cmos45-int32-lemaire", "cmos45-int8")
"""The chip that the project is about, and two technologies whose operations all have prices."""

OnProgress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Pricing:
    """How counts are priced; see :func:`neurodeploy.report.energy.energy_report`."""

    hops: float | None = None
    step_seconds: float | None = None
    chips: int | None = None
    allow_partial: bool = False
    allow_estimates: bool = False


def measure_energy(
    model: Model,
    dataset: ImageSet,
    *,
    profiles: Sequence[str] = DEFAULT_PROFILES,
    teacher: Model | None = None,
    limit: int | None = None,
    tile: int | None = None,
    pricing: Pricing | None = None,
    reproduce: dict[str, Any] | None = None,
    html: str | Path | None = None,
    force: bool = False,
    progress: OnProgress | None = None,
) -> dict[str, Any]:
    """Restores pictures in the chip's integers, counts what that does, and prices it.

    Args:
        model: A student, graph, ``.net`` or bundle.
        dataset: The pictures; only the degraded ones are used.
        profiles: Shipped names or ``.toml`` files.
        teacher: The network that the student was distilled from, for the baselines.
        limit: Run the first so many pictures only.
        tile: Side of the tiles of large pictures; no count depends on it.
        pricing: How counts are priced.
        reproduce: What it takes to run this again, for the report.
        html: Write the report as one page, too.
        force: Replace that page.
        progress: Called after every picture.

    Raises:
        UserError: No picture; the model has no spikes; a profile is unknown; the teacher cannot run; the page exists.
    """
    chosen = [load_profile(name) for name in profiles]
    count = len(dataset) if limit is None else min(limit, len(dataset))
    if count < 1:
        raise UserError("there is no picture to run")
    net = model.integer()
    how = pricing or Pricing()
    with writing_file(html, force=force) if html is not None else nullcontext() as page:
        sizes, counts = count_operations(net, dataset, count, tile=tile, progress=progress)
        report = energy_report(
            counts,
            chosen,
            model=model.name,
            teacher=None if teacher is None else count_teacher(teacher, sizes),
            data=dataset.describe() + ("" if count == len(dataset) else f", the first {count}"),
            hops=how.hops,
            step_seconds=how.step_seconds,
            chips=how.chips,
            allow_partial=how.allow_partial,
            allow_estimates=how.allow_estimates,
            reproduce=reproduce,
        )
        if page is not None:
            page.write_text(energy_html(report), encoding="utf-8")
    return report


def count_operations(
    net: IntegerNetwork,
    dataset: ImageSet,
    count: int,
    *,
    tile: int | None = None,
    progress: OnProgress | None = None,
) -> tuple[list[tuple[int, int]], Counts]:
    """Runs the first ``count`` pictures; hands back their sizes (H, W) and what was counted."""
    counter = OperationCounter(net)
    sizes = []
    for index in range(count):
        sample = dataset[index]
        counter.begin(sample.name)
        restore(net, sample.degraded, tile=tile, observer=counter)
        sizes.append((sample.degraded.shape[1], sample.degraded.shape[2]))
        if progress is not None:
            progress(index + 1, count, sample.name)
    return sizes, counter.counts()


def count_teacher(teacher: Model, sizes: Sequence[tuple[int, int]]) -> Teacher:
    """The teacher's multiply-accumulates, mean over pictures of these sizes, and its parameters.

    Raises:
        UserError: It is no teacher, or it does things that the counter does not know (they are named).
    """
    if not isinstance(teacher, TeacherModel):
        raise UserError("is no teacher", node=teacher.name, instead="a network without spikes")
    import torch

    from neurodeploy.networks.macs import count_macs

    macs = {}
    for size in set(sizes):
        example = (torch.zeros(1, teacher.channels, *size), torch.zeros(1))
        counted = count_macs(teacher.teacher, example)
        if counted.not_covered:
            unknown = ", ".join(sorted({found.operation for found in counted.not_covered}))
            raise UserError("does what the counter does not know", node=teacher.name, have=unknown)
        macs[size] = counted.total.in_bounds
    mean = sum(macs[size] for size in sizes) / len(sizes)
    return Teacher(name=teacher.name, mac=mean, parameters=teacher.parameters)
