"""The folder of a run: who may write into it, the checkpoint that it is resumed from, and what the run leaves there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from neurodeploy.distill.recipe import Recipe
from neurodeploy.distill.result import RunResult
from neurodeploy.distill.trainer import Plan, Trainer
from neurodeploy.errors import UserError
from neurodeploy.files import writing_file
from neurodeploy.graph.student_file import StudentFile, write_student

RECIPE, RESULT, CHECKPOINT, LOG = "recipe.json", "result.json", "checkpoint.pt", "log.csv"
STUDENT, FLOAT_STUDENT, WEIGHTS = "student.safetensors", "student-float.safetensors", "weights.safetensors"
PRODUCTS = (RESULT, CHECKPOINT, LOG, STUDENT, FLOAT_STUDENT, WEIGHTS)
"""What a run that starts anew removes; its recipe is replaced."""


@dataclass(frozen=True)
class Standing:
    """How far a run has come, apart from what its trainer holds.

    Attributes:
        plan: The steps of both stages, as last fitted.
        elapsed: Seconds of training, all sittings together.
        float_psnr: Score in dB at the end of the float stage; None before, or where nothing is scored.
    """

    plan: Plan
    elapsed: float
    float_psnr: float | None


class RunFolder:
    """A run folder; what is written through it is written whole or not at all.

    Args:
        path: The folder; made when something is first written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def log(self) -> Path:
        """The table of the steps."""
        return self.path / LOG

    @property
    def student(self) -> Path:
        """The student in integers."""
        return self.path / STUDENT

    @property
    def weights(self) -> Path:
        """The weights of a non-spiking network."""
        return self.path / WEIGHTS

    def claim(self, recipe: Recipe, *, resume: bool, force: bool) -> None:
        """Makes the folder one of this recipe's, or sees that it is.

        Args:
            recipe: The run.
            resume: Whether to go on with what is there; half-written checkpoints are removed.
            force: Whether to start anew in a folder that holds a run.

        Raises:
            UserError: It holds a run without ``resume`` or ``force``, or one of another recipe.
        """
        settled = self.path / RECIPE
        if settled.exists() and resume:
            if settled.read_text() != recipe.to_json():
                raise UserError(
                    "holds a run of another recipe",
                    node=str(self.path),
                    instead="resume with the recipe that it was started with, or choose another --out",
                )
            for left in self.path.glob(".*.pt"):
                left.unlink()
            return
        if settled.exists() and not force:
            raise UserError(
                "holds a run already", node=str(self.path), instead="pass --resume to go on, or --force to start anew"
            )
        for name in PRODUCTS:
            (self.path / name).unlink(missing_ok=True)
        with writing_file(settled, force=True) as path:
            path.write_text(recipe.to_json())

    def save_checkpoint(self, trainer: Trainer, standing: Standing) -> None:
        """Writes everything that :meth:`load_checkpoint` needs."""
        state = {
            "trainer": trainer.state(),
            "total": standing.plan.total,
            "switch": standing.plan.switch,
            "elapsed": standing.elapsed,
            "float_psnr": standing.float_psnr,
        }
        with writing_file(self.path / CHECKPOINT, force=True) as path:
            torch.save(state, path)

    def load_checkpoint(self, trainer: Trainer) -> Standing | None:
        """Brings a trainer to where the checkpoint was taken; None, and nothing done, where there is none.

        Raises:
            UserError: The file is no checkpoint, or not one of the trainer's recipe.
        """
        path = self.path / CHECKPOINT
        if not path.exists():
            return None
        try:
            state = torch.load(path, map_location=trainer.device, weights_only=True)
            trainer.load(state["trainer"])
        except Exception as error:
            raise UserError(
                f"is not a checkpoint of this recipe: {str(error).splitlines()[0]}",
                node=str(path),
                instead="start anew with --force",
            ) from error
        return Standing(Plan(int(state["total"]), int(state["switch"])), float(state["elapsed"]), state["float_psnr"])

    def write_float_student(self, file: StudentFile) -> None:
        """Writes the student as it was at the end of the float stage."""
        self._write_student(self.path / FLOAT_STUDENT, file)

    def write_student(self, file: StudentFile) -> None:
        """Writes :attr:`student`."""
        self._write_student(self.student, file)

    def _write_student(self, saved: Path, file: StudentFile) -> None:
        with writing_file(saved, force=True) as path:
            write_student(path, file, force=True)

    def write_weights(self, network: nn.Module, meta: Mapping[str, Any]) -> None:
        """Writes :attr:`weights`, with what the file says of itself."""
        from safetensors.torch import save_file

        tensors = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
        with writing_file(self.weights, force=True) as path:
            save_file(tensors, path, metadata={"neurodeploy": json.dumps(meta, sort_keys=True)})

    def result(self) -> RunResult | None:
        """What the run that ended here handed back; None where none has."""
        done = self.path / RESULT
        return RunResult(**json.loads(done.read_text())) if done.exists() else None

    def write_result(self, result: RunResult) -> None:
        """Writes what :meth:`result` reads, the last of all files."""
        with writing_file(self.path / RESULT, force=True) as path:
            path.write_text(json.dumps(asdict(result), indent=2))
