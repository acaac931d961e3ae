"""Every mask against its definition written with loops, and each rendering against the predicate."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attelbo.attention import (
    And,
    Behind,
    Block,
    BlockCausal,
    Causal,
    Document,
    Full,
    Global,
    Mask,
    MultiHeadAttention,
    Or,
    Padding,
    Prefix,
    SlidingWindow,
)

VALID = torch.tensor([[1, 1, 1, 0, 1, 0, 1, 1], [0, 0, 1, 1, 1, 1, 1, 0]], dtype=torch.bool)
IDS = torch.tensor([[0, 0, 0, 1, 1, 2, -1, -1], [3, 3, 1, 1, 1, 1, 1, -1]])

DEFINITIONS = {
    "full": (Full(), lambda b, q, k: True),
    "causal": (Causal(), lambda b, q, k: k <= q),
    "window": (SlidingWindow(3), lambda b, q, k: k in range(q - 2, q + 3)),
    "prefix": (Prefix(2), lambda b, q, k: k in (0, 1)),
    "block": (Block(3), lambda b, q, k: q // 3 == k // 3),
    "causal blocks": (BlockCausal((1, 2, 4)), lambda b, q, k: k < next(end for end in (1, 3, 7, 99) if q < end)),
    "padding": (Padding(VALID), lambda b, q, k: bool(VALID[b, k])),
    "document": (Document(IDS), lambda b, q, k: q >= 0 and IDS[b, q] == IDS[b, k] and IDS[b, k] >= 0),
    "causal window or prefix": (
        Causal() & SlidingWindow(3) | Prefix(1),
        lambda b, q, k: k in (q - 2, q - 1, q) or k == 0,
    ),
    "padding or prefix": (Padding(VALID) | Prefix(2), lambda b, q, k: bool(VALID[b, k]) or k in (0, 1)),
    "padding or documents": (
        Padding(VALID.flip(0)) | Document(IDS),
        lambda b, q, k: bool(VALID[1 - b, k]) or (q >= 0 and IDS[b, q] == IDS[b, k] and IDS[b, k] >= 0),
    ),
    "causal in documents": (
        Causal() & Document(IDS),
        lambda b, q, k: 0 <= k <= q and IDS[b, q] == IDS[b, k] and IDS[b, k] >= 0,
    ),
    "padding behind others": (Behind(Padding(VALID), 2), lambda b, q, k: k < 2 or bool(VALID[b, k - 2])),
    "a causal window behind others": (
        Behind(Causal() & SlidingWindow(2), 3),
        lambda b, q, k: k < 3 or k in (q - 1, q),
    ),
    "blocks, with tokens that see everyone": (
        Global(Block(3), 2),
        lambda b, q, k: min(q, k) < 2 or (q - 2) // 3 == (k - 2) // 3,
    ),
    "a causal window, with tokens that everyone sees": (
        Causal() & Global(SlidingWindow(2), 1),
        lambda b, q, k: k <= q and (k < 1 or k in (q - 1, q)),
    ),
}

sizes = st.integers(1, 8)


@pytest.mark.parametrize("name", DEFINITIONS)
@settings(max_examples=15, deadline=None)
@given(n_queries=sizes, n_keys=sizes, first=st.integers(-5, 7))
def test_dense_is_the_definition(name: str, n_queries: int, n_keys: int, first: int) -> None:
    mask, definition = DEFINITIONS[name]
    offset = min(first, 8 - n_queries)
    dense = mask.dense(n_queries, n_keys, offset=offset, device=None)
    assert dense.shape == (mask.batch_size or 1, 1, n_queries, n_keys)
    for b in range(len(dense)):
        for t in range(n_queries):
            for s in range(n_keys):
                assert bool(dense[b, 0, t, s]) == definition(b, t + offset, s)


@pytest.mark.parametrize("name", DEFINITIONS)
@settings(max_examples=25, deadline=None)
@given(n_queries=sizes, n_keys=sizes, first=st.integers(-5, 7))
def test_the_other_renderings_agree_with_dense(name: str, n_queries: int, n_keys: int, first: int) -> None:
    mask, _ = DEFINITIONS[name]
    offset = min(first, 8 - n_queries)
    dense = mask.dense(n_queries, n_keys, offset=offset, device=None)
    low, high = mask.key_range(offset, offset + n_queries - 1)
    outside = torch.tensor([not low <= key < high for key in range(n_keys)])
    assert not dense[..., outside].any()
    present = mask.present(n_keys)
    assert present is None or present[:, None, None].expand_as(dense)[dense].all()
    if mask.allows_all(n_queries, n_keys, offset):
        assert dense.all()
    if mask.is_causal(n_queries, n_keys):
        at_zero = mask.dense(n_queries, n_keys, offset=0, device=None)
        assert torch.equal(at_zero[0, 0], torch.ones(n_queries, n_keys, dtype=torch.bool).tril())


def test_a_causal_window_shows_as_many_keys_as_it_says() -> None:
    dense = (Causal() & SlidingWindow(4)).dense(9, 9, device=None)
    assert dense.sum(-1).flatten().tolist() == [1, 2, 3, 4, 4, 4, 4, 4, 4]


def test_by_default_the_last_query_stands_at_the_last_key() -> None:
    assert Causal().dense(2, 4, device=None)[0, 0].tolist() == [[True, True, True, False], [True] * 4]


def test_what_is_known_to_mask_nothing() -> None:
    assert Causal().allows_all(1, 5, 4)
    assert not Causal().allows_all(2, 5, 3)
    assert SlidingWindow(5).allows_all(5, 5, 0)
    assert BlockCausal((1, 4)).allows_all(2, 5, 2)
    assert not BlockCausal((1, 4)).allows_all(2, 5, 0)
    assert Global(SlidingWindow(1), 3).allows_all(3, 9, 0)
    assert Global(SlidingWindow(5), 3).allows_all(8, 8, 0)
    assert not Global(SlidingWindow(4), 3).allows_all(8, 8, 0)
    assert (Causal() & SlidingWindow(9)).is_causal(8, 8)
    assert not (Causal() & SlidingWindow(3)).is_causal(8, 8)
    assert (Causal() & SlidingWindow(3)).key_range(10, 12) == (8, 13)


def test_queries_long_before_all_documents_see_none() -> None:
    dense = Document(IDS[:, :2]).dense(7, 2, device=None)
    assert not dense[:, :, :5].any()
    assert dense[:, :, 5:].all()


def test_composition_keeps_precedence() -> None:
    mask: Mask = Causal() & SlidingWindow(2) | Prefix(1)
    assert isinstance(mask, Or)
    assert isinstance(mask.first, And)


class _Distances(Mask):
    """Says how far, not whether."""

    def allows(self, batch: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        return query - key + batch


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SlidingWindow(0), "width must be at least 1, got 0"),
        (lambda: Behind(Causal(), 0), "n must be at least 1, got 0"),
        (lambda: Block(0), "size must be at least 1, got 0"),
        (lambda: BlockCausal((2, 0)), "length must be at least 1, got 0"),
        (lambda: Prefix(-1), "length must be at least 1, got -1"),
        (lambda: Padding(torch.ones(2, 3)), "valid must be a bool tensor .* did you mean a bias"),
        (lambda: Document(torch.ones(2, 3)), "ids must be integers"),
        (lambda: Padding(VALID[:1]) & Document(IDS), r"masks of batches of different sizes .*: \[1, 2\]"),
        (lambda: _Distances().dense(2, 3, device=None), "mask: _Distances.allows must give bools .*, got int64;"),
        (lambda: (_Distances() & Causal()).dense(2, 3, device=None), "mask: _Distances.allows must give bools"),
    ],
)
def test_bad_arguments(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_tensor_in_place_of_a_mask_is_told() -> None:
    layer = MultiHeadAttention(8, heads=2)
    with pytest.raises(TypeError, match=r"^mask must be a Mask, .*, got a Tensor; did you mean a bias on the scores\?"):
        layer(torch.ones(1, 3, 8), mask=torch.ones(3, 3))  # pyright: ignore[reportArgumentType]
