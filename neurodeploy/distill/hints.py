"""Hints: which of the teacher's features guide which of the student's, and the adapters between them."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neurodeploy.distill.losses import feature_loss
from neurodeploy.distill.recipe import Hint, TeacherRecipe
from neurodeploy.errors import UserError
from neurodeploy.networks.student import Feature, SpikingStudent
from neurodeploy.networks.teachers import Teacher


def choose_hints(recipe: TeacherRecipe, teacher: Teacher, student: SpikingStudent) -> tuple[Hint, ...]:
    """The hint pairs of a recipe, with ``"even"`` resolved: ``hint_count`` places spread over both networks.

    The places lie at the same shares of both depths, the last layers first: one hint joins the ends, two the middles
    and the ends, and so on.

    Raises:
        UserError: A hint names a point that the teacher or the student does not have.
    """
    if recipe.hints == "none":
        return ()
    points, layers = teacher.hint_points, student.layer_names
    if recipe.hints == "even":
        if not points:
            return ()
        shares = [(i + 1) / recipe.hint_count for i in range(recipe.hint_count)]
        pairs = [
            Hint(teacher=points[round(share * len(points)) - 1], student=layers[round(share * len(layers)) - 1])
            for share in shares
            if round(share * len(points)) and round(share * len(layers))
        ]
        return tuple({(pair.teacher, pair.student): pair for pair in pairs}.values())
    for hint in recipe.hints:
        if hint.teacher not in points:
            raise UserError("the teacher has no such hint point", node=hint.teacher, limit=", ".join(points))
        if hint.student not in layers:
            raise UserError("the student has no such layer", node=hint.student, limit=", ".join(layers))
    return recipe.hints


class HintAdapters(nn.Module):
    """One 1x1 convolution a hint, from the student's channels to the teacher's.

    Args:
        hints: The pairs.
        width: Channels of the student's layers.
        teacher_channels: Channels of each teacher feature, in the order of the hints.
    """

    def __init__(self, hints: tuple[Hint, ...], width: int, teacher_channels: list[int]) -> None:
        super().__init__()
        self.hints = hints
        self.adapters = nn.ModuleList(nn.Conv2d(width, channels, 1) for channels in teacher_channels)

    @property
    def teacher_points(self) -> tuple[str, ...]:
        """Names of the teacher's features that are needed."""
        return tuple(dict.fromkeys(hint.teacher for hint in self.hints))

    def student_features(self, kind: Feature) -> dict[str, Feature]:
        """The student's features that are needed, as :meth:`SpikingStudent.forward` takes them."""
        return {hint.student: kind for hint in self.hints}

    def loss(
        self,
        student: dict[str, Tensor],
        teacher: dict[str, Tensor],
        *,
        normalise: bool,
        mean: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Mean over the hints of the feature error; ``mean`` as in :func:`feature_loss`.

        Teacher features are brought to the student's grid by area averaging where they are finer.
        """
        total = torch.zeros(())
        for hint, adapter in zip(self.hints, self.adapters, strict=True):
            have: Tensor = adapter(student[hint.student])
            want = _to_grid(teacher[hint.teacher], have.shape[-2], have.shape[-1])
            total = total.to(have.device) + feature_loss(have, want, normalise=normalise, mean=mean)
        return total / max(1, len(self.hints))


def _to_grid(feature: Tensor, height: int, width: int) -> Tensor:
    if feature.shape[-2:] == (height, width):
        return feature
    return F.adaptive_avg_pool2d(feature.float(), (height, width))
