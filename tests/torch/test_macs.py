"""The counter of multiply-accumulates, against brute force, convolutions of ones and torch's own flop counter."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from neurodeploy.networks.macs import MacCount, Macs, count_macs, count_parameters
from neurodeploy.networks.teachers.ffdnet import FFDNet
from neurodeploy.networks.teachers.nafnet import NAFNet, NAFNetShape
from neurodeploy.networks.teachers.prenet import ProgressiveNet
from neurodeploy.networks.teachers.restormer import Restormer, RestormerShape


def flops(module: nn.Module, *arguments: Tensor) -> int:
    """Multiply-accumulates with padding, as torch's flop counter has them."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module.eval()(*arguments)
    total = int(counter.get_total_flops())
    assert total % 2 == 0
    return total // 2


def _padding(conv: nn.Conv2d) -> tuple[int, int]:
    assert not isinstance(conv.padding, str)
    return int(conv.padding[0]), int(conv.padding[1])


def by_hand(conv: nn.Conv2d, height: int, width: int) -> Macs:
    """Every output, every tap, one by one."""
    (kh, kw), (sh, sw), (dh, dw) = conv.kernel_size, conv.stride, conv.dilation
    ph, pw = _padding(conv)
    oh = (height + 2 * ph - dh * (kh - 1) - 1) // sh + 1
    ow = (width + 2 * pw - dw * (kw - 1) - 1) // sw + 1
    inside = sum(
        0 <= r * sh - ph + i * dh < height and 0 <= c * sw - pw + j * dw < width
        for r, c, i, j in itertools.product(range(oh), range(ow), range(kh), range(kw))
    )
    pairs = conv.out_channels * conv.in_channels // conv.groups
    return Macs(inside * pairs, oh * ow * kh * kw * pairs)


