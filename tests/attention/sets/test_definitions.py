"""Modules on sets against their papers' formulas, written out."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attelbo.attention.sets import ISAB, MAB, PMA, SAB, Perceiver, SlotAttention


def draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def opened(module: nn.Module) -> nn.Module:
    """In float64, with random weights."""
    torch.manual_seed(0)
    for parameter in module.double().parameters():
        nn.init.normal_(parameter, std=0.5)
    return module


def mab(block: MAB, x: Tensor, y: Tensor, scale: float) -> Tensor:
    """Eq. 6 and 7 for one set, head by head, queries x (T, E) and elements y (S, E)."""
    dim = x.shape[-1]
    (w_q, w_k, w_v), (b_q, b_k, b_v) = block.attention.qkv.weight.chunk(3), block.attention.qkv.bias.chunk(3)
    heads = []
    for rows in torch.arange(dim).chunk(block.attention.heads):
        q, k, v = (t @ w[rows].T + b[rows] for t, w, b in ((x, w_q, b_q), (y, w_k, b_k), (y, w_v, b_v)))
        weights = (scale * q @ k.T).exp()
        heads.append(weights / weights.sum(1, keepdim=True) @ v)
    h = block.attention_norm(x + block.attention.output(torch.cat(heads, 1)))
    return block.feed_forward_norm(h + (block.feed_forward.weight @ h.T).T.add(block.feed_forward.bias).clamp(min=0))


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("scale", [None, 0.3])
def test_set_transformer(norm: bool, scale: float | None) -> None:
    """With a scale of 1 / sqrt(the whole width), of 4 here, unless another is asked for."""
    x, expected_scale = draw(5, 4), 0.5 if scale is None else scale
    sab, isab = opened(SAB(4, 2, scale=scale, norm=norm)), opened(ISAB(4, 2, 3, scale=scale, norm=norm))
    pma = opened(PMA(4, 2, 3, scale=scale, norm=norm))
    torch.testing.assert_close(sab(x.unsqueeze(0))[0], mab(sab.block, x, x, expected_scale))
    points = mab(isab.to_points, isab.points, x, expected_scale)
    torch.testing.assert_close(isab(x.unsqueeze(0))[0], mab(isab.from_points, x, points, expected_scale))
    torch.testing.assert_close(pma(x.unsqueeze(0))[0], mab(pma.block, pma.seeds, x, expected_scale))


def test_the_scale_is_on_record() -> None:
    assert MAB(16, 4).attention.score.scale == 0.25


def test_perceiver() -> None:
    """One round is cross-attention and PyTorch's own encoder layers; the third has the weights of the second."""
    perceiver = opened(Perceiver(8, 3, n_latents=4, heads=2, layers=2, rounds=3, hidden=5))
    x = draw(2, 6, 3)
    latents = perceiver.latents.expand(2, -1, -1)
    for round_ in (0, 1, 1):
        look, stack = perceiver.looks[round_], perceiver.stacks[round_]
        q = look.attention.qkv(look.latent_norm(latents))
        k, v = look.attention.from_memory(look.element_norm(x)).chunk(2, -1)
        seen = (q @ k.mT / math.sqrt(8)).softmax(-1) @ v
        latents = latents + look.attention.output(seen)
        latents = latents + feed_forward(look.feed_forward)(look.feed_forward_norm(latents))
        for block in stack:
            theirs = nn.TransformerEncoderLayer(
                8, 2, 5, 0.0, "gelu", batch_first=True, norm_first=True, dtype=torch.float64
            )
            theirs.load_state_dict(
                {
                    "self_attn.in_proj_weight": block.attention.qkv.weight,
                    "self_attn.in_proj_bias": block.attention.qkv.bias,
                    "self_attn.out_proj.weight": block.attention.output.weight,
                    "self_attn.out_proj.bias": block.attention.output.bias,
                    **{f"linear1.{name}": value for name, value in block.feed_forward.first.named_parameters()},
                    **{f"linear2.{name}": value for name, value in block.feed_forward.second.named_parameters()},
                    **{f"norm1.{name}": value for name, value in block.around_attention.norm.named_parameters()},
                    **{f"norm2.{name}": value for name, value in block.around_feed_forward.norm.named_parameters()},
                }
            )
            latents = theirs(latents)
    torch.testing.assert_close(perceiver(x), latents)


