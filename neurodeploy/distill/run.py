"""A run from recipe to student: the stages, the schedule against the clock, scores, resuming."""

from __future__ import annotations

import copy
import hashlib
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from neurodeploy import __version__
from neurodeploy.distill.data import centre_crop, clean_of, open_images, prefetch
from neurodeploy.distill.folder import RunFolder, Standing
from neurodeploy.distill.log import RunLog
from neurodeploy.distill.memory import keep_freed_memory
from neurodeploy.distill.pace import Pace
from neurodeploy.distill.recipe import AnnSpec, Pairs, Recipe, load_recipe, settled
from neurodeploy.distill.result import Progress, RunResult
from neurodeploy.distill.team import Team, is_first, team_of
from neurodeploy.distill.trainer import Plan, Trainer
from neurodeploy.errors import UserError
from neurodeploy.images.datasets import Sample
from neurodeploy.images.metrics import psnr
from neurodeploy.images.patches import PatchSampler
from neurodeploy.networks.grid import fold_norms
from neurodeploy.networks.stored import file_of
from neurodeploy.networks.student import SpikingStudent
from neurodeploy.networks.teachers import Teacher, load_teacher

REFIT_SECONDS = 3.0
"""How often the schedule is fitted again."""
TIME_RESERVE = 0.04
"""Share of a time limit that is kept back."""

OnProgress = Callable[[Progress], None]


def distill(
    recipe: Recipe | str | Path,
    *,
    out: str | Path,
    resume: bool = False,
    force: bool = False,
    overrides: Sequence[str] = (),
    max_minutes: float | None = None,
    device: str = "cpu",
    devices: int = 1,
    nodes: int = 1,
    precision: str | None = None,
    seed: int | None = None,
    on_progress: OnProgress | None = None,
) -> RunResult:
    """Trains what a recipe describes and saves it into the run folder ``out``.

    The folder holds ``recipe.json`` (all values resolved), ``log.csv``, ``checkpoint.pt``,
    ``student-float.safetensors`` (the end of the float stage), ``student.safetensors`` (integers), ``result.json``. For
    a non-spiking network: ``weights.safetensors``.

    Args:
        recipe: A recipe or its file.
        out: The run folder.
        resume: Go on from the folder's checkpoint; the resumed run ends with the same weights as an unbroken one.
        force: Start anew in a folder that holds a run already.
        overrides: ``key.sub=value`` texts.
        max_minutes: Time limit over the recipe's own.
        device: A torch device.
        devices: Processes that share every batch; more than one are started with this process's command line.
        nodes: Machines on which the same command is called.
        precision: ``"fp32"``, ``"winograd"``, ``"bf16"`` or ``"auto"`` over the recipe's own.
        seed: Seed over the recipe's own.
        on_progress: Called after every step.

    Raises:
        UserError: Bad recipe, data, teacher or device; a folder in use without ``resume`` or ``force``.
    """
    chosen = recipe if isinstance(recipe, Recipe) else load_recipe(recipe, overrides)
    chosen = settled(chosen, max_minutes=max_minutes, precision=precision, seed=seed)
    keep_freed_memory()
    place = _device(device)
    team = team_of(place, devices, nodes, chosen.data.batch)
    return _Run(chosen, RunFolder(Path(out)), place, on_progress, team).go(resume=resume, force=force)


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"device cannot be used: {reason}", node=f"--device {name}", instead="use --device cpu"
        ) from None
    return device