sizes = st.integers(1, 9)


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[nn.Conv2d, int, int]:
    groups = draw(st.integers(1, 3))
    kernel = (draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    dilation = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    conv = nn.Conv2d(
        groups * draw(st.integers(1, 2)),
        groups * draw(st.integers(1, 3)),
        kernel,
        stride=(draw(st.integers(1, 3)), draw(st.integers(1, 3))),
        padding=(draw(st.integers(0, 4)), draw(st.integers(0, 4))),
        dilation=dilation,
        groups=groups,
        bias=draw(st.booleans()),
    )
    smallest = [max(1, d * (k - 1) + 1 - 2 * p) for k, d, p in zip(kernel, dilation, _padding(conv), strict=True)]
    return conv, smallest[0] + draw(st.integers(0, 6)), smallest[1] + draw(st.integers(0, 6))


@settings(max_examples=60)
@given(convolutions())
def test_any_convolution_equals_brute_force(case: tuple[nn.Conv2d, int, int]) -> None:
    conv, height, width = case
    x = torch.rand(1, conv.in_channels, height, width)
    count = count_macs(conv, x)
    assert count.total == by_hand(conv, height, width)
    assert count.total.padded == flops(conv, x)
    assert count.not_covered == () and count.by_layer == {"": count.total}


@settings(max_examples=60)
@given(
    groups=st.integers(1, 2),
    kernel=st.integers(1, 4),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
    dilation=st.integers(1, 2),
    size=st.tuples(st.integers(3, 7), st.integers(3, 7)),
)
def test_transposed_convolutions_equal_a_convolution_of_ones(
    groups: int, kernel: int, stride: int, padding: int, dilation: int, size: tuple[int, int]
) -> None:
    conv = nn.ConvTranspose2d(
        2 * groups, 3 * groups, kernel, stride, padding=padding, dilation=dilation, groups=groups, bias=False
    )
    if any((n - 1) * stride - 2 * padding + dilation * (kernel - 1) + 1 < 1 for n in size):
        return
    x = torch.ones(2, 2 * groups, *size)
    nn.init.ones_(conv.weight)
    count = count_macs(conv, x)
    # With ones everywhere each output is the number of products that went into it.
    assert count.total.in_bounds == int(conv(x).sum())
    assert count.total.padded == flops(conv, x)


@pytest.mark.parametrize(
    ("conv", "shape"),
    [
        (nn.Conv1d(3, 4, 3, padding=2, dilation=2), (2, 3, 9)),
        (nn.Conv3d(2, 4, 3, padding=1, groups=2, stride=2), (1, 2, 4, 5, 6)),
        (nn.Conv2d(2, 3, 3, padding=1), (2, 7, 5)),
        (nn.Conv2d(2, 3, 3, padding="same", dilation=2), (3, 2, 7, 5)),
        (nn.ConvTranspose3d(2, 3, 2, stride=2), (1, 2, 3, 3, 3)),
        (nn.ConvTranspose1d(2, 3, 4, stride=2, padding=1, output_padding=1), (1, 2, 6)),
    ],
)
def test_other_numbers_of_axes_equal_a_convolution_of_ones(conv: nn.Module, shape: tuple[int, ...]) -> None:
    for name, parameter in conv.named_parameters():
        nn.init.constant_(parameter, float(name == "weight"))
    x = torch.ones(shape)
    assert count_macs(conv, x).total.in_bounds == int(conv(x).sum())


def test_rows_padded_by_an_operation_are_data() -> None:
    padded = nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect")
    assert count_macs(padded, torch.rand(1, 1, 5, 5)).total == Macs(225, 225)


class Products(nn.Module):
    """Matrix products in the forms that a forward can write them."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 6)
        self.bilinear = nn.Linear(6, 5, bias=False)
        self.vector = nn.Parameter(torch.rand(5))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bilinear(torch.relu(self.linear(x)))  # (2, 3, 4) -> 2*3*4*6 + 2*3*6*5
        y = torch.einsum("bij,bkj->bik", y, y)  # 2*3*3*5
        y = torch.baddbmm(y, y, y)  # 2*3*3*3
        z = torch.matmul(x[0], x[0].t()) @ torch.ones(3)  # 3*3*4 + 3*3
        w = torch.addmm(y[0], y[0], y[1]).sum() + self.vector @ self.vector  # 3*3*3 + 5
        return y * z + w


def test_matrix_products_in_every_form() -> None:
    module, x = Products(), torch.rand(2, 3, 4)
    count = count_macs(module, x)
    assert count.by_layer == {
        "linear": Macs(144, 144),
        "bilinear": Macs(180, 180),
        "": Macs(90 + 54 + 36 + 9 + 27 + 5, 90 + 54 + 36 + 9 + 27 + 5),
    }
    assert count.not_covered == () and count.parameters == 30 + 30 + 5
    assert count.other["relu"] == 36


class Attention(nn.Module):
    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v)


def test_attention_counts_both_products() -> None:
    q, k, v = torch.rand(2, 3, 5, 8), torch.rand(2, 3, 7, 8), torch.rand(2, 3, 7, 8)
    assert count_macs(Attention(), (q, k, v)).total == Macs(2 * 3 * 5 * 7 * 16, 2 * 3 * 5 * 7 * 16)
    # values of another width take another path through torch
    assert count_macs(Attention(), (q, k, torch.rand(2, 3, 7, 4))).total.padded == 2 * 3 * 5 * 7 * 12


@pytest.mark.parametrize(
    "module",
    [
        NAFNet(NAFNetShape(width=4, encoder=(1, 1), middle=1, decoder=(1, 1))),
        Restormer(RestormerShape(dim=8, blocks=(1, 1, 1, 1), decoder=(1, 1, 1), refinement=1)),
        ProgressiveNet(),
    ],
)
def test_whole_networks_agree_with_the_flop_counter(module: nn.Module) -> None:
    x = torch.rand(2, 3, 16, 16)
    count = count_macs(module, x)
    assert count.total.padded == flops(module, x) > count.total.in_bounds * 0.9
    assert count.not_covered == ()
    assert sum(count.by_layer.values(), Macs()) == count.total


def test_fused_attention_counts_like_its_parts() -> None:
    torch.manual_seed(0)
    fused, parts = nn.MultiheadAttention(8, 2, batch_first=True), nn.MultiheadAttention(8, 2)
    x = torch.rand(3, 5, 8)
    whole, taken_apart = count_macs(fused, (x, x, x)), count_macs(parts, (x.transpose(0, 1),) * 3)
    assert whole.total == taken_apart.total == Macs(*[3 * 5 * 4 * 8 * 8 + 2 * 3 * 5 * 5 * 8] * 2)
    assert whole.not_covered == taken_apart.not_covered == ()


def test_recursion_adds_up_and_a_convolutional_lstm_is_counted() -> None:
    x = torch.rand(1, 3, 12, 10)
    once, six = count_macs(ProgressiveNet(stages=1), x), count_macs(ProgressiveNet(stages=6), x)
    assert six.total == Macs(6 * once.total.in_bounds, 6 * once.total.padded)
    assert six.by_layer["conv_g.0"].padded == 6 * 12 * 10 * 64 * 32 * 9
    assert six.parameters == once.parameters == 168_963


def test_ffdnet_gray_on_the_energy_papers_image() -> None:
    network = FFDNet()
    count = count_macs(network, (torch.rand(1, 1, 256, 256), torch.tensor([0.1])))
    hidden = 128 * 128 * 64 * 64 * 9
    assert count.total.padded == 13 * hidden + 128 * 128 * 9 * (5 * 64 + 64 * 4)
    assert round(count.total.padded * 4.6e-9, 1) == 36.5  # mJ at 4.6 pJ a MAC
    inside = (3 * 128 - 2) ** 2
    assert count.by_layer["model.2"].in_bounds == inside * 64 * 64
    assert count.parameters == 485_316


@pytest.mark.parametrize(
    ("network", "published"),
    [
        (NAFNetShape(), 16.0),
        (NAFNetShape(width=64), 63.1),
        (NAFNetShape(encoder=(2, 2, 4, 8), middle=12, decoder=(2, 2, 2, 2)), 16.0),
        (RestormerShape(), 141.0),  # convolutions alone: the published figure leaves out the attention's products
    ],
)
def test_published_networks_on_256_by_256(network: NAFNetShape | RestormerShape, published: float) -> None:
    with torch.device("meta"):
        made = NAFNet(network) if isinstance(network, NAFNetShape) else Restormer(network)
        count = count_macs(made, torch.empty(1, 3, 256, 256))
    convolutions = sum(macs.padded for layer, macs in count.by_layer.items() if not layer.endswith(".attn"))
    assert round(convolutions / 1e9, 1) == published and count.not_covered == ()
    # both products of each head: (C / heads)^2 pairs of channels over all pixels
    levels = ((48, 1, 4, 1), (96, 2, 12, 2), (192, 4, 12, 4), (384, 8, 8, 8), (96, 1, 8, 1))
    pairs = [2 * c * c // heads * blocks * (256 // down) ** 2 for c, heads, blocks, down in levels]
    assert count.total.padded - convolutions == (sum(pairs) if isinstance(network, RestormerShape) else 0)


def test_the_toy_network_of_the_spiking_counters() -> None:
    toy = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(4, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(128, 10),
    )
    count = count_macs(toy, torch.rand(1, 1, 8, 8))
    assert count.by_layer == {"0": Macs(1936, 2304), "2": Macs(3872, 4608), "5": Macs(1280, 1280)}
    assert count.total == Macs(7088, 8192) and count.parameters == 1626


class Unknown(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        spectrum: Tensor = torch.fft.fft2(x)
        return spectrum.real


class Guarded(nn.Module):
    uncounted = "run by another program"

    def forward(self, x: Tensor) -> Tensor:
        return x


def test_what_is_not_known_is_named_with_its_layer() -> None:
    count = count_macs(nn.Sequential(nn.Conv2d(1, 1, 1), Unknown(), Guarded()), torch.rand(1, 1, 4, 4))
    assert count.total == Macs(16, 16)
    missed = {(entry.layer, entry.operation): entry.calls for entry in count.not_covered}
    assert missed[("2", "run by another program")] == 1
    assert any(layer == "1" and "fft" in operation for layer, operation in missed)
    lstm = count_macs(nn.LSTM(4, 5), torch.rand(3, 2, 4))
    assert lstm.not_covered or lstm.total.padded == 3 * 2 * 20 * 9


def test_the_module_is_left_as_it_was() -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Sequential(nn.Dropout(0.5), nn.ReLU()))
    module[2].eval()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    torch.manual_seed(3)
    wanted = torch.rand(3)
    torch.manual_seed(3)
    first = count_macs(module, torch.ones(2, 1, 5, 5))
    assert torch.equal(torch.rand(3), wanted)
    assert [part.training for part in module.modules()] == [True, True, True, False, False, False]
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())
    assert first.other == {"native_batch_norm": 36, "relu": 36}


class Fails(nn.Module):
    def forward(self, _x: Tensor) -> Tensor:
        raise RuntimeError("on purpose")


def test_hooks_and_flags_are_put_back_after_an_error() -> None:
    module = nn.Sequential(nn.Conv2d(1, 1, 1), Fails())
    with pytest.raises(RuntimeError, match="on purpose"):
        count_macs(module, torch.rand(1, 1, 2, 2))
    assert module.training and not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())


def test_shared_parameters_count_once() -> None:
    first, second, third = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    third.weight = nn.Parameter(first.weight.data)
    assert count_parameters(nn.Sequential(first, second, third)) == 16 + 3 * 4
    with torch.device("meta"):
        assert count_parameters(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))) == 40


def test_a_subclassed_layer_is_counted_like_any() -> None:
    class Mine(nn.Conv2d):
        pass

    plain, mine = nn.Conv2d(2, 3, 3), Mine(2, 3, 3)
    x = torch.rand(1, 2, 5, 5)
    counts: list[MacCount] = [count_macs(plain, x), count_macs(mine, x)]
    assert counts[0] == counts[1] and counts[0].parameters == 57
