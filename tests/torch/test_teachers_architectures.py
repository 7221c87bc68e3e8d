"""NAFNet and Restormer: their published names, shapes and sizes, and their parts against other definitions."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from neurodeploy.errors import FindingsError, UserError
from neurodeploy.networks.teachers import load_teacher
from neurodeploy.networks.teachers.nafnet import ChannelNorm, NAFBlock, NAFNet, NAFNetShape
from neurodeploy.networks.teachers.padding import pad_to_multiple
from neurodeploy.networks.teachers.restormer import ChannelAttention, PixelNorm, Restormer, RestormerShape

SIDD = {"encoder": (2, 2, 4, 8), "middle": 12, "decoder": (2, 2, 2, 2)}
SMALL_NAF = NAFNetShape(channels=3, width=4, encoder=(1, 2), middle=1, decoder=(2, 1))
SMALL_RESTORMER = RestormerShape(
    channels=1, dim=8, blocks=(1, 2, 1, 1), decoder=(1, 2, 1), refinement=2, bias=True, norm_bias=False
)


def names_and_shapes(network: nn.Module) -> str:
    lines = sorted(f"{key} {tuple(value.shape)}" for key, value in network.state_dict().items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


# Tensors, parameters, and the digest of the sorted lines "name shape", taken from the authors' own definitions.
@pytest.mark.parametrize(
    ("shape", "tensors", "parameters", "digest"),
    [
        (NAFNetShape(), 664, 17_111_907, "67d353bc56df7954"),
        (NAFNetShape(width=64), 664, 67_888_835, "547c6406ec26bd63"),
        (NAFNetShape(width=32, **SIDD), 664, 29_159_715, "e416aa7a76fd3ab4"),  # type: ignore[arg-type]
        (NAFNetShape(width=64, **SIDD), 664, 115_982_915, "e311aae9e167200f"),  # type: ignore[arg-type]
        (RestormerShape(), 494, 26_126_644, "cc31086504afbc6c"),
        (RestormerShape(channels=1, norm_bias=False), 406, 26_109_076, "ccc73da16cf145a1"),
        (RestormerShape(norm_bias=False), 406, 26_111_668, "22df586522a087d4"),
    ],
)
def test_published_networks_have_their_authors_names_and_shapes(
    shape: NAFNetShape | RestormerShape, tensors: int, parameters: int, digest: str
) -> None:
    with torch.device("meta"):
        network = NAFNet(shape) if isinstance(shape, NAFNetShape) else Restormer(shape)
    assert len(network.state_dict()) == tensors
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    assert names_and_shapes(network) == digest
    again = type(shape).from_state(network.state_dict())
    with torch.device("meta"):
        rebuilt = NAFNet(again) if isinstance(again, NAFNetShape) else Restormer(again)
    assert names_and_shapes(rebuilt) == digest


def fill(network: nn.Module) -> nn.Module:
    """Random weights everywhere: some of the published starts are 0 and would hide what a branch does."""
    generator = torch.Generator().manual_seed(5)
    for parameter in network.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    return network.eval()


@pytest.mark.parametrize("network", [fill(NAFNet(SMALL_NAF)), fill(Restormer(SMALL_RESTORMER))])
@pytest.mark.parametrize("size", [(8, 16), (13, 9), (1, 1)])
def test_weights_round_trip_at_any_size(tmp_path: Path, network: NAFNet | Restormer, size: tuple[int, int]) -> None:
    name = "nafnet" if isinstance(network, NAFNet) else "restormer"
    torch.save({"params": network.state_dict()}, tmp_path / "w.pth")
    teacher = load_teacher(f"{name}:{tmp_path / 'w.pth'}")
    assert teacher.channels == network.channels
    x = torch.rand(2, network.channels, *size)
    restored, seen = teacher.features(x, teacher.hint_points)
    assert restored.shape == x.shape and torch.equal(restored, network(x).detach())
    assert tuple(seen) == teacher.hint_points and all(value.ndim == 4 for value in seen.values())


def test_hints_are_the_decoder_levels(tmp_path: Path) -> None:
    torch.save(fill(NAFNet(SMALL_NAF)).state_dict(), tmp_path / "n.pth")
    torch.save(fill(Restormer(SMALL_RESTORMER)).state_dict(), tmp_path / "r.pth")
    naf, restormer = load_teacher(f"nafnet:{tmp_path}/n.pth"), load_teacher(f"restormer:{tmp_path}/r.pth")
    seen = naf.features(torch.rand(1, 3, 16, 16), naf.hint_points)[1]
    assert {name: tuple(value.shape[1:]) for name, value in seen.items()} == {
        "decoders.0": (8, 8, 8),
        "decoders.1": (4, 16, 16),
    }
    seen = restormer.features(torch.rand(1, 1, 16, 16), restormer.hint_points)[1]
    assert {name: tuple(value.shape[1:]) for name, value in seen.items()} == {
        "decoder_level3": (32, 4, 4),
        "decoder_level2": (16, 8, 8),
        "decoder_level1": (16, 16, 16),
        "refinement": (16, 16, 16),
    }


def test_norms_are_layer_norms_over_channels() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 6, 3, 4) + 1
    pixels = x.permute(0, 2, 3, 1)
    for norm, eps in ((ChannelNorm(6), 1e-6), (PixelNorm(6, bias=True), 1e-5)):
        nn.init.normal_(norm.weight)
        assert norm.bias is not None
        nn.init.normal_(norm.bias)
        wanted = F.layer_norm(pixels, (6,), norm.weight, norm.bias, eps).permute(0, 3, 1, 2)
        torch.testing.assert_close(norm(x), wanted, rtol=1e-5, atol=1e-5)
    free = PixelNorm(6, bias=False)
    # without bias the mean stays: only the size is taken away
    mean = x.mean(1, keepdim=True)
    centred = F.layer_norm(pixels, (6,), None, None, 1e-5).permute(0, 3, 1, 2)
    spread = torch.sqrt(x.var(1, keepdim=True, correction=0) + 1e-5)
    torch.testing.assert_close(free(x), centred + mean / spread, rtol=1e-5, atol=1e-5)


def test_channel_attention_is_attention_over_channels() -> None:
    torch.manual_seed(0)
    attention = ChannelAttention(8, 2, bias=True)
    nn.init.uniform_(attention.temperature, 0.5, 3)
    x = torch.randn(2, 8, 5, 6)
    q, k, v = attention.qkv_dwconv(attention.qkv(x)).flatten(2).chunk(3, dim=1)
    heads = []
    for head in range(2):
        part = slice(4 * head, 4 * head + 4)
        query = F.normalize(q[:, part], dim=-1) * attention.temperature[head]
        heads.append(F.scaled_dot_product_attention(query, F.normalize(k[:, part], dim=-1), v[:, part], scale=1.0))
    wanted = attention.project_out(torch.cat(heads, dim=1).view(2, 8, 5, 6))
    torch.testing.assert_close(attention(x), wanted, rtol=1e-4, atol=1e-5)


def test_a_naf_block_starts_as_the_identity() -> None:
    block = NAFBlock(4, 8, 8)
    x = torch.rand(1, 4, 5, 5)
    assert torch.equal(block(x), x)
    nn.init.ones_(block.beta)
    assert not torch.allclose(block(x), x)


def test_padding() -> None:
    x = torch.arange(6.0).view(1, 1, 2, 3)
    assert pad_to_multiple(x, 1, "reflect") is x
    assert pad_to_multiple(x, 2, "constant")[0, 0].tolist() == [[0, 1, 2, 0], [3, 4, 5, 0]]
    assert pad_to_multiple(x, 2, "reflect")[0, 0].tolist() == [[0, 1, 2, 1], [3, 4, 5, 4]]
    assert pad_to_multiple(x, 4, "reflect")[0, 0].tolist() == [[0, 1, 2, 2]] + [[3, 4, 5, 5]] * 3


def test_restormers_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    state = Restormer(SMALL_RESTORMER).state_dict()
    torch.save({**state, "skip_conv.weight": torch.ones(16, 8, 1, 1)}, tmp_path / "dual.pth")
    with pytest.raises(UserError, match="dual-pixel"):
        load_teacher(f"restormer:{tmp_path / 'dual.pth'}")
    torch.save({**state, "latent.0.attn.temperature": torch.ones(3, 1, 1)}, tmp_path / "heads.pth")
    with pytest.raises(UserError, match="3 heads, 64 channels"):
        load_teacher(f"restormer:{tmp_path / 'heads.pth'}")
    torch.save({**state, "prompt1.prompt_param": torch.ones(1)}, tmp_path / "prompt.pth")
    with pytest.raises(FindingsError, match=re.escape("prompt1.prompt_param")):
        load_teacher(f"restormer:{tmp_path / 'prompt.pth'}")
    with pytest.raises(UserError, match="look like restormer, not nafnet"):
        torch.save(state, tmp_path / "whole.pth")
        load_teacher(f"nafnet:{tmp_path / 'whole.pth'}")


def test_absurd_layer_numbers_are_refused_at_once(tmp_path: Path) -> None:
    torch.save({"model.0.weight": torch.ones(1, 1, 3, 3), "model.900000000.weight": torch.ones(1)}, tmp_path / "w.pth")
    with pytest.raises(UserError, match="do not fit"):
        load_teacher(f"dncnn:{tmp_path / 'w.pth'}")


OWN = """
import torch
from torch import nn

