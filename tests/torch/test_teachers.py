"""The published teachers: sizes, forms, restored quality, features, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from neurodeploy.errors import FindingsError, UserError
from neurodeploy.images.io import read_image
from neurodeploy.images.metrics import psnr
from neurodeploy.networks.teachers import Teacher, load_teacher
from neurodeploy.networks.teachers.dncnn import DnCNN
from neurodeploy.networks.teachers.ffdnet import FFDNet
from neurodeploy.networks.weights import read_weights
from tests.shared import shared_data

# file, architecture, channels, parameters (batch norm's running statistics are none), first and last hint point
PUBLISHED = [
    ("dncnn_gray_s25", "dncnn", 1, 555_137, "model.1", "model.31"),
    ("dncnn_color_s50", "dncnn", 3, 668_227, "model.1", "model.37"),
    ("dncnn3_gray_multi", "dncnn", 1, 665_921, "model.1", "model.37"),
    ("dncnn_gray_s25_batchnorm_GPL3", "dncnn", 1, 556_032, "model.1", "model.46"),
    ("ffdnet_gray", "ffdnet", 1, 485_316, "model.1", "model.27"),
    ("ffdnet_color", "ffdnet", 3, 852_108, "model.1", "model.21"),
    ("prenet_rain100l_PReNet6", "prenet", 3, 168_963, "stages.0", "stages.5"),
    ("prenet_rain100h_PReNet6_r", "prenet", 3, 94_979, "stages.0", "stages.5"),
    ("prenet_rain100l_PRN6", "prn", 3, 95_107, "stages.0", "stages.5"),
    ("prenet_rain100h_PRN6_r", "prn", 3, 21_123, "stages.0", "stages.5"),
    ("aodnet_dehaze", "aodnet", 3, 1_761, "relu1", "relu5"),
]


def published(spec: str) -> Teacher:
    name, file = spec.split(":")
    return load_teacher(f"{name}:{shared_data('teachers') / file}.pth")


def score(restored: Tensor, clean: Tensor) -> float:
    """PSNR in dB of one image (1, C, H, W), over all pixels and channels, rounded to 8 bits."""
    return psnr(restored[0].numpy(), clean[0].numpy())


def noisy(clean: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    """The field's protocol: one fresh generator an image, not clipped."""
    noise = np.random.RandomState(0).randn(*clean.shape) * sigma / 255
    return clean + torch.from_numpy(noise).float(), torch.tensor([sigma / 255])


def picture(folder: str, file: str) -> Tensor:
    return torch.from_numpy(read_image(shared_data(folder) / file)).unsqueeze(0)


@pytest.mark.parametrize(("file", "name", "channels", "parameters", "first", "last"), PUBLISHED)
def test_published_weights_load(file: str, name: str, channels: int, parameters: int, first: str, last: str) -> None:
    teacher = published(f"{name}:{file}")
    assert (teacher.name, teacher.channels, teacher.parameters_count) == (name, channels, parameters)
    assert (teacher.hint_points[0], teacher.hint_points[-1]) == (first, last)
    assert teacher.weights_source.endswith(f"{file}.pth")
    assert not teacher.training and not any(p.requires_grad for p in teacher.parameters())
    x = torch.rand(2, channels, 19, 23)
    restored, seen = teacher.features(x, teacher.hint_points, torch.tensor([0.1, 0.2]))
    assert restored.shape == x.shape and tuple(seen) == teacher.hint_points
    size = (10, 12) if name == "ffdnet" else (19, 23)
    assert all(feature.shape[-2:] == size and feature.shape[0] == 2 for feature in seen.values())
    assert torch.equal(restored, teacher.restore(x, torch.tensor([0.1, 0.2])))


@pytest.mark.parametrize(
    ("spec", "sigma", "low"),
    [
        ("dncnn:dncnn_gray_s25", 25, 30.1),  # published for this picture: 30.18
        ("ffdnet:ffdnet_gray", 25, 30.0),  # 30.06
        ("dncnn:dncnn_gray_s25_batchnorm_GPL3", 25, 30.0),
    ],
)
def test_gray_denoisers_on_the_cameraman(spec: str, sigma: float, low: float) -> None:
    clean = picture("set12", "01.png")
    x, level = noisy(clean, sigma)
    assert low < score(published(spec).restore(x, level), clean) < low + 0.4


