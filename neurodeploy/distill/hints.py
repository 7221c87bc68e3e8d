"""Hints: which of the teacher's features guide which of the student's, and the adapters between them.

Besides a teacher's features there are two pictures that a layer can be asked for, at the student's resolution: what the
teacher takes off the degraded picture (``"restored"``), and what would have to be taken off it (``"clean"``). A layer
with such a hint has to know already what the whole student is to find, so its gradient has no other layers to cross.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neurodeploy.distill.losses import feature_loss
from neurodeploy.distill.recipe import Hint, TeacherRecipe
from neurodeploy.errors import UserError
from neurodeploy.graph.spec import StudentSpec
from neurodeploy.networks.student import Feature, SpikingStudent
from neurodeploy.networks.teachers import Teacher

PICTURES = ("restored", "clean")
"""What a hint may name instead of one of the teacher's features."""


def choose_hints(recipe: TeacherRecipe, teacher: Teacher, student: SpikingStudent) -> tuple[Hint, ...]:
    """The hint pairs of a recipe, those that it leaves open resolved: ``hint_count`` places spread over the student.

    The places lie at the same shares of the depth, the last layer first: one hint is at the end, two are in the middle
    and at the end, and so on. With ``"even"`` the teacher's features are those at the same shares of its depth, with
    ``"restored"`` its output guides all of them.

    Raises:
        UserError: A hint names a point that the teacher or the student does not have.
    """
    if recipe.hints == "none":
        return ()
    points, layers = teacher.hint_points, student.layer_names
    if isinstance(recipe.hints, str):
        if recipe.hints == "even" and not points:
            return ()
        shares = [(i + 1) / recipe.hint_count for i in range(recipe.hint_count)]
        pairs = [
            Hint(
                teacher="restored" if recipe.hints == "restored" else points[max(1, round(share * len(points))) - 1],
                student=layers[max(1, round(share * len(layers))) - 1],
            )
            for share in shares
        ]
        return tuple({(pair.teacher, pair.student): pair for pair in pairs}.values())
    for hint in recipe.hints:
        if hint.teacher not in (*points, *PICTURES):
            raise UserError(
                "the teacher has no such hint point", node=hint.teacher, limit=", ".join((*points, *PICTURES))
            )
        if hint.student not in layers:
            raise UserError("the student has no such layer", node=hint.student, limit=", ".join(layers))
    return recipe.hints


def picture_guides(spec: StudentSpec, degraded: Tensor, restored: Tensor, clean: Tensor) -> dict[str, Tensor]:
    """The guides :data:`PICTURES` of a batch.

    Args:
        spec: The student, which says whether it finds the error or the picture, and at which resolution.
        degraded: (B, C, H, W).
        restored: What the teacher makes of it.
        clean: What it was.

    Returns:
        Name -> (B, C r^2, H / r, W / r) where the student unshuffles by r.
    """
    pad = (0, -degraded.shape[-1] % spec.unshuffle, 0, -degraded.shape[-2] % spec.unshuffle)
    guides = {}
    for name, picture in zip(PICTURES, (restored, clean), strict=True):
        sought = (degraded - picture if spec.residual else picture).float()
        padded = F.pad(sought, pad, mode="replicate") if any(pad) else sought
        guides[name] = F.pixel_unshuffle(padded, spec.unshuffle)
    return guides


class HintAdapters(nn.Module):
    """One 1x1 convolution a hint, from the student's channels to the teacher's.

    They are zero at first: a hint pulls as far as its layer is found to know of the guide, never at random.

    Args:
        hints: The pairs.
        width: Channels of the student's layers.
        teacher_channels: Channels of each teacher feature, in the order of the hints.
    """

    def __init__(self, hints: tuple[Hint, ...], width: int, teacher_channels: list[int]) -> None:
        super().__init__()
        self.hints = hints
        self.adapters = nn.ModuleList(nn.Conv2d(width, channels, 1) for channels in teacher_channels)
        for parameter in self.adapters.parameters():
            nn.init.zeros_(parameter)

    @property
    def teacher_points(self) -> tuple[str, ...]:
        """Names of the teacher's features that are needed."""
        return tuple(dict.fromkeys(hint.teacher for hint in self.hints if hint.teacher not in PICTURES))

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
        """Mean over the hints of the feature error; ``mean`` as in :func:`feature_loss`, pictures are in ``teacher``.

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
