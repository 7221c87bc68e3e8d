"""Running pictures for their operations: from a model and a set to the energy report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurodeploy.energy.baselines import Teacher
from neurodeploy.energy.count import OperationCounter
from neurodeploy.energy.results import Counts, ImageCounts
from neurodeploy.errors import UserError
from neurodeploy.files import writing_file
from neurodeploy.hardware.profile import Profile, load_profile
from neurodeploy.images.datasets import Sample
from neurodeploy.images.metrics import WINDOW, psnr, ssim
from neurodeploy.model.base import Model
from neurodeploy.model.teacher import TeacherModel
from neurodeploy.quantize.network import IntegerNetwork
from neurodeploy.report.activity import activity
from neurodeploy.report.checks import Check
from neurodeploy.report.energy import energy_report
from neurodeploy.report.evaluate import ImageSet
from neurodeploy.report.page import energy_html
from neurodeploy.report.png import png_uri
from neurodeploy.report.reproduce import DataHash, network_sha256
from neurodeploy.simulate.restore import restore
from neurodeploy.simulate.spread import Pool, ahead

DEFAULT_PROFILES = ("loihi2", "cmos45-fp32", "cmos45-int8", "cmos45-int32-lemaire", "cmos22-yan")
"""The chip that the project is about, and the literature's models: arithmetic alone, with memory, with movement."""
SHOWN_SIDE = 256
"""Side of the centre of the first picture that the page shows."""

OnProgress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Pricing:
    """How counts are priced; see :func:`neurodeploy.report.energy.energy_report`."""

    hops: float | None = None
    step_seconds: float | None = None
    chips: int | None = None
    allow_partial: bool = False
    allow_estimates: bool = False
    target_size: tuple[int, int] | None = None
    assume: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Runs:
    """What came of running a set of pictures.

    Attributes:
        sizes: (H, W) of every picture.
        counts: What was counted.
        quality: PSNR and SSIM of the restored pictures, where there are clean ones; None otherwise.
        data_sha256: Hash of the degraded pictures.
        first: The first picture, and its restoration.
    """

    sizes: tuple[tuple[int, int], ...]
    counts: Counts
    quality: dict[str, Any] | None
    data_sha256: str
    first: tuple[Sample, NDArray[np.float64]]


def measure_energy(
    model: Model,
    dataset: ImageSet,
    *,
    name: str | None = None,
    profiles: Sequence[str] = DEFAULT_PROFILES,
    teacher: Model | None = None,
    limit: int | None = None,
    tile: int | None = None,
    pricing: Pricing | None = None,
    checks: Sequence[Check] = (),
    reproduce: dict[str, Any] | None = None,
    html: str | Path | None = None,
    force: bool = False,
    progress: OnProgress | None = None,
    pool: Pool | None = None,
) -> dict[str, Any]:
    """Restores pictures in the chip's integers, counts what that does, and prices it.

    Args:
        model: A student, graph, ``.net`` or bundle.
        dataset: The pictures; where there are clean ones, the restored ones are scored against them.
        name: What the report calls the model; by default its own name.
        profiles: Shipped names or ``.toml`` files.
        teacher: The network that the student was distilled from, for the baselines.
        limit: Run the first so many pictures only.
        tile: Side of the tiles of large pictures; no count depends on it.
        pricing: How counts are priced.
        checks: Conditions; how each of them turned out stands under ``checks``.
        reproduce: What it takes to run this again, for the report.
        html: Write the report as one page, too.
        force: Replace that page.
        progress: Called after every picture.
        pool: Where pictures run; None: here, one after another.

    Raises:
        UserError: No picture; the model has no spikes; a profile or a limit is unknown; the teacher cannot run; the
            page exists.
    """
    how = pricing or Pricing()
    chosen = assumed(load_profiles(profiles), how.assume)
    count = len(dataset) if limit is None else min(limit, len(dataset))
    if count < 1:
        raise UserError("there is no picture to run")
    net = model.integer()
    if teacher is not None and teacher.channels != model.channels:
        raise UserError(
            f"restores other pictures than {model.name}",
            node=teacher.name,
            have=f"{teacher.channels} channels",
            limit=f"{model.channels}",
            instead="a teacher of the same channels",
        )
    with ExitStack() as stack:
        page = stack.enter_context(writing_file(html, force=force)) if html is not None else None
        runs = run_pictures(net, dataset, count, tile=tile, progress=progress, pool=pool)
        hashes = {"model": network_sha256(net), "data": runs.data_sha256}
        report = energy_report(
            runs.counts,
            chosen,
            model=name or model.name,
            teacher=None if teacher is None else count_teacher(teacher, runs.sizes),
            data=dataset.describe() + ("" if count == len(dataset) else f", the first {count}"),
            hops=how.hops,
            step_seconds=how.step_seconds,
            chips=how.chips,
            allow_partial=how.allow_partial,
            allow_estimates=how.allow_estimates,
            size=max(runs.sizes, key=lambda size: size[0] * size[1]),
            target_size=how.target_size,
            quality=runs.quality,
            activity=activity(net, runs.first[0]),
            reproduce={**(reproduce or {}), "hashes": hashes},
        )
        report["checks"] = [check.of(report) for check in checks]
        if page is not None:
            page.write_text(energy_html(report, pictures(runs)), encoding="utf-8")
    return report


