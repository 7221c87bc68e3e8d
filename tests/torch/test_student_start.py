"""A student that starts from another one computes what the other does, as far as their kinds allow."""

from __future__ import annotations

import pytest
import torch

from neurodeploy.errors import UserError
from neurodeploy.graph.spec import StudentSpec
from neurodeploy.networks.grid import fold_norms
from neurodeploy.networks.start import settle_norms, start_from
from neurodeploy.networks.stored import file_of
from neurodeploy.networks.student import SpikingStudent

EDGES = ((1, 3), (2, 3))


def trained(**changes: object) -> SpikingStudent:
    torch.manual_seed(1)
    student = SpikingStudent(StudentSpec(width=6, depth=4, edges=EDGES, **changes))
    with torch.no_grad():
        for layer in range(5):
            student.bias(layer).normal_(std=0.2)
        student.log_delta.normal_(std=0.3)
    return student.eval()


@pytest.fixture
def batch() -> torch.Tensor:
    return torch.rand(3, 1, 20, 24, generator=torch.Generator().manual_seed(2))


def test_it_restores_what_the_file_restores(batch: torch.Tensor) -> None:
    source = trained()
    student = SpikingStudent(source.spec)
    start_from(student, file_of(source), "other")
    assert torch.equal(student.eval()(batch)[0], source(batch)[0])


def test_a_noise_map_is_not_seen_before_training(batch: torch.Tensor) -> None:
    source = trained()
    student = SpikingStudent(source.spec.model_copy(update={"noise_map": True}))
    start_from(student, file_of(source), "other")
    assert torch.equal(student.eval()(batch)[0], source(batch)[0])
    with pytest.raises(UserError, match="noise_map"):
        start_from(trained(), file_of(student), "told")


def test_settled_batch_norms_change_nothing(batch: torch.Tensor) -> None:
    source = trained()
    student = SpikingStudent(source.spec.model_copy(update={"norm": "batch"}))
    start_from(student, file_of(source), "other")
    before = student.train()(batch)[0]
    assert not torch.allclose(before, source(batch)[0], atol=1e-3)
    settle_norms(student, batch)
    assert student.training
    wanted = source(batch)[0]
    for mode in (True, False):
        restored = student.train(mode)(batch)[0]
        # a current within rounding of a threshold may fall on its other side
        assert (restored - wanted).abs().gt(1e-4).float().mean() < 0.02
    fold_norms(student.eval())
    assert (student(batch)[0] - wanted).abs().gt(1e-4).float().mean() < 0.02


def test_other_levels_keep_the_range_of_activations(batch: torch.Tensor) -> None:
    source = trained(levels=8)
    student = SpikingStudent(source.spec.model_copy(update={"levels": 4}))
    start_from(student, file_of(source), "other")
    for layer in range(4):
        torch.testing.assert_close(student.delta(layer) * 4, source.delta(layer) * 8)
    coarse, fine = student.eval()(batch)[0], source(batch)[0]
    # the same function on a coarser scale: far nearer to it than to the picture itself
    assert (coarse - fine).square().mean() < 0.25 * (batch - fine).square().mean()


def test_levels_become_spikes_over_time() -> None:
    source = trained(levels=4)
    spec = source.spec.model_copy(update={"levels": 1, "steps": 4, "decay": 1 / 4096})
    student = SpikingStudent(spec)
    start_from(student, file_of(source), "other")
    picture = torch.full((1, 1, 16, 16), 0.5)
    counts = source(picture, {"lif0": "spikes"})[1]["lif0"]
    rates = student.eval()(picture, {"lif0": "spikes"})[1]["lif0"]
    # a constant current below the threshold reaches it after the steps that its level says, give or take a rounding
    assert (counts - rates).abs().max() <= 0.5
    assert (rates > 0).sum() > 0
    torch.testing.assert_close(student.delta(0) / 2, source.delta(0))


def test_another_shape_is_refused_by_name() -> None:
    file = file_of(trained())
    with pytest.raises(UserError, match=r"small\.safetensors.*depth 4") as caught:
        start_from(SpikingStudent(StudentSpec(width=6, depth=5)), file, "small.safetensors")
    assert "width" not in str(caught.value)
