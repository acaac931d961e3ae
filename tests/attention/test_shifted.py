"""The token shift against a loop over tokens, and that it keeps what masks and caches promise."""

import pytest
import torch
from attention_contract import normal, randomize
from torch import Tensor, nn

from attelbo.attention import Block, Causal, Document, Mask, NoPosition, Padding, Position
from attelbo.attention.shifted import TokenShift
from attelbo.networks import AttentionParts, Transformer

DIM, LENGTH = 8, 7
IDS = torch.tensor([[0, 0, 0, 1, 1, 1, 1], [2, 2, 3, 3, 3, -1, -1]])
MASKS: dict[str, Mask | None] = {
    "none": None,
    "documents": Document(IDS),
    "padding": Padding(IDS % 2 == 0),
    "causal documents": Causal() & Document(IDS),
    "block": Block(3),
}


def stack(attention: str = "MultiHeadAttention", **options) -> Transformer:
    torch.manual_seed(0)
    parts = AttentionParts({"_target_": f"attelbo.attention.{attention}", "heads": 2}, position={})
    position: Position = NoPosition()
    made = Transformer(DIM, parts, position, **{"causal": True, "shift": 0.5, "layers": 2, **options}).double()
    randomize(made)
    return made


@pytest.mark.parametrize("mask", MASKS)
def test_features_of_the_token_before_it_are_taken_where_it_may_be_seen(mask: str) -> None:
    x = normal(2, LENGTH, DIM)
    found, seen = TokenShift(3, 0, x, MASKS[mask], {})("any", x), None
    if (given := MASKS[mask]) is not None:
        seen = given.dense(LENGTH, LENGTH, device=None).expand(2, 1, LENGTH, LENGTH)[:, 0]
    for row in range(2):
        for t in range(LENGTH):
            linked = t > 0 and (seen is None or bool(seen[row, t, t - 1]))
            before = x[row, t - 1] if linked else torch.zeros(DIM, dtype=torch.float64)
            assert torch.equal(found[row, t], torch.cat([before[:3], x[row, t, 3:]]))


def test_attention_and_feed_forward_network_read_shifted_tokens_after_their_norms() -> None:
    ours, x = stack(layers=1), normal(2, LENGTH, DIM)
    (block,) = ours.blocks

    def shifted(x: Tensor) -> Tensor:
        before = nn.functional.pad(x[:, :-1, : DIM // 2], (0, 0, 1, 0))
        return torch.cat([before, x[..., DIM // 2 :]], -1)

    h = x + block.attention(shifted(block.around_attention.norm(x)))
    h = h + block.feed_forward(shifted(block.around_feed_forward.norm(h)))
    torch.testing.assert_close(ours(x), ours.norm(h))


OPTIONS = {
    "plain": {},
    "a third, macaron": {"shift": 1 / 3, "macaron": True},
    "with a memory": {"cross": True},
    "norm behind": {"residual": "post_norm"},
    "in streams": {"residual": "dynamic_hyper"},
    "linear": {"attention": "LinearAttention"},
    "residual scores": {"attention": "ResidualScoreAttention"},
    "forgetting": {"attention": "ForgettingAttention"},
}


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("steps", [(1,) * LENGTH, (3, 1, 3)])
def test_decoding_with_caches_equals_all_at_once_and_all_learn(name: str, steps: tuple[int, ...]) -> None:
    ours, x = stack(**OPTIONS[name]), normal(2, LENGTH, DIM)
    memory = normal(2, 3, DIM, seed=1) if "cross" in OPTIONS[name] else None
    expected, caches = ours(x, memory), ours.caches(LENGTH)
    parts = [ours(part, memory, caches=caches) for part in x.split(steps, 1)]
    torch.testing.assert_close(torch.cat(parts, 1), expected)
    assert not torch.allclose(stack(**{**OPTIONS[name], "shift": 0.0})(x, memory), expected)
    expected.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in ours.parameters())


def test_caches_go_on_with_other_rows() -> None:
    ours, x, rows = stack(), normal(3, LENGTH, DIM), torch.tensor([2, 0, 0])
    caches = ours.caches(LENGTH)
    ours(x[:, :4], caches=caches)
    for cache in caches:
        cache.reorder(rows)
    chosen = torch.cat([x[rows, :4], x[:, 4:]], 1)
    torch.testing.assert_close(ours(x[:, 4:], caches=caches), ours(chosen)[:, 4:])


def test_documents_in_a_row_are_read_as_each_by_itself() -> None:
    ours, x = stack(), normal(2, LENGTH, DIM)
    together = ours(x, mask=Document(IDS))
    for row, first, last in ((0, 0, 3), (0, 3, 7), (1, 0, 2), (1, 2, 5)):
        torch.testing.assert_close(together[row, first:last], ours(x[row : row + 1, first:last])[0])


def test_padding_shows_nowhere_and_no_token_sees_those_behind_it() -> None:
    valid = IDS % 2 == 0
    ours, x = stack(causal=False), normal(2, LENGTH, DIM)
    poisoned = x.masked_fill(~valid.unsqueeze(-1), torch.nan)
    found, expected = (ours(each, mask=Padding(valid)) for each in (poisoned, x))
    torch.testing.assert_close(found[valid], expected[valid])
    ours, given = stack(), x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(ours(given)[0, 3, 0], given)
    assert (gradient[0, 4:] == 0).all()
    assert (gradient[0, :4].abs().sum(-1) > 0).all()


def test_a_configured_mask_cuts_the_shift_too() -> None:
    parts = AttentionParts(
        {"_target_": "attelbo.attention.MultiHeadAttention", "heads": 2},
        position={},
        mask={"_target_": "attelbo.attention.Block", "size": 3},
    )
    ours = Transformer(DIM, parts, NoPosition(), causal=True, shift=0.5).double()
    x = normal(1, 6, DIM)
    torch.testing.assert_close(ours(x)[:, 3:], ours(x[:, 3:]))


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match=r"shift must be in \[0, 1\), got 1.0"):
        stack(shift=1.0)