def test_a_colour_denoiser_and_a_derainer_and_a_dehazer_help() -> None:
    clean = picture("kodak24", "kodim05.png")[..., :64, :64]
    x, level = noisy(clean, 25)
    for spec in ("dncnn:dncnn_color_s25", "ffdnet:ffdnet_color"):
        assert score(published(spec).restore(x, level), clean) > score(x, clean) + 7
    rainy, dry = (picture("rain100l_8", f"{kind}/{kind}-001.png")[..., :64, :64] for kind in ("rain", "norain"))
    assert score(published("prn:prenet_rain100l_PRN6").restore(rainy), dry) > score(rainy, dry) + 5
    hazy, clear = (picture("sots_indoor_a", f)[..., ::2, ::2] for f in ("hazy/1400_8.png", "gt/1400.png"))
    assert score(published("aodnet:aodnet_dehaze").restore(hazy), clear) > score(hazy, clear) + 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spec", "sigma", "mean", "slack"),
    [
        ("dncnn:dncnn_gray_s25", 25, 30.43, 0.02),
        ("ffdnet:ffdnet_gray", 25, 30.42, 0.03),
        ("dncnn:dncnn_gray_s25_batchnorm_GPL3", 25, 30.39, 0.02),
    ],
)
def test_set12(spec: str, sigma: float, mean: float, slack: float) -> None:
    teacher = published(spec)
    scores = []
    for path in sorted(shared_data("set12").glob("*.png")):
        clean = torch.from_numpy(read_image(path)).unsqueeze(0)
        x, level = noisy(clean, sigma)
        scores.append(score(teacher.restore(x, level), clean))
    assert len(scores) == 12 and float(np.mean(scores)) == pytest.approx(mean, abs=slack)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spec", "folder", "mean"),
    [
        ("prenet:prenet_rain100l_PReNet6", "rain100l_8", 38.90),
        ("prenet:prenet_rain100l_PReNet6_r", "rain100l_8", 38.25),
        ("prn:prenet_rain100l_PRN6", "rain100l_8", 38.27),
        ("prn:prenet_rain100l_PRN6_r", "rain100l_8", 36.84),
        ("prenet:prenet_rain100h_PReNet6", "rain100h_8", 29.56),
    ],
)
def test_rain_pairs(spec: str, folder: str, mean: float) -> None:
    teacher = published(spec)
    scores = []
    for path in sorted((shared_data(folder) / "rain").glob("*.png")):
        rainy = torch.from_numpy(read_image(path)).unsqueeze(0)
        dry = picture(folder, f"norain/no{path.name}")
        scores.append(score(teacher.restore(rainy), dry))
    assert len(scores) == 8 and float(np.mean(scores)) == pytest.approx(mean, abs=0.05)


