"""Blocks on feature maps against their papers' formulas, written with loops over pixels."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attelbo.attention import CBAM, AxialAttention2d, MultiHeadAttention, NonLocal2d, SqueezeExcite, WindowAttention2d


def opened(block: nn.Module) -> nn.Module:
    """In float64, with random weights."""
    torch.manual_seed(0)
    block.double()
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    return block


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("pool", [1, 2])
def test_non_local(pool: int) -> None:
    block, x = opened(NonLocal2d(4, pool=pool)), draw(1, 4, 3, 4)
    theta, phi, g = block.qkv.weight.chunk(3)  # (2, 4) each
    b_theta, b_phi, b_g = block.qkv.bias.chunk(3)
    places = [(i, j) for i in range(3) for j in range(4)]
    keys, values = [], []
    for top in range(0, 3, pool):
        for left in range(0, 4, pool):
            there = [x[0, :, i, j] for i, j in places if top <= i < top + pool and left <= j < left + pool]
            keys.append(torch.stack([phi @ p + b_phi for p in there]).amax(0))
            values.append(torch.stack([g @ p + b_g for p in there]).amax(0))
    expected = x.clone()
    for i, j in places:
        query = theta @ x[0, :, i, j] + b_theta
        weights = torch.stack([query @ key for key in keys]).exp()
        seen = sum(w * value for w, value in zip(weights / weights.sum(), values, strict=True))
        expected[0, :, i, j] += block.output.weight @ seen + block.output.bias
    torch.testing.assert_close(block(x), expected)
    seen = (block.weights(x) @ block.project(x)[2]).squeeze(1)
    torch.testing.assert_close(x + block.output(seen).mT.unflatten(2, (3, 4)), expected)


def test_axial() -> None:
    """Each line by itself, through PyTorch's attention."""
    block, x = opened(AxialAttention2d(6, 2)), draw(2, 6, 3, 4)
    expected = x.clone()
    for i in range(3):
        line = x[:, :, i].mT
        expected[:, :, i] += torchs(block.rows, block.row_norm(line)).mT
    rows = expected.clone()
    for j in range(4):
        line = rows[:, :, :, j].mT
        expected[:, :, :, j] += torchs(block.columns, block.column_norm(line)).mT
    torch.testing.assert_close(block(x), expected)


def torchs(ours: MultiHeadAttention, tokens: Tensor) -> Tensor:
    theirs = nn.MultiheadAttention(ours.dim, ours.heads, batch_first=True, dtype=torch.float64)
    theirs.load_state_dict(
        {
            "in_proj_weight": ours.qkv.weight,
            "in_proj_bias": ours.qkv.bias,
            "out_proj.weight": ours.output.weight,
            "out_proj.bias": ours.output.bias,
        }
    )
    return theirs(tokens, tokens, tokens)[0]


@pytest.mark.parametrize("shift", [0, 1, 2])
@pytest.mark.parametrize("size", [(6, 3), (7, 5), (1, 4), (2, 2)], ids=str)
def test_window(size: tuple[int, int], shift: int) -> None:
    """Pixel by pixel and head by head, with 3 x 3 windows whose borders lie at shift, shift + 3, ..."""
    block, x = opened(WindowAttention2d(4, 2, window=3, shift=shift)), draw(1, 4, *size)
    places = [(i, j) for i in range(size[0]) for j in range(size[1])]
    attention, table = block.attention, block.attention.position.table
    qkv = attention.qkv(block.norm(x[0].permute(1, 2, 0)))  # (H, W, 12)
    expected = x.clone()
    for i, j in places:
        window = [
            (k, m) for k, m in places if (k - shift) // 3 == (i - shift) // 3 and (m - shift) // 3 == (j - shift) // 3
        ]
        heads = []
        for n in range(2):
            q, ks, vs = (slice(4 * part + 2 * n, 4 * part + 2 * n + 2) for part in range(3))
            scores = [qkv[i, j, q] @ qkv[k, m, ks] / 2**0.5 + table[n, i - k + 2, j - m + 2] for k, m in window]
            weights = torch.stack(scores).softmax(0)
            heads.append(sum(w * qkv[k, m, vs] for w, (k, m) in zip(weights, window, strict=True)))
        expected[0, :, i, j] += attention.output(torch.cat(heads))
    torch.testing.assert_close(block(x), expected)