def feed_forward(network: nn.Module) -> Callable[[Tensor], Tensor]:
    return lambda x: F.linear(F.gelu(F.linear(x, *network.first.parameters())), *network.second.parameters())


def test_slot_attention() -> None:
    """Algorithm 1 for one set, slot by slot, with PyTorch's GRU."""
    assert SlotAttention(4).mlp[1].out_features == 8
    module = opened(SlotAttention(4, 3, n_slots=2, iterations=2, hidden=5))
    x, slots = draw(5, 3), draw(2, 4, seed=2)
    k, v = module.key_value(module.element_norm(x)).chunk(2, -1)
    gru = nn.GRUCell(4, 4, dtype=torch.float64)
    gru.load_state_dict(
        {
            "weight_ih": module.from_won.weight,
            "bias_ih": module.from_won.bias,
            "weight_hh": module.from_slot.weight,
            "bias_hh": module.from_slot.bias,
        }
    )
    state = slots
    for _ in range(2):
        q = module.query(module.slot_norm(state))
        attention = (k @ q.T / 2).softmax(1) + 1e-8  # over the slots
        updated = []
        for j in range(2):
            u = sum(attention[i, j] * v[i] for i in range(5)) / attention[:, j].sum()
            h = gru(u.unsqueeze(0), state[j].unsqueeze(0))[0]
            updated.append(h + module.mlp(h))
        state = torch.stack(updated)
    torch.testing.assert_close(module(x.unsqueeze(0), slots=slots.unsqueeze(0))[0], state)


def test_slots_are_equivariant_and_may_be_of_another_number() -> None:
    module, x, slots = opened(SlotAttention(4, n_slots=3)), draw(2, 6, 4), draw(2, 5, 4, seed=2)
    order = torch.tensor([4, 2, 0, 1, 3])
    out = module(x, slots=slots)
    assert out.shape == (2, 5, 4)
    torch.testing.assert_close(module(x, slots=slots[:, order]), out[:, order])
    assert module.initial(2, 7).shape == (2, 7, 4)


def test_slots_begin_with_a_draw_from_a_learned_normal_distribution() -> None:
    torch.manual_seed(0)
    module = SlotAttention(3, n_slots=4).double()
    nn.init.normal_(module.mean)
    nn.init.normal_(module.log_std, std=0.5)
    slots = module.initial(5000).flatten(0, 1)  # standard error of a mean: std / 141
    torch.testing.assert_close(slots.mean(0), module.mean, atol=0.1, rtol=0)
    torch.testing.assert_close(slots.std(0), module.log_std.exp(), atol=0, rtol=0.03)
    (module(draw(2, 5, 3)) * draw(2, 4, 3)).sum().backward()
    assert module.mean.grad is not None
    assert module.log_std.grad is not None
    assert (module.mean.grad != 0).all()
    assert (module.log_std.grad != 0).all()


def test_slots_begin_as_vectors_that_are_learned() -> None:
    module, x = opened(SlotAttention(4, n_slots=3, learned=True)), draw(2, 6, 4)
    assert "beginnings" in dict(module.named_parameters())
    assert torch.equal(module(x), module(x))
    torch.testing.assert_close(module(x), module(x, slots=module.beginnings.expand(2, -1, -1)))
    module(x)[:, 1].sum().backward()
    assert (module.beginnings.grad[1] != 0).all()
    with pytest.raises(ValueError, match=r"^n_slots must be 3, the number of learned slots, got 4"):
        module.initial(2, 4)


def test_shares_sum_to_one_over_the_slots() -> None:
    module, x = opened(SlotAttention(4, n_slots=3)), draw(2, 6, 4)
    shares = module.shares(x, module(x))
    assert shares.shape == (2, 3, 6)
    torch.testing.assert_close(shares.sum(1), torch.ones(2, 6, dtype=torch.float64))
