"""One training run's moving parts: model, moving average, optimiser, hints; one method makes one step."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from neurodeploy.distill.hints import PICTURES, HintAdapters, choose_hints, picture_guides
from neurodeploy.distill.losses import digit_operations, fft_loss, pixel_loss, sop_loss, synaptic_operations
from neurodeploy.distill.precision import quickest
from neurodeploy.distill.recipe import AnnSpec, Recipe
from neurodeploy.distill.schedules import gamma_at, lr_at
from neurodeploy.distill.team import Team
from neurodeploy.graph.student_file import read_student
from neurodeploy.images.patches import PatchBatch
from neurodeploy.networks import winograd
from neurodeploy.networks.grid import to_grid
from neurodeploy.networks.start import settle_norms, start_from
from neurodeploy.networks.student import SpikingStudent
from neurodeploy.networks.teachers import Teacher
from neurodeploy.networks.teachers.dncnn import DnCNN
from neurodeploy.networks.teachers.ffdnet import FFDNet
from neurodeploy.zoo import student_path

GRID_LR_SHARE = 0.01
"""Peak learning rate of the stage on the integer grid, as a share of the float stage's."""
HINT_LR_SHARE = 0.5
"""Learning rate of the hints' adapters, as a share of the others'."""

FUSED_DEVICES = ("cpu", "cuda")
"""Where torch has AdamW in one pass."""
OUTPUT_LR_SHARE = 0.4
"""Learning rate of the last convolution's weights, as a share of the others', over the levels D that it receives."""

ANN_FAMILIES: dict[str, type[FFDNet] | type[DnCNN]] = {"ffdnet": FFDNet, "dncnn": DnCNN}


@dataclass(frozen=True)
class Plan:
    """The steps of a run: the float stage is [0, switch), the stage on the integer grid [switch, total)."""

    total: int
    switch: int

    @classmethod
    def of(cls, total: int, quantize_from: float) -> Plan:
        """The plan for ``total`` steps; the grid stage starts after the share ``quantize_from`` of them."""
        return cls(total, min(total, max(1, round(total * quantize_from))) if quantize_from > 0 else 0)


