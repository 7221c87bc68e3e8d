"""The whole road in one go: distil (or take trained weights), quantise, export, verify, simulate, price, one page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neurodeploy.energy.count import OperationCounter
from neurodeploy.errors import UserError
from neurodeploy.files import writing_file
from neurodeploy.graph.student_file import read_student
from neurodeploy.hardware.profile import load_profile
from neurodeploy.images.datasets import Sample
from neurodeploy.images.io import write_image
from neurodeploy.model.base import Facts, Model, Restorer
from neurodeploy.model.coded import Code, coded_model
from neurodeploy.model.student import StudentModel
from neurodeploy.report.activity import activity
from neurodeploy.report.deploy_page import (
    BUNDLE,
    SHOWN_IMAGES,
    Image,
    Scored,
    centre,
    deploy_report,
    pictures_of,
    samples_words,
)
from neurodeploy.report.deployable import deployable
from neurodeploy.report.energy import energy_report
from neurodeploy.report.evaluate import ImageSet
from neurodeploy.report.markdown import deploy_markdown
from neurodeploy.report.measure import DEFAULT_PROFILES, count_teacher
from neurodeploy.report.page import deploy_html
from neurodeploy.simulate.restore import restore
from neurodeploy.targets.base import Deployable
from neurodeploy.targets.bundle import Bundle
from neurodeploy.targets.export import export
from neurodeploy.targets.verify import verify
from neurodeploy.zoo import find_entry, recipe_path, resolve

if TYPE_CHECKING:
    from neurodeploy.distill.recipe import Recipe
    from neurodeploy.distill.result import Progress, RunResult

PAGE, SUMMARY, REPORT = "index.html", "report.md", "report.json"
RUN, RESTORED = "run", "restored"
PROOF_SIDE = 64

OnProgress = Callable[[int, int, str], None]
"""Called with (done, in all, note); every stage counts anew."""


def deploy(
    recipe: str,
    *,
    target: str,
    out: str | Path,
    profiles: Sequence[str] = (),
    overrides: Sequence[str] = (),
    max_minutes: float | None = None,
    device: str = "cpu",
    precision: str | None = None,
    seed: int | None = None,
    images: int | None = None,
    resume: bool = False,
    force: bool = False,
    train: bool = False,
    code: Code = "populations",
    command: str = "",
    progress: OnProgress | None = None,
) -> dict[str, Any]:
    """Runs the whole road and writes it into one folder.

    The folder holds ``run/`` (the training), ``bundle/`` (the target's files), ``restored/`` (pictures),
    ``report.json``, ``report.md`` and ``index.html``.

    Args:
        recipe: A recipe file or a zoo name. A zoo student that is trained already is taken as it is.
        target: Name of the target.
        out: The folder.
        profiles: Prices: shipped names or ``.toml`` files; none: those of :data:`DEFAULT_PROFILES`.
        overrides: ``key.sub=value`` texts for the recipe.
        max_minutes: Time limit of the training.
        device: A torch device.
        precision: ``"fp32"`` or ``"bf16"``.
        seed: Seed of the training.
        images: Score the first so many held-out pictures only.
        resume: Go on with a training that was cut off, or that has ended, in the same folder.
        force: Start anew in a folder that is in use.
        train: Train even where the recipe's model comes with trained weights.
        code: How spikes carry integer levels.
        command: The command that reproduces this, for the page.
        progress: Called as the work goes on.

    Returns:
        The values of :class:`~neurodeploy.report.page.DeployReport`, as in ``report.json``.

    Raises:
        UserError: Bad recipe, data or target; a folder in use without ``resume`` or ``force``.
        FindingsError: The student cannot be exported to the target; all reasons at once.
    """
    from neurodeploy.distill.recipe import load_recipe, settled

    folder = Path(out)
    tell: OnProgress = progress or (lambda _done, _total, _note: None)
    chosen = load_recipe(recipe_path(recipe), overrides)
    chosen = settled(chosen, max_minutes=max_minutes, precision=precision, seed=seed)
    priced = [load_profile(name) for name in profiles or DEFAULT_PROFILES]
    if chosen.data.test is None:
        raise UserError("the road ends at held-out pictures", node="data.test", instead="name a folder of them")
    if (folder / PAGE).exists() and not (resume or force):
        raise UserError(
            "holds a finished road already",
            node=str(folder),
            instead="pass --resume to go on, or --force to start anew",
        )
    entry = find_entry(recipe)
    float_student, result = None, None
    if entry is not None and entry.file("weights") is not None and not overrides and not train:
        student = resolve(recipe)
    else:
        run = folder / RUN
        student, float_student, result = _distil(chosen, run, tell, device=device, resume=resume, force=force)
    teacher = None if chosen.teacher is None else resolve(chosen.teacher.model)
    samples = _held_out(chosen, images)
    tell(0, 1, f"exporting to {target}")
    coded = coded_model(student, code)
    bundle = export(_deployable(student, coded, samples[0]), target, folder / BUNDLE, force=resume or force)
    tell(0, 1, "verifying the bundle in every reader that is installed")
    verified = verify(bundle.path)
    counter = OperationCounter(coded.integer())
    stages = _Stages(student, coded, float_student, teacher, bundle, counter, device)
    scored = _simulate(stages, samples, folder / RESTORED, tell)
    tell(0, 1, "pricing")
    energy = energy_report(
        counter.counts(),
        priced,
        model=student.name,
        teacher=None if teacher is None else count_teacher(teacher, scored.sizes),
        data=samples_words(samples),
        allow_partial=True,
        activity=activity(coded.integer(), samples[0]),
    )
    report = deploy_report(
        chosen, (student, teacher), bundle, target, verified, scored, energy, result, command, samples
    )
    with writing_file(folder / REPORT, force=True) as path:
        path.write_text(report.model_dump_json(indent=2), encoding="utf-8")
    with writing_file(folder / SUMMARY, force=True) as path:
        path.write_text(deploy_markdown(report), encoding="utf-8")
    with writing_file(folder / PAGE, force=True) as path:
        path.write_text(deploy_html(report), encoding="utf-8")
    return {**report.model_dump(mode="json"), "page": str(folder / PAGE)}


def _distil(
    recipe: Recipe, run: Path, tell: OnProgress, **options: Any
) -> tuple[StudentModel, StudentModel | None, RunResult]:
    from neurodeploy.distill.run import distill

    def show(state: Progress) -> None:
        score = "" if state.psnr_db is None else f"{state.psnr_db:.2f} dB  "
        tell(state.step, state.total, f"training ({state.stage})  loss {state.loss:.4f}  {score}")

    result = distill(recipe, out=run, on_progress=show, **options)
    student = _student(run / "student.safetensors", recipe)
    before = run / "student-float.safetensors"
    return student, _student(before, recipe) if before.exists() else None, result


def _student(path: Path, recipe: Recipe) -> StudentModel:
    file = read_student(path)
    return StudentModel(file=file, facts=Facts(recipe.name, path, recipe.task, None, dict(file.meta)))


def _held_out(recipe: Recipe, images: int | None) -> list[Sample]:
    from neurodeploy.distill.data import open_images

    if recipe.data.test is None:
        return []
    found: ImageSet = open_images(recipe, recipe.data.test, "test")
    count = len(found) if images is None else min(images, len(found))
    if count < 1:
        raise UserError("there is no held-out picture", node="data.test")
    return [found[i] for i in range(count)]


def _deployable(student: Model, coded: Model, sample: Sample) -> Deployable:
    """The student at the size of the proof: the centre of the first held-out picture."""
    _, height, width = sample.degraded.shape
    size = (min(PROOF_SIDE, height), min(PROOF_SIDE, width))
    part = centre(sample.degraded, size)
    base = deployable(coded, size=size)
    return replace(base, image=part, calibration=[student.network(size).host.encode(part)])


@dataclass(frozen=True)
class _Stages:
    """What a picture goes through."""

    student: Model
    coded: Model
    float_student: Model | None
    teacher: Model | None
    bundle: Bundle
    counter: OperationCounter
    device: str

    def by_torch(self) -> dict[str, Restorer]:
        """The stages that torch computes, in the order of the page."""
        models = {"teacher": self.teacher, "student_float": self.float_student, "student_quantised": self.student}
        return {
            name: model.restorer("float", device=self.device) for name, model in models.items() if model is not None
        }


def _simulate(stages: _Stages, samples: Sequence[Sample], restored_folder: Path, tell: OnProgress) -> Scored:
    net = stages.coded.integer()
    by_torch = stages.by_torch()
    read_back = stages.bundle.networks()
    scored = Scored()
    for index, sample in enumerate(samples):
        tell(index, len(samples), f"simulating {sample.name} in the chip's integers")
        if sample.clean is None:
            raise UserError("has no clean original to be scored against", node=sample.name)
        images: dict[str, Image] = {"degraded": sample.degraded}
        for name, restorer in by_torch.items():
            images[name] = restorer(sample.degraded, sample.noise_level or None)
        stages.counter.begin(sample.name)
        images["student_fixed"] = restore(net, sample.degraded, observer=stages.counter)
        if index == 0:
            # the bundle's networks are compared value by value on export; one picture shows it once more, end to end
            for again in read_back.values():
                same = np.array_equal(restore(again, sample.degraded), images["student_fixed"])
                scored.bundle_equal = scored.bundle_equal and same
        scores = {name: scored.add(name, image, sample.clean) for name, image in images.items()}
        scored.sizes.append((sample.degraded.shape[1], sample.degraded.shape[2]))
        gap = np.abs(images["student_fixed"] - images["student_quantised"]).max()
        scored.float_gap = max(scored.float_gap, float(gap))
        write_image(restored_folder / f"{Path(sample.name).stem}.png", images["student_fixed"], force=True)
        if index < SHOWN_IMAGES:
            scored.sets.append(pictures_of(sample, images, scores))
    tell(len(samples), len(samples), "simulated")
    return scored