def load_profiles(names: Sequence[str]) -> list[Profile]:
    """The profiles by name or file, each once.

    Raises:
        UserError: One cannot be read, or two that differ have one id, under which only one could stand.
    """
    found: dict[str, Profile] = {}
    for name in names:
        profile = load_profile(name)
        before = found.setdefault(profile.id, profile)
        if before.sha256 != profile.sha256:
            raise UserError(
                "two profiles that differ have one id", node=str(name), have=profile.id, instead="change the id of one"
            )
    return list(found.values())


def assumed(profiles: Sequence[Profile], limits: dict[str, float]) -> list[Profile]:
    """The profiles with limits set on those of chips.

    Raises:
        UserError: There is no such limit, or no chip among them.
    """
    if not limits:
        return list(profiles)
    if all(profile.model != "chip" for profile in profiles):
        raise UserError("there is no chip whose limits could be set", node="--assume", instead="name a --profile")
    return [profile.assuming(limits) if profile.model == "chip" else profile for profile in profiles]


def run_pictures(
    net: IntegerNetwork,
    dataset: ImageSet,
    count: int,
    *,
    tile: int | None = None,
    progress: OnProgress | None = None,
    pool: Pool | None = None,
) -> Runs:
    """Runs the first ``count`` pictures, counts, and scores them where there are clean ones."""
    data = DataHash()
    counts: list[ImageCounts] = []
    sizes: list[tuple[int, int]] = []
    scores: list[dict[str, float | None]] = []
    first: tuple[Sample, NDArray[np.float64]] | None = None
    tasks = ((sample, (sample.name, sample.degraded, tile)) for sample in (dataset[index] for index in range(count)))
    ran: Iterable[tuple[Sample, tuple[NDArray[np.float64], tuple[ImageCounts, ...]]]]
    if pool is None:
        ran = ((sample, count_picture(net, *arguments)) for sample, arguments in tasks)
    else:
        ran = ahead(pool, count_picture, net, tasks)
    for index, (sample, (restored, counted)) in enumerate(ran):
        data.add(sample)
        counts += counted
        first = first or (sample, restored)
        sizes.append((sample.degraded.shape[1], sample.degraded.shape[2]))
        if sample.clean is not None:
            scores.append(_scores(sample, restored, sample.clean))
        if progress is not None:
            progress(index + 1, count, sample.name)
    if first is None:
        raise UserError("there is no picture to run")
    quality = _quality(scores) if len(scores) == count else None
    return Runs(tuple(sizes), Counts(net, tuple(counts)), quality, data.sha256, first)


def count_picture(
    net: IntegerNetwork, name: str, degraded: NDArray[np.floating[Any]], tile: int | None
) -> tuple[NDArray[np.float64], tuple[ImageCounts, ...]]:
    """A restored picture, and what it took."""
    counter = OperationCounter(net)
    counter.begin(name)
    restored = restore(net, degraded, tile=tile, observer=counter)
    return restored, counter.counts().images


def pictures(runs: Runs) -> list[dict[str, Any]]:
    """The centre of the first picture at every stage, as PNG data, for the page."""
    sample, restored = runs.first
    stages: list[tuple[str, NDArray[np.floating]]] = [
        ("degraded", sample.degraded),
        ("restored in the chip's integers", restored),
    ]
    if sample.clean is not None:
        stages.append(("clean", sample.clean))
    rows = []
    for label, image in stages:
        _, height, width = image.shape
        top, left = max(0, (height - SHOWN_SIDE) // 2), max(0, (width - SHOWN_SIDE) // 2)
        part = image[:, top : top + SHOWN_SIDE, left : left + SHOWN_SIDE]
        score = None if sample.clean is None or image is sample.clean else psnr(image, sample.clean)
        rows.append(
            {
                "name": sample.name,
                "label": label,
                "png": png_uri(part),
                "height": part.shape[1],
                "width": part.shape[2],
                "psnr_db": score,
            }
        )
    return rows


def _scores(sample: Sample, restored: NDArray[np.float64], clean: NDArray[np.floating]) -> dict[str, float | None]:
    """PSNR and SSIM; no SSIM of a picture that its window does not fit into."""
    return {
        "psnr_db": psnr(restored, clean),
        "ssim": ssim(restored, clean) if min(clean.shape[1:]) >= WINDOW else None,
        "input_psnr_db": psnr(sample.degraded, clean),
    }


def _quality(scores: Sequence[dict[str, float | None]]) -> dict[str, Any]:
    """Means over the pictures, and how they were measured; None where a picture has no such score."""
    means: dict[str, float | None] = {}
    for key in scores[0]:
        known = [value for row in scores if (value := row[key]) is not None]
        means[key] = float(np.mean(known)) if len(known) == len(scores) else None
    protocol = "output clipped and rounded to 8 bits, all pixels, no border cut"
    return {**means, "images": len(scores), "protocol": protocol}


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