class _Run:
    def __init__(
        self, recipe: Recipe, folder: RunFolder, device: torch.device, on_progress: OnProgress | None, team: Team
    ) -> None:
        self.recipe, self.folder, self.device, self.team = recipe, folder, device, team
        self.on_progress = on_progress
        self.first = team.size == 1 or is_first()
        self.elapsed_before = 0.0
        self.float_psnr: float | None = None
        self.last_psnr: float | None = None

    def go(self, *, resume: bool, force: bool) -> RunResult:
        """Prepares, trains to the end, saves."""
        if self.first:
            self.folder.claim(self.recipe, resume=resume, force=force)
        done = self.folder.result() if resume else None
        if done is not None:
            return done
        recipe = self.recipe
        sampler = PatchSampler(
            open_images(recipe, recipe.data.train, "train"),
            patch=recipe.data.patch,
            batch=recipe.data.batch,
            seed=recipe.seed,
            degradation=recipe.degradation if not isinstance(recipe.data.train, Pairs) else None,
            channels=recipe.student.channels,
            contrast=recipe.data.contrast,
        )
        self.held_out = self._held_out()
        teacher = self._teacher()  # whatever is wrong is said before other processes start
        self.device = self.team.start() or self.device
        self.trainer = Trainer(recipe, teacher and teacher.to(self.device), self.device, self.team)
        self.plan = Plan.of(recipe.train.steps, self._quantize_from())
        standing = self.folder.load_checkpoint(self.trainer) if resume else None
        if standing is not None:
            self.plan, self.elapsed_before, self.float_psnr = standing.plan, standing.elapsed, standing.float_psnr
        self.started = time.monotonic()
        try:
            self._train(sampler)
        except KeyboardInterrupt:
            self._save_checkpoint()
            raise
        return self._finish(sampler)

    def _quantize_from(self) -> float:
        return 1.0 if isinstance(self.recipe.student, AnnSpec) else self.recipe.train.quantize_from

    @property
    def elapsed(self) -> float:
        """Seconds of training, earlier sittings included."""
        return self.elapsed_before + time.monotonic() - self.started

    def _save_checkpoint(self) -> None:
        if self.first:
            self.folder.save_checkpoint(self.trainer, Standing(self.plan, self.elapsed, self.float_psnr))

    # data, teacher

    def _held_out(self) -> list[Sample]:
        data = self.recipe.data
        if data.test is None and not data.held_out:
            return []
        images = open_images(self.recipe, data.test or data.train, "test")
        samples = [images[i] for i in range(min(len(images), data.test_images))]
        return [centre_crop(sample, data.test_crop) for sample in samples if sample.clean is not None]

    def _teacher(self) -> Teacher | None:
        recipe = self.recipe.teacher
        if recipe is None:
            return None
        from neurodeploy.zoo import teacher_spec

        teacher = load_teacher(teacher_spec(recipe.model), channels=self.recipe.student.channels)
        teacher.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return teacher.eval().requires_grad_(False)

    # training

    def _train(self, sampler: PatchSampler) -> None:
        train = self.recipe.train
        batches = prefetch(sampler, self.trainer.step)
        first = self.trainer.step
        saved = last = time.monotonic()
        fitted = 0.0
        speed = 0.0
        pace = Pace(first)
        with RunLog(self.folder.log, first) if self.first else nullcontext() as log:
            while self.trainer.step < self.plan.total:
                step = self.trainer.step
                if self.trainer.student is not None and step == self.plan.switch and not self.trainer.on_grid:
                    self._end_of_float_stage()
                parts = self.trainer.advance(next(batches), self.plan)
                now = time.monotonic()
                speed = 0.95 * speed + 0.05 / (now - last) if speed else 1 / (now - last)
                last = now
                pace.mark(now, step)
                scored = (step + 1) % train.eval_every == 0 or step + 1 == self.plan.total
                if scored and self.first:
                    self.last_psnr = self._score()
                if log is not None and (scored or step % 50 == 0):
                    log.row(self._row(parts, speed, self.last_psnr if scored else None))
                if now - fitted > REFIT_SECONDS and pace.seconds_a_step is not None:
                    self._fit_clock(pace.seconds_a_step)
                    fitted = now
                if train.max_minutes is not None and self.team.size > 1:
                    self.plan = Plan(*self.team.agree((self.plan.total, self.plan.switch)))
                if now - saved > train.checkpoint_seconds and step + 1 < self.plan.total:
                    self._save_checkpoint()
                    saved = time.monotonic()
                last = time.monotonic() if scored else last
                self._report(parts, speed)

    def _fit_clock(self, seconds_a_step: float) -> None:
        """Plans as many steps as fit into the time limit, and never more than the recipe's.

        A part of the time is kept for scoring and for the grid stage, whose steps are slower.
        """
        limit = self.recipe.train.max_minutes
        if limit is None or not self.first:
            return
        left = max(0.0, limit * 60 * (1 - TIME_RESERVE) - self.elapsed)
        step = self.trainer.step
        total = min(self.recipe.train.steps, step + max(1, int(left / seconds_a_step)))
        if self.trainer.on_grid:
            self.plan = Plan(total, self.plan.switch)
        else:
            plan = Plan.of(total, self._quantize_from())
            self.plan = Plan(total, max(plan.switch, step))

    def _end_of_float_stage(self) -> None:
        if not self.first:
            return
        student = copy.deepcopy(self.trainer.averaged_student)
        fold_norms(student)
        self.float_psnr = self._score()
        self.folder.write_float_student(file_of(student, self._meta(self.float_psnr)))

    @torch.no_grad()
    def _score(self) -> float | None:
        if not self.held_out:
            return None
        model = self.trainer.average.eval()
        scores = []
        for sample in self.held_out:
            degraded = torch.from_numpy(sample.degraded)[None].to(self.device)
            if isinstance(model, SpikingStudent):
                restored = model(degraded)[0]
            elif self.recipe.student.family == "ffdnet":
                restored = model(degraded, torch.tensor([sample.noise_level], device=self.device))
            else:
                restored = model(degraded)
            scores.append(psnr(restored[0].float().cpu().numpy(), clean_of(sample)))
        return float(np.mean(scores))

    def _row(self, parts: dict[str, float], speed: float, score: float | None) -> dict[str, float | str]:
        return {
            **parts,
            "step": str(self.trainer.step),
            "stage": "grid" if self.trainer.on_grid else "float",
            "lr": self.trainer.optimiser.param_groups[0]["lr"],
            "psnr_db": "" if score is None else score,
            "images_per_s": speed * self.recipe.data.batch,
            "seconds": self.elapsed,
        }

    def _report(self, parts: dict[str, float], speed: float) -> None:
        if self.on_progress is None:
            return
        trainer, batch = self.trainer, self.recipe.data.batch
        self.on_progress(
            Progress(
                step=trainer.step,
                total=self.plan.total,
                stage="grid" if trainer.on_grid else "float",
                loss=parts["loss"],
                psnr_db=self.last_psnr,
                rate=parts.get("rate"),
                images_per_s=speed * batch,
                seconds_left=(self.plan.total - trainer.step) / speed,
            )
        )

    # the end

    def _meta(self, score: float | None) -> dict[str, Any]:
        recipe = self.recipe
        return {
            "name": recipe.name,
            "task": recipe.task,
            "degradation": recipe.degradation.model_dump(mode="json") if recipe.degradation else None,
            "teacher": recipe.teacher.model if recipe.teacher else None,
            "steps": self.trainer.step,
            "held_out_psnr_db": None if score is None else round(score, 4),
            "recipe_sha256": hashlib.sha256(recipe.to_json().encode()).hexdigest(),
            "neurodeploy": __version__,
        }

    def _finish(self, sampler: PatchSampler) -> RunResult:
        trainer, recipe = self.trainer, self.recipe
        if trainer.student is not None and not trainer.on_grid:
            # the whole run was float (quantize_from = 1, or time ran out): rounded once, without fine-tuning
            self._end_of_float_stage()
            trainer.to_grid(sampler.batch(trainer.step))
        score = self._score() if self.first else None
        student = None if trainer.student is None else trainer.averaged_student
        rates: dict[str, float] = {}
        if student is None:
            parameters = sum(parameter.numel() for parameter in trainer.average.parameters())
        else:
            parameters = student.parameters_count
            rates = {name: float(rate) for name, rate in zip(student.layer_names, student.rates, strict=False)}
        if self.first:
            self._write(student, score)
        inputs = [psnr(sample.degraded, clean_of(sample)) for sample in self.held_out]
        result = RunResult(
            name=recipe.name,
            out=str(self.folder.path),
            student=str(self.folder.weights if student is None else self.folder.student),
            steps=trainer.step,
            seconds=round(self.elapsed, 1),
            psnr_db=score,
            input_psnr_db=float(np.mean(inputs)) if inputs else None,
            psnr_float_db=self.float_psnr,
            parameters=parameters,
            rates=rates,
        )
        if self.first:
            self._save_checkpoint()
            self.folder.write_result(result)
        return result

    def _write(self, student: SpikingStudent | None, score: float | None) -> None:
        if student is None:
            meta = {**self._meta(score), "arch": self.recipe.student.model_dump(mode="json")}
            self.folder.write_weights(self.trainer.average, meta)
        else:
            self.folder.write_student(file_of(student, self._meta(score)))
