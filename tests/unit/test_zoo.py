"""The zoo, and what a MODEL argument means."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

import neurodeploy.zoo as zoo
from neurodeploy.errors import UserError
from neurodeploy.graph.nir_file import write_nir
from neurodeploy.graph.portable import Network
from neurodeploy.graph.spec import HostSide, StudentSpec, pixel_shuffle, pixel_unshuffle
from neurodeploy.graph.student_file import write_student
from neurodeploy.model.base import Model
from neurodeploy.model.integer import IntegerModel
from neurodeploy.model.student import StudentModel
from neurodeploy.model.teacher import TeacherModel
from neurodeploy.quantize.lower import quantize
from neurodeploy.report.deployable import deployable
from neurodeploy.shipped import shipped
from neurodeploy.simulate.floating import run_float
from neurodeploy.targets.export import export
from neurodeploy.untrained import untrained_file

SPEC = StudentSpec(width=5, depth=3, levels=3, steps=1, edges=((1, 2),))
CHAIN = StudentSpec(width=4, depth=2, levels=2, steps=1)


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A zoo of its own, and an empty folder to stand in."""
    folder = tmp_path / "models"
    folder.mkdir()
    monkeypatch.setattr(zoo, "shipped", lambda name: tmp_path / name)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return folder


def _entry(models: Path, folder_name: str, kind: str = "student", **values: str) -> Path:
    folder = models / folder_name
    folder.mkdir()
    table = {"name": folder_name, "kind": kind, "task": "denoise", "summary": "for a test", **values}
    text = "\n".join(f'{key} = "{value}"' for key, value in table.items())
    (folder / "model.toml").write_text(text)
    return folder


def _student(path: Path, spec: StudentSpec = SPEC) -> Path:
    write_student(path, untrained_file(spec, {"task": "denoise", "name": "small"}))
    return path


def _image(model: Model) -> np.ndarray:
    return np.random.default_rng(0).random((model.channels, 23, 18)).astype(np.float32)


# the shipped zoo


def test_every_shipped_model_is_whole() -> None:
    entries = zoo.zoo_entries()
    assert {path.parent.name for path in shipped("models").glob("*/model.toml")} == {entry.name for entry in entries}
    for entry in entries:
        for key in ("weights", "recipe", "card"):
            named = getattr(entry, key)
            assert named is None or Path(named).name == named, "files lie beside model.toml"


def test_every_shipped_recipe_is_sound() -> None:
    from neurodeploy.distill.recipe import load_recipe

    for entry in zoo.zoo_entries():
        if entry.recipe is not None:
            recipe = load_recipe(zoo.recipe_path(entry.name))
            assert (recipe.name, recipe.task) == (entry.name, entry.task)


# entries


def test_listing_counts_parameters_from_the_header(models: Path) -> None:
    _student(_entry(models, "small", weights="w.safetensors") / "w.safetensors")
    _entry(models, "later", recipe="recipe.toml")
    rows = {row["name"]: row for row in zoo.list_models()["models"]}
    model = zoo.resolve("small")
    assert rows["small"]["parameters"] == model.parameters and rows["small"]["trained"] is True
    assert rows["later"]["parameters"] is None and rows["later"]["trained"] is False


def test_parameters_are_weights_biases_and_the_thresholds_of_the_populations(models: Path) -> None:
    model = StudentModel(untrained_file(SPEC), zoo.Facts("small"))
    convs = (4 * 9 * 5 + 5) + 2 * (5 * 9 * 5 + 5) + (5 * 9 * 4 + 4)
    assert model.parameters == convs + 3 * SPEC.levels
    assert IntegerModel(model.integer(), zoo.Facts("small")).parameters == convs + 3 * SPEC.levels


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"kind": "pupil"}, "kind"),
        ({"kind": "teacher", "weights": "w"}, "arch"),
        ({}, "weights or a recipe"),
        ({"weights": "w", "colour": "red"}, "colour"),
        ({"weights": "w", "name": "other"}, "folder"),
        ({"weights": "w", "summary": ""}, "summary"),
    ],
)
def test_a_bad_entry_is_named(models: Path, values: dict[str, str], word: str) -> None:
    _entry(models, "bad", **values)
    with pytest.raises(UserError, match=word) as caught:
        zoo.zoo_entries()
    assert "model.toml" in caught.value.node


