"""Every position against the formula of its paper, with every kernel, and with a cache."""

import math

import pytest
import torch
from attention_contract import TRAINABLE
from torch import Tensor, nn

from attelbo.attention import (
    Alibi,
    AxialRotary,
    Causal,
    Contextual,
    ContinuousBias,
    KernelName,
    KeyValueCache,
    Learned,
    MultiHeadAttention,
    NoPosition,
    Position,
    RelativeBias,
    Rotary,
    Sinusoidal,
    Sinusoidal2d,
    XPos,
)
from attelbo.attention.positions.alibi import alibi_slopes
from attelbo.attention.positions.relative_bias import relative_buckets

DIM, HEADS, HEAD_DIM, LENGTH, SIZE = 16, 4, 4, 12, (3, 4)

POSITIONS = {
    "none": NoPosition,
    "learned": lambda: Learned(DIM, LENGTH),
    "sinusoidal": lambda: Sinusoidal(DIM, LENGTH),
    "sinusoidal_2d": lambda: Sinusoidal2d(DIM, SIZE),
    "rotary": lambda: Rotary(HEAD_DIM, LENGTH),
    "rotary, interleaved": lambda: Rotary(HEAD_DIM, LENGTH, "interleaved"),
    "rotary, a share": lambda: Rotary(HEAD_DIM, LENGTH, share=0.5),
    "rotary, stretched": lambda: Rotary(HEAD_DIM, LENGTH, stretch=2.0, stretched="base"),
    "xpos": lambda: XPos(HEAD_DIM, LENGTH, decay=5.0),
    "axial_rotary": lambda: AxialRotary(HEAD_DIM, SIZE),
    "alibi": lambda: Alibi(HEADS),
    "relative_bias": lambda: RelativeBias(HEADS, True, 4, 8),
    "relative_bias, both directions": lambda: RelativeBias(HEADS, False, 8, 6),
    "continuous_bias": lambda: ContinuousBias(HEADS, 8),
    "contextual": lambda: Contextual(HEAD_DIM, places=5),
}
ABLE = [(name, kernel) for name in POSITIONS for kernel in TRAINABLE if (name, kernel) != ("contextual", "sdpa")]
"""Positions and the kernels that can compute them."""


AT_INPUT = {"none", "learned", "sinusoidal", "sinusoidal_2d"}


@pytest.mark.parametrize("name", POSITIONS)
def test_says_whether_attention_sees_it(name: str) -> None:
    x = torch.randn(2, 5, DIM, dtype=torch.float64)
    seen, unseen = attention(name), MultiHeadAttention(DIM, HEADS, kv_heads=2, kernel="eager").double()
    unseen.load_state_dict(seen.state_dict(), strict=False)
    same = torch.equal(seen(x, mask=Causal()), unseen(x, mask=Causal()))
    assert seen.mechanism.position.is_at_input == same == (name in AT_INPUT)


def attention(name: str, kernel: KernelName = "eager", kv_heads: int = 2) -> MultiHeadAttention:
    """Self-attention with this position, in float64, nothing in it zero."""
    torch.manual_seed(0)
    made = MultiHeadAttention(DIM, HEADS, kv_heads=kv_heads, position=POSITIONS[name](), kernel=kernel).double()
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.5)
    return made


def told(attention: MultiHeadAttention, x: Tensor, first: int = 0, **options) -> Tensor:
    return attention(attention.position.at_input(x, first), **options)


def tokens(n: int = LENGTH, batch: int = 2) -> Tensor:
    return torch.randn(batch, n, DIM, dtype=torch.float64)


@pytest.mark.parametrize("name", POSITIONS)
@pytest.mark.parametrize("steps", [(1,) * LENGTH, (5, 1, 6)])
def test_decoding_with_a_cache_equals_all_at_once(name: str, steps: tuple[int, ...]) -> None:
    ours = attention(name)
    x, cache = tokens(), KeyValueCache(LENGTH)
    parts = [told(ours, part, cache.length, mask=Causal(), cache=cache) for part in x.split(steps, 1)]
    torch.testing.assert_close(torch.cat(parts, 1), told(ours, x, mask=Causal()))


@pytest.mark.parametrize(("name", "kernel"), ABLE)
def test_kernels_agree(name: str, kernel: KernelName) -> None:
    ours, reference = attention(name, kernel), attention(name)
    x = tokens()
    torch.testing.assert_close(told(ours, x), told(reference, x))
    torch.testing.assert_close(told(ours, x, mask=Causal()), told(reference, x, mask=Causal()))


