"""Starting a student from another one's weights: another task, other levels or other steps of the same shape."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neurodeploy.errors import UserError
from neurodeploy.graph.student_file import StudentFile
from neurodeploy.networks.stored import student_of
from neurodeploy.networks.student import SpikingStudent

SHAPE = ("channels", "unshuffle", "width", "depth", "kernel", "dilation")
"""What two students must share for one's weights to fit the other."""


@torch.no_grad()
def start_from(student: SpikingStudent, file: StudentFile, node: str) -> None:
    """Gives a student the weights, biases and thresholds of a student file.

    Where the file has no noise map and the student has one, its weights start from zero.
    Where both have one time step and the file has other levels D', the range of every activation is kept: steps of the
    levels become delta * D' / D, and the weights that receive the counts W * D' / D. Where integer levels become spikes
    over T steps, a membrane without leak sums up what the levels' current was: the threshold becomes delta, everything
    that arrives at every step (biases, and the first convolution, which sees the picture) is divided by T, and the last
    convolution, whose output is averaged, multiplied by T.

    Args:
        student: The student to start, in its float mode, with or without batch norm.
        file: A float or quantised student.
        node: Name of the file, for the error.

    Raises:
        UserError: The shapes differ; every difference is named.
    """
    theirs, ours = file.spec, student.spec
    keys = SHAPE if ours.noise_map else (*SHAPE, "noise_map")
    differ = [key for key in keys if getattr(theirs, key) != getattr(ours, key)]
    if differ:
        raise UserError(
            "is a student of another shape",
            node=node,
            have=", ".join(f"{key} {getattr(theirs, key)}" for key in differ),
            limit=", ".join(f"{key} {getattr(ours, key)}" for key in differ),
            instead="start from a student of the same shape, or from scratch",
        )
    source = student_of(file)
    over_time = theirs.steps == 1 and ours.steps > 1
    share = theirs.levels / ours.levels if theirs.steps == ours.steps == 1 else 1.0
    last = ours.depth
    for layer, (new, old) in enumerate(zip(student.convs, source.convs, strict=True)):
        state = old.state_dict()
        if layer == 0 and ours.noise_map > theirs.noise_map:
            state["weight"] = F.pad(state["weight"], (0, 0, 0, 0, 0, 1))
        new.load_state_dict(state)
        if not isinstance(new, nn.Conv2d) or new.bias is None:
            continue
        if layer > 0:
            new.weight.mul_(share)
        if over_time and layer < last:
            new.bias.div_(ours.steps)
        if over_time and layer == 0:
            new.weight.div_(ours.steps)
        if over_time and layer == last:
            new.weight.mul_(ours.steps)
    student.log_delta.copy_(source.log_delta + math.log(2.0 if over_time else share))


@torch.no_grad()
def settle_norms(student: SpikingStudent, batch: Tensor) -> None:
    """Sets every batch norm so that it changes nothing on this batch: scale and shift become the batch's own.

    Args:
        student: In its float mode.
        batch: (B, C, H, W) degraded images.
    """

    def settle(norm: nn.Module, inputs: tuple[Any, ...]) -> None:
        if isinstance(norm, nn.BatchNorm2d):
            var, mean = torch.var_mean(inputs[0].float(), dim=(0, 2, 3), correction=0)
            norm.weight.copy_((var + norm.eps).sqrt())
            norm.bias.copy_(mean)
            if norm.running_mean is not None and norm.running_var is not None:
                norm.running_mean.copy_(mean)
                norm.running_var.copy_(var)

    hooks = [norm.register_forward_pre_hook(settle) for norm in student.norms]
    momenta = {norm: norm.momentum for norm in student.norms if isinstance(norm, nn.BatchNorm2d)}
    mode = student.training
    try:
        student.train()
        for norm in momenta:
            norm.momentum = 0.0
        student(batch)
    finally:
        for hook in hooks:
            hook.remove()
        for norm, momentum in momenta.items():
            norm.momentum = momentum
        student.train(mode)