def test_a_name_of_the_zoo_wins_over_a_folder_of_the_same_name(models: Path) -> None:
    _student(_entry(models, "small", weights="w.safetensors") / "w.safetensors")
    Path("small").mkdir()
    assert zoo.resolve("small").facts.path == models / "small" / "w.safetensors"
    with pytest.raises(UserError, match="neither a run folder nor a bundle"):
        zoo.resolve("./small")


def test_an_untrained_entry_says_how_to_train_it(models: Path) -> None:
    _entry(models, "later", recipe="recipe.toml")
    with pytest.raises(UserError) as caught:
        zoo.resolve("later")
    assert "neurodeploy distill later" in caught.value.instead


def test_nearest_names(models: Path) -> None:
    _entry(models, "denoise-gray", recipe="recipe.toml")
    _entry(models, "ffdnet-gray", "teacher", arch="ffdnet", weights="w.safetensors")
    for ask, near in ((zoo.resolve, "denoise-gray"), (zoo.recipe_path, "denoise-gray")):
        with pytest.raises(UserError) as caught:
            ask("denoise-grey")
        assert near in caught.value.instead
    with pytest.raises(UserError) as caught:
        zoo.teacher_spec("fdnet-gray")
    assert "ffdnet-gray" in caught.value.instead


# teachers


def test_teachers_by_name_run_and_text(models: Path) -> None:
    weights = _entry(models, "ffdnet-gray", "teacher", arch="ffdnet", weights="w.safetensors") / "w.safetensors"
    weights.touch()
    assert zoo.teacher_spec("ffdnet-gray") == f"ffdnet:{weights}"
    assert zoo.teacher_spec("dncnn:some.pth") == "dncnn:some.pth"
    assert zoo.teacher_spec("package.module:Class") == "package.module:Class"
    run = Path("run")
    run.mkdir()
    (run / "weights.safetensors").touch()
    (run / "recipe.json").write_text(json.dumps({"student": {"family": "dncnn"}}))
    assert zoo.teacher_spec("run") == "dncnn:run/weights.safetensors"
    assert isinstance(zoo.resolve("run"), TeacherModel)
    assert zoo.resolve("ffdnet:some.pth").kind == "teacher"


def test_a_student_cannot_teach(models: Path) -> None:
    _student(_entry(models, "small", weights="w.safetensors") / "w.safetensors")
    with pytest.raises(UserError, match="cannot teach"):
        zoo.teacher_spec("small")


def test_a_teacher_has_no_spikes(models: Path) -> None:
    teacher = zoo.resolve("ffdnet:some.pth")
    for ask in (teacher.network, teacher.integer):
        with pytest.raises(UserError, match="without spikes"):
            ask()


# students, graphs, files of Lava, bundles


def test_all_forms_of_one_student_restore_alike(models: Path) -> None:
    student = zoo.resolve(str(_student(Path("s.safetensors"), CHAIN)))
    image = _image(student)
    want = student.restorer("fixed")(image)
    assert np.abs(want - image).max() > 0.01
    export(deployable(student, size=(32, 32)), "loihi2", "bundle")
    for text, kind in (("bundle", "bundle"), ("bundle/network.nir", "graph"), ("bundle/network.net", "lava")):
        model = zoo.resolve(text)
        assert model.kind == kind and model.steps == 1
        if kind == "bundle":
            assert (model.name, model.facts.task) == ("s", "denoise")
        if kind != "lava" or model.integer().host == student.integer().host:
            np.testing.assert_allclose(model.restorer("fixed")(image), want, atol=1e-12)


def test_a_graph_restores_in_float_what_its_integers_restore_at_any_size(models: Path) -> None:
    student = zoo.resolve(str(_student(Path("s.safetensors"))))
    write_nir("s.nir", student.network((40, 40)).graph)
    graph = zoo.resolve("s.nir")
    assert graph.default_arithmetic == "float"
    image = _image(student)
    np.testing.assert_allclose(graph.restorer()(image), student.restorer("fixed")(image), atol=1e-9)


def test_without_torch_a_student_runs_in_float_all_the_same(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "torch", None)
    student = StudentModel(untrained_file(SPEC), zoo.Facts("small"))
    image = _image(student)
    np.testing.assert_allclose(student.restorer("float")(image), student.restorer("fixed")(image), atol=1e-9)


