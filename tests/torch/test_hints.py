"""Hints: where they act, what guides them, and what their adapters and losses do."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the train extra")

from neurodeploy.distill.hints import HintAdapters, choose_hints, picture_guides  # noqa: E402
from neurodeploy.distill.losses import feature_loss  # noqa: E402
from neurodeploy.distill.recipe import Hint, TeacherRecipe  # noqa: E402
from neurodeploy.errors import UserError  # noqa: E402
from neurodeploy.graph.spec import StudentSpec  # noqa: E402
from neurodeploy.networks.student import SpikingStudent  # noqa: E402
from neurodeploy.networks.teachers import Teacher  # noqa: E402

SPEC = StudentSpec(width=8, depth=4, levels=4)


@pytest.fixture
def teacher() -> Teacher:
    network = torch.nn.Conv2d(1, 1, 3, padding=1)
    points = ("a", "b", "c", "d", "e", "f")
    return Teacher(network, name="t", channels=1, hint_points=points, weights_source="t.pth")


def chosen(teacher: Teacher, **values: object) -> list[tuple[str, str]]:
    recipe = TeacherRecipe(model="t", **values)
    return [(hint.teacher, hint.student) for hint in choose_hints(recipe, teacher, SpikingStudent(SPEC))]


def test_places_are_spread_from_the_end(teacher: Teacher) -> None:
    assert chosen(teacher) == [("restored", f"lif{layer}") for layer in range(4)]  # unless a recipe says otherwise
    assert chosen(teacher, hints="none") == []
    assert chosen(teacher, hints="even", hint_count=1) == [("f", "lif3")]
    assert chosen(teacher, hints="even", hint_count=2) == [("c", "lif1"), ("f", "lif3")]
    assert chosen(teacher, hints="restored", hint_count=4) == [("restored", f"lif{layer}") for layer in range(4)]
    # more hints than layers: each layer once
    assert chosen(teacher, hints="restored", hint_count=9) == [("restored", f"lif{layer}") for layer in range(4)]


def test_pairs_may_name_features_and_pictures(teacher: Teacher) -> None:
    pairs = [{"teacher": "b", "student": "lif0"}, {"teacher": "clean", "student": "lif2"}]
    assert chosen(teacher, hints=pairs) == [("b", "lif0"), ("clean", "lif2")]
    with pytest.raises(UserError, match="hint point"):
        chosen(teacher, hints=[{"teacher": "g", "student": "lif0"}])
    with pytest.raises(UserError, match="no such layer"):
        chosen(teacher, hints=[{"teacher": "restored", "student": "lif4"}])


@pytest.mark.parametrize("residual", [True, False])
def test_picture_guides_are_what_the_student_seeks_at_its_resolution(residual: bool) -> None:
    spec = StudentSpec(width=8, depth=2, unshuffle=2, residual=residual)
    degraded, restored, clean = torch.rand(3, 2, 1, 6, 7)
    guides = picture_guides(spec, degraded, restored, clean)
    for name, picture in (("restored", restored), ("clean", clean)):
        sought = degraded - picture if residual else picture
        assert guides[name].shape == (2, 4, 3, 4)
        for row in range(2):
            for column in range(2):
                own = sought[:, 0, row::2, column::2]
                assert torch.equal(guides[name][:, 2 * row + column, :, : own.shape[-1]], own)


def test_a_normalised_feature_has_no_scale_and_no_offset() -> None:
    generator = np.random.default_rng(0)
    teacher = torch.from_numpy(generator.normal(size=(3, 5, 6, 7)).astype(np.float32))
    student = torch.from_numpy(generator.normal(size=(3, 5, 6, 7)).astype(np.float32))
    values = teacher.numpy().astype(np.float64)
    mean, spread = values.mean((0, 2, 3), keepdims=True), values.std((0, 2, 3), keepdims=True)
    expected = np.mean((student.numpy() - (values - mean) / spread) ** 2)
    got = feature_loss(student, teacher, normalise=True)
    assert float(got) == pytest.approx(expected, rel=1e-5)
    scales = torch.tensor([1e-2, 1.0, 3.0, 40.0, 7.0])[:, None, None]
    again = feature_loss(student, teacher * scales + 5 * scales, normalise=True)
    assert float(again) == pytest.approx(expected, rel=1e-3)
    plain = feature_loss(student, teacher, normalise=False)
    assert float(plain) == pytest.approx(np.mean((student.numpy() - values) ** 2), rel=1e-5)


def test_a_silent_channel_is_not_blown_up() -> None:
    teacher = torch.zeros(1, 2, 4, 4)
    teacher[:, 1] = torch.rand(4, 4)
    assert float(feature_loss(torch.zeros(1, 2, 4, 4), teacher, normalise=True)) == pytest.approx(0.5, rel=0.01)


def test_statistics_may_come_from_other_parts_of_the_batch_as_well() -> None:
    whole, student = torch.rand(4, 3, 5, 5), torch.rand(4, 3, 5, 5)
    means = iter([whole.mean((0, 2, 3)), whole.square().mean((0, 2, 3))])
    part = feature_loss(student[:2], whole[:2], normalise=True, mean=lambda own: next(means))
    means = iter([whole.mean((0, 2, 3)), whole.square().mean((0, 2, 3))])
    other = feature_loss(student[2:], whole[2:], normalise=True, mean=lambda own: next(means))
    together = feature_loss(student, whole, normalise=True)
    assert float(part + other) / 2 == pytest.approx(float(together), rel=1e-6)


def test_adapters_pull_at_nothing_before_they_know_anything() -> None:
    hints = (Hint(teacher="restored", student="lif1"), Hint(teacher="a", student="lif3"))
    adapters = HintAdapters(hints, 8, [4, 6])
    assert adapters.teacher_points == ("a",)
    features = {name: torch.rand(2, 8, 4, 4, requires_grad=True) for name in ("lif1", "lif3")}
    guides = {"restored": torch.rand(2, 4, 4, 4), "a": torch.rand(2, 6, 8, 8)}
    loss = adapters.loss(features, guides, normalise=True)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(1.0, rel=1e-2)  # nothing is predicted: all of the variance is left
    for feature in features.values():
        assert feature.grad is not None
        assert not feature.grad.any()
    assert all(parameter.grad is not None for parameter in adapters.parameters())
    assert any(parameter.grad.any() for parameter in adapters.parameters())
