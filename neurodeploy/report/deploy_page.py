"""What the page of ``deploy`` is made of: the stages of every picture, their scores, and what is not claimed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neurodeploy.images.datasets import Sample
from neurodeploy.images.metrics import psnr, ssim
from neurodeploy.model.base import Model
from neurodeploy.report.energy import versions
from neurodeploy.report.page import (
    BundleFacts,
    BundleFile,
    DeployReport,
    Parameters,
    Picture,
    PictureSet,
    Reader,
    Reproduce,
    Scores,
    Stage,
)
from neurodeploy.report.png import difference_uri, png_uri
from neurodeploy.targets.bundle import Bundle

if TYPE_CHECKING:
    from neurodeploy.distill.recipe import Recipe
    from neurodeploy.distill.result import RunResult

BUNDLE = "bundle"
SHOWN_SIDE = 320
"""Side of the part of each picture that the page shows, pixels."""
SHOWN_IMAGES = 3
DIFFERENCE_GAIN = 4.0

Image = NDArray[np.floating[Any]]

LABELS = {
    "degraded": "degraded input",
    "teacher": "teacher (ANN)",
    "student_float": "student, float",
    "student_quantised": "student on its integer grid, by torch",
    "student_fixed": "student in the chip's integers",
    "bundle": "network read back from the bundle",
}


@dataclass
class Scored:
    """What the held-out pictures gave, stage by stage."""

    psnr: dict[str, list[float]] = field(default_factory=dict)
    ssim: dict[str, list[float]] = field(default_factory=dict)
    sets: list[PictureSet] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    float_gap: float = 0.0
    bundle_equal: bool = True

    def add(self, stage: str, restored: Image, clean: Image) -> tuple[float, float]:
        """Scores one picture at one stage."""
        values = psnr(restored, clean), ssim(restored, clean)
        self.psnr.setdefault(stage, []).append(values[0])
        self.ssim.setdefault(stage, []).append(values[1])
        return values


def samples_words(samples: Sequence[Sample]) -> str:
    """The names of the pictures, for a reader."""
    names = [sample.name for sample in samples]
    return ", ".join(names) if len(names) <= 6 else f"{', '.join(names[:5])} and {len(names) - 5} more"


def centre(image: Image, size: tuple[int, int]) -> Image:
    """The middle of a picture (C, H, W)."""
    top, left = ((have - want) // 2 for have, want in zip(image.shape[1:], size, strict=True))
    return image[:, top : top + size[0], left : left + size[1]]


def pictures_of(sample: Sample, images: dict[str, Image], scores: dict[str, tuple[float, float]]) -> PictureSet:
    """The middle of one picture at every stage, and difference maps."""
    _, height, width = sample.degraded.shape
    size = (min(SHOWN_SIDE, height), min(SHOWN_SIDE, width))
    clean = centre(np.asarray(sample.clean), size)
    pictures = [
        Picture(
            stage=stage,
            label=LABELS[stage],
            png=png_uri(centre(image, size)),
            psnr_db=scores[stage][0],
            ssim=scores[stage][1],
        )
        for stage, image in images.items()
        if stage != "student_quantised"
    ]
    pictures.append(Picture(stage="clean", label="clean original", png=png_uri(clean)))
    fixed = centre(images["student_fixed"], size)
    pictures.append(
        Picture(
            stage="difference",
            label="what is left to restore",
            png=difference_uri(fixed, clean, DIFFERENCE_GAIN),
            note=f"{DIFFERENCE_GAIN:g} x |integers - clean|",
        )
    )
    before = images.get("student_float")
    if before is not None:
        pictures.append(
            Picture(
                stage="difference",
                label="what the integers changed",
                png=difference_uri(fixed, centre(before, size), DIFFERENCE_GAIN),
                note=f"{DIFFERENCE_GAIN:g} x |integers - float|",
            )
        )
    return PictureSet(name=sample.name, height=size[0], width=size[1], pictures=pictures)


def deploy_report(
    recipe: Recipe,
    models: tuple[Model, Model | None],
    bundle: Bundle,
    target: str,
    verified: dict[str, Any],
    scored: Scored,
    energy: dict[str, Any],
    result: RunResult | None,
    command: str,
    samples: Sequence[Sample],
) -> DeployReport:
    """The whole answer of ``deploy``.

    Args:
        recipe: What was trained.
        models: The student, and its teacher where it had one.
        bundle: What was exported.
        target: For what.
        verified: The answer of ``verify``.
        scored: The held-out pictures, stage by stage.
        energy: The answer of ``energy-report``.
        result: The training, unless trained weights were taken.
        command: The command that reproduces it.
        samples: The held-out pictures.
    """
    (student, teacher), manifest = models, bundle.manifest
    degradation = recipe.degradation.describe() if recipe.degradation else "paired pictures"
    return DeployReport(
        title=f"{recipe.name} on {target}",
        model=student.name,
        target=target,
        task=recipe.task,
        degradation=degradation,
        recipe=recipe.to_json(),
        images=scored.sets,
        scores=[_scores(scored, samples, student)],
        parameters=Parameters.model_validate(
            energy["parameters"] | {"teacher": teacher.parameters if teacher else None}
        ),
        energy=energy,
        verified=bool(verified["ok"]) and scored.bundle_equal,
        readers=[_reader(row) for row in verified["readers"]],
        bundle=BundleFacts(
            target=target,
            folder=BUNDLE,
            files=[BundleFile(path=file.path, size=file.size, sha256=file.sha256) for file in manifest.files],
            notes=[f"{left.file} is not written: {'; '.join(left.reasons)}" for left in manifest.not_written]
            + [f"integers and NIR floats: {manifest.equality.reason}"],
        ),
        findings=_findings(scored, manifest.placement),
        not_claimed=_not_claimed(recipe, student, teacher, energy, scored),
        reproduce=Reproduce(
            command=command or f"neurodeploy deploy {recipe.name} --target {target}",
            versions=versions(),
            seed=recipe.seed,
            data=samples_words(samples),
            hashes={
                "recipe": hashlib.sha256(recipe.to_json().encode()).hexdigest(),
                **({"student": _sha256(student.facts.path)} if student.facts.path is not None else {}),
            },
            notes=[]
            if result is None
            else [
                f"training took {result.seconds:.0f} s for {result.steps} steps; a time limit fits the number of steps"
            ],
        ),
    )


def _scores(scored: Scored, samples: Sequence[Sample], student: Model) -> Scores:
    notes = {
        "student_float": "before its weights are rounded",
        "student_fixed": f"differs from torch on the same grid by {scored.float_gap:.1g} at most",
    }
    stages = [
        Stage(
            stage=stage,
            label=LABELS[stage],
            psnr_db=float(np.mean(values)),
            ssim=float(np.mean(scored.ssim[stage])),
            note=notes.get(stage, ""),
        )
        for stage, values in scored.psnr.items()
    ]
    fixed = next(stage for stage in stages if stage.stage == "student_fixed")
    if scored.bundle_equal:
        label, note = LABELS["bundle"], "equal to the integers, value by value, on the first picture"
        stages.append(
            Stage(stage="bundle", label=label, psnr_db=fixed.psnr_db, ssim=fixed.ssim, note=note)
            if len(samples) == 1
            else Stage(stage="bundle", label=label, psnr_db=None, note=note)
        )
    else:
        stages.append(Stage(stage="bundle", label=LABELS["bundle"], psnr_db=None, note="differs from the integers"))
    return Scores(
        data=samples_words(samples),
        images=len(samples),
        protocol="whole pictures, output clipped and rounded to 8 bits, "
        + ("RGB" if student.channels == 3 else "gray")
        + ", no border cut; noise drawn anew for each picture, seed 0",
        stages=stages,
    )


def _reader(row: dict[str, Any]) -> Reader:
    difference = row["first_difference"]
    return Reader(
        name=row["name"],
        version=row["version"] or "",
        equal=row["equal"],
        steps=row["steps"] or None,
        neurons=row["neurons"] or None,
        first_difference=None if difference is None else json.dumps(difference, sort_keys=True),
        skipped_reason=row["skipped_reason"] or None,
    )


def _findings(scored: Scored, placement: dict[str, Any] | None) -> list[str]:
    found = [] if scored.bundle_equal else ["the network read back from the bundle restores another picture"]
    for finding in (placement or {}).get("findings", []):
        found.append(
            f"{finding['node']}: {finding['rule']}" + (f" (have {finding['have']})" if finding["have"] else "")
        )
    return found


def _not_claimed(
    recipe: Recipe, student: Model, teacher: Model | None, energy: dict[str, Any], scored: Scored
) -> list[str]:
    """What a reader might take from this page and should not."""
    claims = [
        "That a chip ran this. The integers are those of Lava's bit-accurate processes; no chip was at hand.",
        f"That {len(scored.sizes)} pictures stand for all pictures, or synthetic degradation for a real camera's.",
        "That the student matches the state of the art: its score stands above beside its teacher's.",
    ]
    if teacher is not None:
        claims.append(
            "The 1/300 of the parameters and 1/50 of the energy of the method's paper: here the student has"
            f" 1/{teacher.parameters / student.parameters:.1f} of its teacher's parameters, counted tensor by tensor;"
            " the energy stands above, by model."
        )
    if recipe.train.max_minutes is not None:
        claims.append(
            "That this is what the method can reach: the training was held to"
            f" {recipe.train.max_minutes:g} minutes on a CPU."
        )
    return claims + [f"{text[0].upper()}{text[1:]}." for text in energy.get("not_claimed", [])]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