def bare_graph(path: str) -> Network:
    """Writes a graph that says nothing of its surroundings."""
    network: Network = StudentModel(untrained_file(CHAIN), zoo.Facts("small")).network((16, 16))
    network.graph.metadata = {}
    write_nir(path, network.graph)
    return network


def test_a_graph_without_hints_is_told_what_it_does_not_say(models: Path) -> None:
    bare_graph("bare.nir")
    with pytest.raises(UserError, match=r"bare\.nir: does not say how long a time step is and how many .*--dt"):
        zoo.resolve("bare.nir")
    with pytest.raises(UserError, match="does not say how long a time step is;"):
        zoo.resolve("bare.nir", steps=5)
    with pytest.raises(UserError, match="does not say how many time steps it runs;"):
        zoo.resolve("bare.nir", dt=1e-3)
    host = zoo.resolve("bare.nir", steps=5, dt=1e-3).network().host
    assert (host.channels, host.unshuffle, host.steps, host.dt, host.residual) == (1, 2, 5, 1e-3, False)


def test_white_is_one_or_what_the_user_says(models: Path) -> None:
    """A graph for pictures in 0..1 sees 8-bit codes through weights that are divided by 255."""
    network = bare_graph("bare.nir")
    image = np.random.RandomState(0).randint(0, 256, (1, 16, 16)) / np.float32(255)
    exact = Network(network.graph, HostSide(unshuffle=2, input_scale=1.0, residual=False))
    values = pixel_unshuffle(image.astype(np.float64), 2)
    for given, factor in ((None, 1.0), (2.0, 2.0), (63.75, 63.75), (255.0, 255.0)):
        model = zoo.resolve("bare.nir", steps=1, dt=1e-4, white=given)
        seen = np.rint(values * model.integer().host.input_scale) * factor / model.integer().host.input_scale
        want = pixel_shuffle(run_float(exact.graph, seen, 1, 1e-4)[0], 2)
        np.testing.assert_allclose(model.restorer("float")(image), want, rtol=1e-4, atol=1e-5)
    as_arrays = zoo.resolve("bare.nir", steps=1, dt=1e-4, arrays=True).integer().host
    assert (as_arrays.channels, as_arrays.unshuffle, as_arrays.input_scale) == (4, 1, 1.0)


def test_a_netx_file_without_hints_is_told_its_steps(models: Path) -> None:
    student = zoo.resolve(str(_student(Path("s.safetensors"), CHAIN)))
    export(deployable(student, size=(32, 32)), "lava", "bundle")
    with h5py.File("bundle/network.net", "r+") as file:
        del file["neurodeploy"]
    shutil.move("bundle/network.net", "bare.net")
    with pytest.raises(UserError, match=r"bare\.net: does not say how many time steps it runs"):
        zoo.resolve("bare.net")
    model = zoo.resolve("bare.net", steps=7)
    assert (model.steps, model.size, model.integer().host.input_scale) == (7, (16, 16), 255.0)
    with pytest.raises(UserError, match=r"takes no pictures.* 4 channels"):
        _ = model.channels


def test_a_damaged_hint_is_refused(models: Path) -> None:
    network = StudentModel(untrained_file(CHAIN), zoo.Facts("small")).network((16, 16))
    network.graph.metadata = {**network.graph.metadata, "host": '{"channels": 0}'}
    write_nir("odd.nir", network.graph)
    with pytest.raises(UserError, match=r"odd\.nir: metadata: its hint 'host' is refused"):
        zoo.resolve("odd.nir")


def test_an_untrained_recipe_has_the_shape_that_it_describes(models: Path) -> None:
    Path("mine.toml").write_text('name = "mine"\n[student]\nwidth = 6\ndepth = 3\nnorm = "batch"\n')
    model = zoo.resolve("mine.toml", untrained=True)
    assert isinstance(model, StudentModel)
    assert (model.file.spec.width, model.file.spec.depth, model.file.quantized) == (6, 3, True)
    assert quantize(model.network((16, 16))).readout is not None
    Path("ann.toml").write_text('name = "ann"\n[student]\nfamily = "dncnn"\n')
    with pytest.raises(UserError, match="without spikes"):
        zoo.resolve("ann.toml", untrained=True)