@pytest.mark.parametrize("name", POSITIONS)
def test_tokens_in_another_order_are_told_apart(name: str) -> None:
    ours, x = attention(name), tokens()
    order = torch.randperm(LENGTH)
    same = torch.allclose(told(ours, x)[:, order], told(ours, x[:, order]))
    assert same == (name == "none")


@pytest.mark.parametrize("name", POSITIONS)
def test_every_parameter_gets_a_gradient(name: str) -> None:
    ours = attention(name)
    told(ours, tokens()).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in ours.parameters())


@pytest.mark.parametrize("name", POSITIONS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_types_stay_what_they_are(name: str, dtype: torch.dtype) -> None:
    position: Position = POSITIONS[name]()
    if dtype == torch.float64:
        position.double()
    x, q = torch.zeros(1, LENGTH, DIM, dtype=dtype), torch.zeros(1, HEADS, LENGTH, HEAD_DIM, dtype=dtype)
    assert position.at_input(x).dtype == dtype
    assert all(t.dtype == dtype and t.shape == q.shape for t in position.at_query_key(q, q))


# At the input.


def test_sinusoidal_is_the_formula_of_the_paper() -> None:
    added = Sinusoidal(6, 12).double().at_input(torch.zeros(1, 12, 6, dtype=torch.float64))[0]
    for t in range(12):
        for i in range(3):
            angle = t / 10_000 ** (2 * i / 6)
            assert added[t, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-7)
            assert added[t, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-7)


def test_sinusoidal_2d_is_one_of_the_row_beside_one_of_the_column() -> None:
    added = Sinusoidal2d(8, (3, 5)).at_input(torch.zeros(1, 15, 8))[0].unflatten(0, (3, 5))
    of_row, of_column = (Sinusoidal(4, n).at_input(torch.zeros(1, n, 4))[0] for n in (3, 5))
    for row in range(3):
        for column in range(5):
            assert torch.equal(added[row, column], torch.cat([of_row[row], of_column[column]]))


def test_learned_is_a_vector_for_each_place() -> None:
    torch.manual_seed(0)
    position = Learned(4, 9)
    x = torch.randn(2, 3, 4)
    torch.testing.assert_close(position.at_input(x, 5), x + position.table[5:8])
    assert Learned(100, 100).table.std().item() == pytest.approx(0.02, rel=0.05)


# At query and key.


@pytest.mark.parametrize("layout", ["half", "interleaved"])
def test_rotary_is_multiplication_with_a_rotation(layout) -> None:
    q = torch.randn(1, 1, 7, 6, dtype=torch.float64)
    turned, _ = Rotary(6, 7, layout, base=50.0).double().at_query_key(q, q)
    for t in range(7):
        for i in range(3):
            first, second = (i, i + 3) if layout == "half" else (2 * i, 2 * i + 1)
            angle = t / 50 ** (2 * i / 6)
            rotated = torch.polar(torch.ones((), dtype=torch.float64), torch.tensor(angle, dtype=torch.float64))
            rotated = rotated * torch.complex(q[0, 0, t, first], q[0, 0, t, second])
            torch.testing.assert_close(turned[0, 0, t, first], rotated.real, atol=1e-6, rtol=0)
            torch.testing.assert_close(turned[0, 0, t, second], rotated.imag, atol=1e-6, rtol=0)


@pytest.mark.parametrize("layout", ["half", "interleaved"])
def test_dot_products_of_turned_features_depend_on_the_distance_only(layout) -> None:
    position = Rotary(8, 1000, layout).double()
    q, k = torch.randn(2, 1, 2, 4, 8, dtype=torch.float64)

    def scores(first: int) -> Tensor:
        turned_q, turned_k = position.at_query_key(q, k, first)
        return turned_q @ turned_k.mT

    torch.testing.assert_close(scores(900), scores(0), atol=1e-5, rtol=0)
    assert not torch.allclose(scores(0), q @ k.mT, atol=0.1)
    pair = torch.stack([q[0, 0, 0], k[0, 0, 0]]).expand(1, 1, 2, 8)
    torch.testing.assert_close(position.at_query_key(pair, pair)[0].norm(dim=-1), pair.norm(dim=-1), rtol=1e-6, atol=0)


@pytest.mark.parametrize("layout", ["half", "interleaved"])
def test_of_a_share_of_the_pairs_the_others_do_not_turn(layout) -> None:
    q = torch.randn(1, 1, 7, 8, dtype=torch.float64)
    pairs = [(0, 4), (1, 5), (2, 6), (3, 7)] if layout == "half" else [(0, 1), (2, 3), (4, 5), (6, 7)]
    turned, _ = Rotary(8, 7, layout, base=50.0, share=0.5).double().at_query_key(q, q)
    for pair in pairs[2:]:
        assert torch.equal(turned[..., pair], q[..., pair])
    turning = [feature for pair in zip(*pairs[:2], strict=True) for feature in pair]
    alone, _ = Rotary(4, 7, "half", base=50.0).double().at_query_key(q[..., turning], q[..., turning])
    torch.testing.assert_close(turned[..., turning], alone)


def angle_of(position: Rotary, place: int, pair: int) -> float:
    return math.atan2(
        float(position.sine[place, position.sine.shape[1] // 2 + pair]), float(position.cosine[place, pair])
    )


def test_stretched_angles_are_those_of_nearer_places_or_of_a_larger_base() -> None:
    plain = Rotary(8, 41)
    nearer, slower = Rotary(8, 41, stretch=4.0), Rotary(8, 41, stretch=4.0, stretched="base")
    for pair in range(4):
        assert angle_of(nearer, 40, pair) == pytest.approx(angle_of(plain, 10, pair), abs=1e-6)
    assert angle_of(slower, 3, 0) == pytest.approx(angle_of(plain, 3, 0), abs=1e-6), "the fastest turns as before"
    assert angle_of(slower, 40, 3) == pytest.approx(angle_of(plain, 40, 3) / 4, rel=1e-5), "the slowest 4 times slower"
    between = angle_of(slower, 30, 1) / angle_of(plain, 30, 1)
    assert 1 / 4 < between < 1


@pytest.mark.parametrize("layout", ["half", "interleaved"])
def test_xpos_is_rotary_whose_products_shrink_with_the_distance(layout) -> None:
    length, decay = 30, 5.0
    position, rotary = XPos(4, length, layout=layout, decay=decay).double(), Rotary(4, length, layout).double()
    for pair, zeta in ((0, 0.4 / 1.4), (1, 0.9 / 1.4)):
        ones = torch.zeros(1, 1, length, 4, dtype=torch.float64)
        ones[..., [pair, pair + 2] if layout == "half" else [2 * pair, 2 * pair + 1]] = 1
        (q, k), (q_plain, k_plain) = (each.at_query_key(ones, ones) for each in (position, rotary))
        at = torch.arange(length, dtype=torch.float64)
        expected = q_plain @ k_plain.mT * zeta ** ((at[:, None] - at) / decay)
        torch.testing.assert_close((q @ k.mT).tril(), expected.tril(), rtol=1e-5, atol=1e-8)


def test_layouts_are_equal_up_to_a_permutation_of_the_features() -> None:
    order = torch.tensor([0, 3, 1, 4, 2, 5])  # of half, as interleaved has them
    q, k = torch.randn(2, 1, 2, 4, 6, dtype=torch.float64)
    half = Rotary(6, 9, "half").double().at_query_key(q, k, 5)
    interleaved = Rotary(6, 9, "interleaved").double().at_query_key(q[..., order], k[..., order], 5)
    for one, other in zip(half, interleaved, strict=True):
        torch.testing.assert_close(one[..., order], other)


def test_axial_rotary_depends_on_both_distances_only() -> None:
    position = AxialRotary(8, (6, 7)).double()
    q, k = torch.randn(2, 8, dtype=torch.float64)
    turned_q, turned_k = position.at_query_key(q.expand(1, 1, 42, 8), k.expand(1, 1, 42, 8))
    scores = (turned_q @ turned_k.mT)[0, 0].view(6, 7, 6, 7)
    by_distance = {}
    for y, x, v, u in torch.cartesian_prod(*map(torch.arange, (6, 7, 6, 7))).tolist():
        expected = by_distance.setdefault((v - y, u - x), scores[y, x, v, u])
        torch.testing.assert_close(scores[y, x, v, u], expected, atol=1e-5, rtol=0)
    assert torch.stack(list(by_distance.values())).unique().numel() == 11 * 13


def test_tokens_in_front_of_an_image_do_not_turn() -> None:
    q = torch.randn(1, 2, 8, 4)
    with_two, _ = AxialRotary(4, (2, 3), 8).at_query_key(q, q)
    without, _ = AxialRotary(4, (2, 3)).at_query_key(q[:, :, 2:], q[:, :, 2:])
    assert torch.equal(with_two, torch.cat([q[:, :, :2], without], 2))


def test_angles_are_precise_far_out() -> None:
    position = Rotary(4, 100_001)
    q = torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=torch.bfloat16).expand(1, 1, 1, 4)
    turned, _ = position.at_query_key(q, q, 100_000)
    assert turned[0, 0, 0, 0].item() == pytest.approx(math.cos(100_000), abs=4e-3)  # a bfloat16 has 8 bits


# On the scores.


@pytest.mark.parametrize(
    ("heads", "slopes"),
    [
        (1, [2**-8]),
        (2, [2**-4, 2**-8]),
        (8, [1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 128, 1 / 256]),  # section 3 of the paper
        (16, [2 ** (-n / 2) for n in range(1, 17)]),  # section 3: from 2^-0.5 on, to 2^-8
        (3, [2**-4, 2**-8, 2**-2]),
        (12, [2.0**-n for n in range(1, 9)] + [2**-0.5, 2**-1.5, 2**-2.5, 2**-3.5]),
    ],
)
def test_alibi_has_the_slopes_of_the_paper(heads: int, slopes: list[float]) -> None:
    assert alibi_slopes(heads) == pytest.approx(slopes)
    bias = Alibi(heads).bias(torch.arange(heads), torch.tensor(7), torch.tensor(3))
    assert bias.tolist() == pytest.approx([-4 * slope for slope in slopes])


def bucket_of_t5(relative: int, causal: bool, buckets: int, max_distance: int) -> int:
    """Of one distance, as the paper's section 2.1 and its code describe them."""
    first = 0
    n = -relative
    if causal:
        n = max(n, 0)
    else:
        buckets //= 2
        first = buckets if n < 0 else 0
        n = abs(n)
    exact = buckets // 2
    if n < exact:
        return first + n
    steps = (math.log2(n) - math.log2(exact)) / (math.log2(max_distance) - math.log2(exact)) * (buckets - exact)
    return first + min(exact + math.floor(steps), buckets - 1)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("buckets", "max_distance"), [(32, 128), (8, 20), (64, 256)])
def test_buckets_are_those_of_t5(causal: bool, buckets: int, max_distance: int) -> None:
    offsets = torch.arange(-300, 301)
    expected = [bucket_of_t5(int(offset), causal, buckets, max_distance) for offset in offsets]
    assert relative_buckets(offsets, causal, buckets, max_distance).tolist() == expected


def test_relative_bias_is_looked_up_by_bucket_and_head() -> None:
    position = RelativeBias(2, False, 8, 6)
    nn.init.normal_(position.table)
    head, query, key = torch.arange(2)[:, None, None], torch.arange(10)[:, None], torch.arange(12)
    bias = position.bias(head, query, key)
    assert bias.shape == (2, 10, 12)
    for h in range(2):
        for t in range(10):
            for s in range(12):
                assert bias[h, t, s] == position.table[bucket_of_t5(s - t, False, 8, 6), h]


def test_continuous_bias_is_the_network_at_each_distance() -> None:
    torch.manual_seed(0)
    position = ContinuousBias(3, 5).double()
    network = nn.Sequential(nn.Linear(1, 5), nn.ReLU(), nn.Linear(5, 3, bias=False)).double()
    network[0].weight.data, network[0].bias.data = position.weight.data[:, None], position.shift.data
    network[2].weight.data = position.output.data.T
    head, query, key = torch.arange(3)[:, None, None], torch.arange(20, 30)[:, None], torch.arange(7, 40)
    found = position.bias(head, query, key)
    assert found.shape == (3, 10, 33)
    for t in range(10):
        for s in range(33):
            distance = (7 + s) - (20 + t)
            d = math.copysign(math.log(1 + abs(distance)), distance)  # eq. 4 of the paper
            torch.testing.assert_close(found[:, t, s], network(torch.tensor([d], dtype=torch.float64)))
    in_cache = position.bias(head, torch.tensor([[29]]), key)
    torch.testing.assert_close(in_cache[:, 0], found[:, 9])


def test_continuous_bias_goes_on_beyond_the_distances_that_were_trained_on() -> None:
    """In a straight line of the logarithm of the distance: nothing is clamped, nothing jumps."""
    torch.manual_seed(0)
    position = ContinuousBias(2).double()
    position.shift.data *= position.weight.data.abs()  # each hidden feature has its kink within d = -1 .. 1
    steps = position.of_distances(1 - 2 ** torch.arange(5, 20)).diff(dim=0)
    assert (steps.abs() > 1e-4).all()
    torch.testing.assert_close(steps[1:], steps[:-1])


# What does not fit.


@pytest.mark.parametrize("name", ["learned", "sinusoidal", "sinusoidal_2d", "rotary", "xpos", "axial_rotary"])
def test_a_sequence_that_is_too_long(name: str) -> None:
    ours, cache = attention(name), KeyValueCache(99)
    told(ours, tokens(), cache=cache)
    with pytest.raises(ValueError, match="there are 12 positions, too few for a sequence of 13 tokens"):
        told(ours, tokens(13))
    with pytest.raises(ValueError, match="there are 12 positions, too few for a sequence of 13 tokens"):
        told(ours, tokens(1), 12, cache=cache)


@pytest.mark.parametrize("name", ["learned", "sinusoidal", "rotary", "xpos", "axial_rotary"])
def test_whoever_asks_is_told_how_long_a_sequence_may_be(name: str) -> None:
    assert attention(name).position.max_length == 12


def test_other_features_than_there_are_angles_for() -> None:
    q = torch.zeros(1, 1, 3, 6)
    with pytest.raises(ValueError, match="angles of 4 features cannot turn 6"):
        Rotary(4, 5).at_query_key(q, q)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Learned(4, 0), "max_length must be at least 1, got 0"),
        (lambda: Sinusoidal(4, 0), "max_length must be at least 1, got 0"),
        (lambda: Sinusoidal(5, 3), "dim must be a multiple of 2 for pairs of sine and cosine, got 5"),
        (lambda: Sinusoidal2d(6, (2, 2)), "dim must be a multiple of 4 .*, got 6"),
        (lambda: Sinusoidal2d(8, (2, 0)), r"size must be \(height, width\) of the grid of tokens, got \(2, 0\)"),
        (lambda: Sinusoidal2d(8, None), "rows and columns are those of an image, and there is none"),
        (lambda: Rotary(3, 5), "head_dim must be a multiple of 2 for pairs that turn, got 3"),
        (lambda: XPos(4, 0), "max_length must be at least 1, got 0"),
        (lambda: Rotary(4, 0), "max_length must be at least 1, got 0"),
        (lambda: Rotary(4, 5, "pairs"), "layout must be half or interleaved, got 'pairs'"),  # pyright: ignore[reportArgumentType]
        (lambda: Rotary(4, 5, share=0.0), r"share must be in \(0, 1\], got 0.0"),
        (lambda: Rotary(4, 5, stretch=0.5), "stretch must be at least 1, got 0.5"),
        (lambda: Rotary(4, 5, base=math.nan), "base must be positive and finite, got nan"),
        (lambda: Rotary(4, 5, stretch=math.inf), "stretch must be positive and finite, got inf"),
        (lambda: XPos(4, 5, base=0.0), "base must be positive and finite, got 0.0"),
        (lambda: AxialRotary(4, (2, 2), base=-1.0), "base must be positive and finite, got -1.0"),
        (lambda: Rotary(4, 5, stretched="all"), "stretched must be places or base, got 'all'"),  # pyright: ignore[reportArgumentType]
        (lambda: Rotary(2, 5, stretch=2.0, stretched="base"), "stretched must be places where a single pair turns"),
        (lambda: XPos(4, 5, causal=False), "causal attention only; Rotary"),
        (lambda: XPos(4, 5, decay=0.0), "decay must be positive and finite, got 0.0"),
        (lambda: AxialRotary(6, (2, 2)), "head_dim must be a multiple of 4 .*, got 6"),
        (lambda: AxialRotary(4, (2, 3), 5), "max_length must be at least the 6 places of the image, got 5"),
        (lambda: AxialRotary(4, (2, 2, 2)), "size must be"),  # pyright: ignore[reportArgumentType]
        (lambda: ContinuousBias(2, 0), "hidden must be at least 1, got 0"),
        (lambda: ContinuousBias(0), "heads must be at least 1, got 0"),
        (
            lambda: MultiHeadAttention(8, 2, position=ContinuousBias(2), kernel="flex"),
            "kernel=flex cannot compute this: .* ContinuousBias is computed by a network; auto or eager or sdpa or",
        ),
        (lambda: Alibi(0), "heads must be at least 1, got 0"),
        (lambda: RelativeBias(2, buckets=6), "buckets must be a multiple of 4, got 6"),
        (lambda: RelativeBias(2, True, 0), "buckets must be a multiple of 2, got 0"),
        (lambda: RelativeBias(2, True, 32, 16), "max_distance must be above the 16 distances with their own bucket"),
    ],
)
def test_bad_arguments(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("position", [Alibi(8), RelativeBias(8), ContinuousBias(8)], ids=str)
def test_a_bias_for_other_heads_is_refused(position: Position) -> None:
    """Four heads would take the first four of eight slopes."""
    with pytest.raises(ValueError, match=r"^position: the (Alibi|RelativeBias|ContinuousBias) is for 8 heads, got 4$"):
        MultiHeadAttention(32, heads=4, position=position)