def fold(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Batch norm folded into a conv stack, written down from its definition (float64)."""
    folded: dict[str, Tensor] = {}
    convs = sorted((key for key in state if state[key].ndim == 4), key=lambda key: int(key.split(".")[1]))
    for k, key in enumerate(convs):
        number = int(key.split(".")[1])
        weight = state[key].double()
        bias = state.get(key.replace("weight", "bias"), torch.zeros(weight.shape[0])).double()
        norm = f"{key.split('.')[0]}.{number + 1}."
        if f"{norm}running_var" in state:
            gain = state[f"{norm}weight"].double() / torch.sqrt(state[f"{norm}running_var"].double() + 1e-5)
            weight = weight * gain.view(-1, 1, 1, 1)
            bias = (bias - state[f"{norm}running_mean"].double()) * gain + state[f"{norm}bias"].double()
        folded |= {f"model.{2 * k}.weight": weight.float(), f"model.{2 * k}.bias": bias.float()}
    return folded


@pytest.mark.parametrize("bias", [True, False])
def test_the_batch_norm_form_equals_the_folded_form(tmp_path: Path, bias: bool) -> None:
    torch.manual_seed(1)
    whole = DnCNN(3, 8, 5, batch_norm=True, bias=bias)
    for module in whole.modules():
        if isinstance(module, nn.BatchNorm2d):
            for name in ("running_mean", "weight", "bias"):
                nn.init.normal_(getattr(module, name), 0.5, 0.3)
            nn.init.uniform_(module.get_buffer("running_var"), 0.5, 2)
    torch.save(
        {f"module.dncnn.{k.removeprefix('model.')}": v for k, v in whole.state_dict().items()}, tmp_path / "a.pth"
    )
    torch.save(fold(whole.state_dict()), tmp_path / "b.pth")
    first, second = load_teacher(f"dncnn:{tmp_path}/a.pth"), load_teacher(f"dncnn:{tmp_path}/b.pth")
    x = torch.rand(1, 3, 15, 11)
    assert len(dict(first.network.named_modules())) == len(dict(second.network.named_modules())) + 3
    assert torch.equal(first.restore(x), whole.eval()(x).detach())
    torch.testing.assert_close(first.restore(x), second.restore(x), rtol=1e-4, atol=1e-5)


def test_the_published_batch_norm_form_equals_its_folded_form(tmp_path: Path) -> None:
    file = shared_data("teachers") / "dncnn_gray_s25_batchnorm_GPL3.pth"
    torch.save(fold(read_weights(file)), tmp_path / "folded.pth")
    folded, whole = load_teacher(f"dncnn:{tmp_path}/folded.pth"), load_teacher(f"dncnn:{file}")
    assert folded.parameters_count == 555_137
    x, _ = noisy(picture("set12", "01.png")[..., :64, :64], 25)
    torch.testing.assert_close(whole.restore(x), folded.restore(x), rtol=0, atol=1e-4)


def test_weights_may_be_safetensors(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    network = DnCNN(1, 4, 3)
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    x = torch.rand(1, 1, 9, 9)
    assert torch.equal(load_teacher(f"dncnn:{tmp_path}/w.safetensors").restore(x), network(x).detach())


@pytest.fixture
def gray(tmp_path: Path) -> str:
    """The spec of a small gray DnCNN."""
    torch.manual_seed(0)
    torch.save(DnCNN(1, 4, 4).state_dict(), tmp_path / "gray.pth")
    return f"dncnn:{tmp_path / 'gray.pth'}"


def test_features_are_what_the_modules_gave_and_no_hook_stays(gray: str) -> None:
    teacher = load_teacher(gray)
    x = torch.rand(2, 1, 8, 8)
    _, seen = teacher.features(x, ["model.3", "model.0", "model.3"])
    stack = teacher.network.get_submodule("model")
    assert isinstance(stack, nn.Sequential) and list(seen) == ["model.3", "model.0"]
    with torch.no_grad():
        assert torch.equal(seen["model.0"], stack[:1](x)) and torch.equal(seen["model.3"], stack[:4](x))
    with pytest.raises(UserError):
        teacher.features(torch.rand(2, 3, 8, 8), ["model.1"])
    assert not any(module._forward_hooks for module in teacher.modules())


def test_a_recursive_teachers_stages_are_six_different_features() -> None:
    teacher = published("prenet:prenet_rain100l_PReNet6")
    x = torch.rand(1, 3, 12, 12)
    restored, seen = teacher.features(x, teacher.hint_points)
    conv = teacher.network.get_submodule("conv")
    assert torch.equal(x + conv(seen["stages.5"]), restored)
    assert all((seen[f"stages.{k}"] - seen[f"stages.{k + 1}"]).abs().max() > 1e-3 for k in range(5))


def test_unknown_hint_points_are_named_with_the_nearest(gray: str) -> None:
    teacher = load_teacher(gray)
    with pytest.raises(UserError, match=re.escape("did you mean model.3?")):
        teacher.features(torch.rand(1, 1, 8, 8), ["modl.3"])
    with pytest.raises(UserError, match="hint point"):
        teacher.features(torch.rand(1, 1, 8, 8), [""])


def test_ffdnet_wants_the_noise_level(tmp_path: Path) -> None:
    torch.save(FFDNet(1, 4, 3).state_dict(), tmp_path / "f.pth")
    teacher = load_teacher(f"ffdnet:{tmp_path / 'f.pth'}")
    x = torch.rand(2, 1, 7, 9)
    with pytest.raises(UserError, match="--sigma") as refused:
        teacher.restore(x)
    assert refused.value.exit_code == 2
    with pytest.raises(UserError, match="3 levels for 2 images"):
        teacher.restore(x, torch.rand(3))
    each = teacher.restore(x, torch.tensor([0.1, 0.4]))
    assert torch.allclose(each[1:], teacher.restore(x[1:], torch.tensor(0.4)), atol=1e-6)
    assert not torch.allclose(each, teacher.restore(x, torch.tensor(0.1)), atol=1e-4)


@pytest.mark.parametrize(("height", "width"), [(7, 9), (8, 9), (7, 8), (1, 1)])
def test_ffdnet_replicates_the_last_row_and_column(height: int, width: int) -> None:
    torch.manual_seed(0)
    network, level = FFDNet(1, 4, 3), torch.tensor([0.1])
    x = torch.rand(1, 1, height, width)
    even = torch.cat((x, x[:, :, -1:]), 2) if height % 2 else x
    even = torch.cat((even, even[..., -1:]), 3) if width % 2 else even
    assert torch.allclose(network(x, level), network(even, level)[..., :height, :width], atol=1e-6)


def test_the_teacher_stays_in_evaluation_mode_and_out_of_the_graph(gray: str) -> None:
    teacher = load_teacher(gray)
    whole = nn.Sequential(teacher, nn.Conv2d(1, 1, 1)).train()
    assert whole.training and not any(module.training for module in teacher.modules())
    x = torch.rand(1, 1, 8, 8, requires_grad=True)
    restored, seen = teacher.features(x, teacher.hint_points)
    assert torch.is_grad_enabled() and not restored.requires_grad
    assert not any(feature.requires_grad for feature in seen.values())
    # an ordinary tensor, not one of inference mode: a student's loss may keep it for its backward pass
    ((whole[1](x) - restored) ** 2).sum().backward()
    assert x.grad is not None


def test_loading_draws_no_random_numbers(gray: str) -> None:
    torch.manual_seed(7)
    wanted = torch.rand(3)
    torch.manual_seed(7)
    load_teacher(gray)
    assert torch.equal(torch.rand(3), wanted)


def test_images_of_the_wrong_kind_are_refused(gray: str) -> None:
    teacher = load_teacher(gray)
    with pytest.raises(UserError, match=r"gray.*colour"):
        teacher.restore(torch.rand(1, 3, 8, 8))
    with pytest.raises(UserError, match="B, C, H, W"):
        teacher.restore(torch.rand(1, 8, 8))
    with pytest.raises(UserError, match=r"gray.*have colour"):
        load_teacher(gray, channels=3)
    assert load_teacher(gray, channels=1).restore(torch.rand(1, 1, 8, 8).double()).dtype == torch.float32


def test_another_architectures_weights_are_recognised(tmp_path: Path) -> None:
    teachers = shared_data("teachers")
    for file, name, *_ in PUBLISHED:
        wrong = "nafnet" if name == "dncnn" else "dncnn"
        with pytest.raises(UserError, match=f"look like {name}, not {wrong}.*write {name}:") as refused:
            load_teacher(f"{wrong}:{teachers / file}.pth")
        assert not isinstance(refused.value, FindingsError)
    with pytest.raises(UserError, match="look like prenet, not prn"):
        load_teacher(f"prn:{teachers / 'prenet_rain100l_PReNet6.pth'}")
    with pytest.raises(UserError, match=r"weights alone.*write prenet:"):
        load_teacher(str(teachers / "prenet_rain100h_PReNet6.pth"))


def test_weights_of_no_known_architecture_list_every_key() -> None:
    with pytest.raises(FindingsError) as refused:
        load_teacher(f"dncnn:{shared_data('teachers') / 'vdsr_sr_y.pth'}")
    nodes = [finding.node for finding in refused.value.findings]
    assert refused.value.exit_code == 2 and len([n for n in nodes if n.startswith("residual_layer")]) == 18
    assert "model.0.weight" in nodes and "input.weight" in nodes


def test_a_missing_layer_and_an_extra_one_are_both_listed(tmp_path: Path) -> None:
    state = DnCNN(1, 4, 5).state_dict()
    del state["model.4.weight"], state["model.2.bias"]
    state["head.weight"] = torch.ones(1)
    state["model.6.weight"] = torch.ones(4, 4, 5, 5)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(FindingsError) as refused:
        load_teacher(f"dncnn:{tmp_path / 'w.pth'}")
    assert {f.node for f in refused.value.findings} == {
        "model.4.weight",
        "model.2.bias",
        "head.weight",
        "model.6.weight",
    }


@pytest.mark.parametrize(
    ("spec", "way_out"),
    [
        ("dncn:weights.pth", "did you mean dncnn?"),
        ("nafnett:weights.safetensors", "did you mean nafnet?"),
        ("prenet6:weights.pth", "did you mean prenet?"),
        ("zzzz:weights.pth", "known: dncnn, ffdnet"),
        ("dncn:weights", "did you mean dncnn?"),
        ("dncnn", "write dncnn:weights.pth"),
        ("dncnn:", "write dncnn:weights.pth"),
        ("something", "ARCH:WEIGHTS"),
        ("", "ARCH:WEIGHTS"),
        ("dncnn:no/such/file.pth", "no such file"),
        ("no_such_package.networks:Net", "no module no_such_package.networks"),
        ("json:Net", "has no class Net"),
        ("json:JSONDecoder", "does not give a torch module"),
        ("torch.nn:Conv2d", "without arguments"),
    ],
)
def test_specs_that_name_nothing_are_refused_in_one_line(spec: str, way_out: str) -> None:
    with pytest.raises(UserError) as refused:
        load_teacher(spec)
    assert way_out in str(refused.value) and "\n" not in str(refused.value) and refused.value.exit_code == 2