class Trainer:
    """Holds everything that a step changes, so that saving and loading it resumes the run exactly.

    Args:
        recipe: The run.
        teacher: The teacher, in eval mode, or None.
        device: A torch device.
        team: The processes that train together; they share every batch.
    """

    def __init__(self, recipe: Recipe, teacher: Teacher | None, device: torch.device, team: Team | None = None) -> None:
        torch.manual_seed(recipe.seed)
        self.team = team or Team()
        self.recipe, self.train, self.teacher, self.device = recipe, recipe.train, teacher, device
        self.model: nn.Module
        self.student: SpikingStudent | None = None
        if isinstance(recipe.student, AnnSpec):
            spec = recipe.student
            self.model = ANN_FAMILIES[spec.family](channels=spec.channels, width=spec.width, depth=spec.depth)
        else:
            self.student = SpikingStudent(recipe.student, surrogate=self.train.surrogate, dynamics=self.train.dynamics)
            self.student.counts_digits = self.train.sop_target is not None and self.train.sop_code == "digits"
            if self.train.init is not None:
                start_from(self.student, read_student(student_path(self.train.init)), self.train.init)
            self.model = self.student
        self.model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.hints: HintAdapters | None = self._adapters()
        self.average = copy.deepcopy(self.model).requires_grad_(False)
        self.optimiser = self._optimiser()
        self.precision = quickest(device) if self.train.precision == "auto" else self.train.precision
        if self.precision == "winograd":
            if self.student is not None:
                self.student.convolve = winograd.conv2d
            if teacher is not None:
                winograd.convolve_by_it(teacher)
        self.step = 0
        self.on_grid = False

    def _adapters(self) -> HintAdapters | None:
        teacher, student, recipe = self.teacher, self.student, self.recipe.teacher
        if teacher is None or student is None or recipe is None:
            return None
        hints = choose_hints(recipe, teacher, student)
        if not hints:
            return None
        side = 4 * student.spec.unshuffle
        probe = torch.zeros(1, student.spec.channels, side, side, device=self.device)
        points = tuple(dict.fromkeys(hint.teacher for hint in hints if hint.teacher not in PICTURES))
        with torch.no_grad():
            restored, found = teacher.features(probe, points, torch.zeros(1, device=self.device))
            found |= picture_guides(student.spec, probe, restored, probe)
        channels = [found[hint.teacher].shape[1] for hint in hints]
        return HintAdapters(hints, student.spec.width, channels).to(self.device)

    def _optimiser(self) -> torch.optim.AdamW:
        decayed: list[nn.Parameter] = []
        free: list[nn.Parameter] = []
        output = [self.student.output_weight] if self.student else []
        for parameter in self.model.parameters():
            if not any(parameter is weight for weight in output):
                (decayed if parameter.ndim > 1 else free).append(parameter)
        decay = {"weight_decay": self.train.weight_decay}
        groups = [{"params": decayed, **decay}, {"params": free, "weight_decay": 0.0}]
        if self.student:
            # no norm follows it, and it receives counts up to D: a step that suits the others would shake the picture
            groups.append({"params": output, **decay, "share": OUTPUT_LR_SHARE / self.student.spec.levels})
        if self.hints:
            # no norm steadies them: at the rate of the others they would chase the features that they are to match
            groups.append({"params": [*self.hints.parameters()], **decay, "share": HINT_LR_SHARE})
        return torch.optim.AdamW(groups, lr=self.train.lr, betas=(0.9, 0.99), fused=self.device.type in FUSED_DEVICES)

    # one step

    def advance(self, batch: PatchBatch, plan: Plan) -> dict[str, float]:
        """One optimiser step. ``batch`` must be the one of :attr:`step`. Returns what the log shows."""
        if self.student is not None and self.step == plan.switch and not self.on_grid:
            self.to_grid(batch)
        self._set_lr(plan)
        self.model.train()
        parts_of_batch = (batch.degraded, batch.clean, batch.noise_level)
        degraded, clean, level = (self._tensor(self.team.share(part)) for part in parts_of_batch)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16"):
            if self.step == 0 and self.student is not None and self.train.init is not None:
                settle_norms(self.student, degraded)
                self.team.same(self.student)
            loss, parts = self._loss(degraded, clean, level, plan)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        parameters = [parameter for group in self.optimiser.param_groups for parameter in group["params"]]
        self.team.average_gradients(parameters)
        norm = nn.utils.clip_grad_norm_(parameters, self.train.clip)
        self.optimiser.step()
        self._average()
        self.step += 1
        # one transfer from the device for all of them
        means = self.team.mean(torch.stack([loss.detach(), *parts.values()])).tolist()
        return {**dict(zip(("loss", *parts), means, strict=True)), "gradient_norm": float(norm)}

    def _tensor(self, array: Any) -> Tensor:
        tensor = torch.from_numpy(array).to(self.device)
        return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor

    def _loss(self, degraded: Tensor, clean: Tensor, level: Tensor, plan: Plan) -> tuple[Tensor, dict[str, Tensor]]:
        if self.student is None:
            restored = self.model(degraded, level) if self.recipe.student.family == "ffdnet" else self.model(degraded)
            return self._restoration_loss(restored.float(), clean)
        gamma = self._gamma(plan)
        hints = self.hints if gamma > 0 else None
        wanted = hints.student_features(self.train.hint_feature) if hints else None
        restored, features = self.student(degraded, wanted)
        guide, guides = self._guides(degraded, level, hints)
        aim = guide if guide is not None and self.train.aim == "teacher" else clean
        loss, parts = self._restoration_loss(restored.float(), aim)
        if guide is not None and self.train.output_weight > 0:
            loss = loss + self.train.output_weight * pixel_loss("l1", restored.float(), guide)
        if guide is not None and hints:
            guides |= picture_guides(self.student.spec, degraded, guide, clean)
            hint = hints.loss(features, guides, normalise=self.train.hint_normalise, mean=self.team.mean)
            loss = loss + gamma * hint
            parts["hint"] = hint.detach()
        if self.train.sop_target is not None:
            spec, student = self.student.spec, self.student
            as_digits = self.train.sop_code == "digits"
            counted = digit_operations(spec, student.digits) if as_digits else synaptic_operations(spec, student.rates)
            operations = self.team.mean(counted)
            loss = loss + self.train.sop_weight * sop_loss(operations, self.train.sop_target)
            parts["sop"] = operations.detach()
        parts["rate"] = torch.stack(self.student.rates).mean().detach()
        return loss, parts

    @torch.no_grad()
    def _guides(
        self, degraded: Tensor, level: Tensor, hints: HintAdapters | None
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """The teacher's picture in float32 and its features, where something is compared with them."""
        train = self.train
        if self.teacher is None or not (hints or train.output_weight > 0 or train.aim == "teacher"):
            return None, {}
        restored, features = self.teacher.features(degraded, hints.teacher_points if hints else (), level)
        return restored.float(), features

    def _restoration_loss(self, restored: Tensor, clean: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        loss = pixel_loss(self.train.pixel_loss, restored, clean)
        parts = {"pixel": loss.detach()}
        if self.train.fft_weight > 0:
            loss = loss + self.train.fft_weight * fft_loss(restored, clean)
        return loss, parts

    def _gamma(self, plan: Plan) -> float:
        if self.hints is None or self.on_grid:
            return 0.0
        train = self.train
        return gamma_at(
            self.step / plan.switch,
            gamma=train.gamma,
            schedule=train.gamma_schedule,
            end=train.gamma_end,
            until=train.gamma_until,
        )

    def _set_lr(self, plan: Plan) -> None:
        train = self.train
        if self.on_grid:
            step, total, peak = self.step - plan.switch, plan.total - plan.switch, train.lr * GRID_LR_SHARE
        else:
            step, total, peak = self.step, plan.switch, train.lr
        lr = lr_at(step, total=total, peak=peak, end=min(train.lr_end, peak), warmup=train.warmup)
        for group in self.optimiser.param_groups:
            group["lr"] = lr * group.get("share", 1.0)

    @torch.no_grad()
    def _average(self) -> None:
        """Moving average with a warm-up: decay = min(ema, (1 + n) / (10 + n)) after n steps."""
        decay = min(self.train.ema, (1 + self.step) / (10 + self.step))
        kept, new = ([*map(torch.Tensor.detach, model.parameters())] for model in (self.average, self.model))
        torch._foreach_lerp_(kept, new, 1 - decay)
        for held, now in zip(self.average.buffers(), self.model.buffers(), strict=True):
            # running statistics belong to the averaged weights, so they are averaged too; steps stay as they are
            held.lerp_(now, 1 - decay) if now.is_floating_point() else held.copy_(now)

    def to_grid(self, batch: PatchBatch) -> None:
        """Goes on from the averaged weights on the integer grid, rounded for this batch, with a fresh optimiser."""
        if self.student is None:
            return
        self.team.same(self.average)  # statistics of batch norm are each process's own
        self.student.load_state_dict(self.average.state_dict())
        self._fold_and_quantize(self._tensor(self.team.share(batch.degraded)))
        self.team.same(self.student)
        self.average.load_state_dict(self.student.state_dict())
        self.optimiser = self._optimiser()

    def _fold_and_quantize(self, calibration: Tensor | None = None) -> None:
        if self.student is not None:
            to_grid(self.student.eval(), calibration, self.team.mean)
            to_grid(self.averaged_student)
        self.on_grid = True

    @property
    def averaged_student(self) -> SpikingStudent:
        """The averaged student, which is what is scored and saved."""
        if not isinstance(self.average, SpikingStudent):
            raise TypeError("this run trains a non-spiking network")
        return self.average

    # state

    def state(self) -> dict[str, Any]:
        """Everything that :meth:`load` needs; tensors and plain values only."""
        return {
            "step": self.step,
            "on_grid": self.on_grid,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "hints": self.hints.state_dict() if self.hints else {},
            "optimiser": self.optimiser.state_dict(),
            "random": torch.get_rng_state(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Goes on where :meth:`state` was taken."""
        if state["on_grid"]:
            self._fold_and_quantize()
            self.optimiser = self._optimiser()
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        if self.hints:
            self.hints.load_state_dict(state["hints"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step = int(state["step"])
        torch.set_rng_state(state["random"])