def test_a_table_has_a_number_for_each_relative_position() -> None:
    assert WindowAttention2d(4, 2, window=3).attention.position.table.shape == (2, 5, 5)


def test_the_kernel_is_that_of_rows_and_columns() -> None:
    block = AxialAttention2d(4, 2, kernel="eager")
    assert (block.rows.kernel.name, block.columns.kernel.name) == ("eager", "eager")


def test_non_local_begins_with_glorot_projections_each_by_itself() -> None:
    weights = NonLocal2d(64).qkv.weight.view(3, 32, 64)
    largest = (6 / (32 + 64)) ** 0.5
    assert all(0.98 * largest < float(weight.abs().max()) <= largest for weight in weights.detach())


def test_two_windows_the_second_shifted_join_what_the_first_keeps_apart() -> None:
    x = draw(1, 4, 8, 8).requires_grad_()
    first, second = opened(WindowAttention2d(4, 1, window=4)), opened(WindowAttention2d(4, 1, window=4, shift=2))
    (alone,) = torch.autograd.grad(first(x)[0, :, 0, 0].sum(), x)
    seen = alone.abs().sum((0, 1)) > 0
    assert seen[:4, :4].all()
    assert seen.sum() == 16
    (both,) = torch.autograd.grad(first(second(x))[0, :, 3, 3].sum(), x)
    assert (both.abs().sum((0, 1)) > 0)[:6, :6].all()


def test_squeeze_excite() -> None:
    block, x = opened(SqueezeExcite(16, reduction=2)), draw(2, 16, 3, 5)
    first, _, second = block.excite
    assert first.weight.shape == SqueezeExcite(16).excite[0].weight.shape == (8, 16)  # never fewer than 8 units
    expected = torch.empty_like(x)
    for b in range(2):
        z = torch.stack([x[b, c].sum() / 15 for c in range(16)])
        hidden = (first.weight @ z + first.bias).clamp(min=0)
        s = 1 / (1 + (-(second.weight @ hidden + second.bias)).exp())
        for c in range(16):
            expected[b, c] = s[c] * x[b, c]
    torch.testing.assert_close(block(x), expected)


def test_cbam() -> None:
    block, x = opened(CBAM(4, kernel_size=3)), draw(1, 4, 3, 5)
    first, _, second = block.channels

    def mlp(z: Tensor) -> Tensor:
        return second.weight @ (first.weight @ z + first.bias).clamp(min=0) + second.bias

    mean = torch.stack([x[0, c].sum() / 15 for c in range(4)])
    largest = torch.stack([max(x[0, c].flatten()) for c in range(4)])
    weighed = x * (mlp(mean) + mlp(largest)).sigmoid().view(1, 4, 1, 1)
    expected = torch.empty_like(x)
    around = F.pad(torch.stack([weighed[0].mean(0), weighed[0].amax(0)]), (1, 1, 1, 1))
    for i in range(3):
        for j in range(5):
            score = (block.places.weight[0] * around[:, i : i + 3, j : j + 3]).sum() + block.places.bias
            expected[0, :, i, j] = weighed[0, :, i, j] * score.sigmoid()
    torch.testing.assert_close(block(x), expected.view_as(x))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NonLocal2d(0), "channels must be at least 1, got 0"),
        (lambda: NonLocal2d(4, pool=0), "pool must be at least 1, got 0"),
        (lambda: WindowAttention2d(4, 2, window=0), "window must be at least 1, got 0"),
        (lambda: WindowAttention2d(4, 2, window=4, shift=4), "shift must be at least 0 and below .* 4 pixels, got 4"),
        (lambda: SqueezeExcite(4, reduction=0), "reduction must be at least 1, got 0"),
        (lambda: CBAM(4, kernel_size=4), "kernel_size must be odd, so that there is a middle, got 4"),
    ],
)
def test_bad_arguments(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