class Net(nn.Module):
    channels = 3
    hint_points = ("body.1",)
    multiple = 4
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(5, 3, 3, padding=1))
    def forward(self, x):
        if x.shape[-1] % 4 or x.shape[-2] % 4:
            raise RuntimeError("size")
        return x - self.body(x)

class Told(Net):
    needs_noise_level = True
    def forward(self, x, noise_level):
        return x * noise_level.view(-1, 1, 1, 1)

class Plain(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 1, 3, padding=1))

class Shrinks(nn.Conv2d):
    def __init__(self):
        super().__init__(3, 3, 3)

class Fails(nn.Module):
    def __init__(self):
        raise ValueError("no weights here")

def make():
    return Net()
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """The name of a module in the current folder, another for each test: imports are remembered."""
    name = f"own_{hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12]}"
    (tmp_path / f"{name}.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    return name


def test_a_network_of_ones_own(own: str, tmp_path: Path) -> None:
    import sys

    path = list(sys.path)
    teacher = load_teacher(f"{own}:Net", channels=3)
    assert sys.path == path
    assert (teacher.name, teacher.channels, teacher.hint_points) == (f"{own}:Net", 3, ("body.1",))
    x = torch.rand(1, 3, 7, 9)
    restored, seen = teacher.features(x, ["body.0", "body.1"])
    assert restored.shape == x.shape and seen["body.1"].shape == (1, 5, 8, 12)
    # the ReLU works in place, but what its input was is kept
    assert seen["body.0"].min() < 0 and torch.equal(seen["body.0"].relu(), seen["body.1"])
    torch.save({k: torch.zeros_like(v) for k, v in teacher.network.state_dict().items()}, tmp_path / "zero.pth")
    silent = load_teacher(f"{own}:make@{tmp_path / 'zero.pth'}")
    assert torch.equal(silent.restore(x), x) and silent.weights_source.endswith("zero.pth")
    torch.save({"body.0.weight": torch.zeros(1)}, tmp_path / "few.pth")
    with pytest.raises(FindingsError, match=re.escape("body.2.bias")):
        load_teacher(f"{own}:Net@{tmp_path / 'few.pth'}")


def test_a_network_of_ones_own_may_leave_things_open(own: str) -> None:
    plain = load_teacher(f"{own}:Plain")
    assert plain.channels == 1 and plain.hint_points == ("0",)
    told = load_teacher(f"{own}:Told")
    x = torch.rand(2, 3, 4, 4)
    torch.testing.assert_close(told.restore(x, torch.tensor([0.5, 2.0])), x * torch.tensor([0.5, 2.0]).view(2, 1, 1, 1))
    with pytest.raises(UserError, match="--sigma"):
        told.restore(x)
    assert load_teacher("torch.nn:Identity", channels=1).restore(x[:, :1]).equal(x[:, :1])
    with pytest.raises(UserError, match="does not say for how many channels"):
        load_teacher("torch.nn:Identity")


def test_a_network_of_ones_own_that_fails_is_told_in_one_line(own: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no weights here"):
        load_teacher(f"{own}:Fails")
    with pytest.raises(UserError, match=r"not give an image of its input's size.*1, 3, 6, 6"):
        load_teacher(f"{own}:Shrinks").restore(torch.rand(1, 3, 8, 8))
    (tmp_path / f"{own}_broken.py").write_text("import no_such_module_anywhere")
    with pytest.raises(UserError, match="needs no_such_module_anywhere"):
        load_teacher(f"{own}_broken:Net")
    (tmp_path / f"{own}_wrong.py").write_text("1 +")
    with pytest.raises(UserError, match="SyntaxError"):
        load_teacher(f"{own}_wrong:Net")
