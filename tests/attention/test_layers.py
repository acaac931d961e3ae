"""What every layer of attention keeps, whatever its projections, and each variant against its formula."""

import copy
import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from attention_contract import TRAINABLE
from torch import Tensor, nn

from attelbo.attention import (
    Alibi,
    AttentionLayer,
    BlockCache,
    Causal,
    DifferentialAttention,
    Document,
    Dot,
    FeedForward,
    ForgettingAttention,
    GatedAttention,
    General,
    KernelName,
    KeyValueCache,
    LatentAttention,
    MultiHeadAttention,
    Normalizer,
    Padding,
    PersistentMemoryAttention,
    RelativeBias,
    ResidualScoreAttention,
    Rotary,
    ScaledDot,
    SoftmaxOffByOne,
    TalkingHeadsAttention,
    TransformerBlock,
    ValueResidualAttention,
)
from attelbo.attention.talking import TalkingHeads

DIM, HEADS, LENGTH = 16, 2, 7

LAYERS: dict[str, Callable[..., AttentionLayer]] = {
    "multi_head": MultiHeadAttention,
    "wide heads": lambda *sizes, **options: MultiHeadAttention(*sizes, head_dim=12, **options),
    "narrow heads, grouped": lambda *sizes, **options: MultiHeadAttention(*sizes, head_dim=6, kv_heads=1, **options),
    "grouped_query": lambda *sizes, **options: MultiHeadAttention(*sizes, kv_heads=1, **options),
    "gated": GatedAttention,
    "gated, wide heads": lambda *sizes, **options: GatedAttention(*sizes, head_dim=12, **options),
    "gated heads": lambda *sizes, **options: GatedAttention(*sizes, gate="head", **options),
    "differential": lambda *sizes, **options: DifferentialAttention(*sizes, depth=3, **options),
    "differential, wide, grouped": lambda *sizes, **options: DifferentialAttention(
        *sizes, head_dim=12, kv_heads=1, **options
    ),
    "forgetting": ForgettingAttention,
    "forgetting, narrow, grouped": lambda *sizes, **options: ForgettingAttention(
        *sizes, head_dim=6, kv_heads=1, **options
    ),
    "latent": lambda *sizes, **options: LatentAttention(*sizes, latent_dim=5, **options),
    "latent, few placed": lambda *sizes, **options: LatentAttention(*sizes, latent_dim=5, placed_dim=2, **options),
    "persistent memory": lambda *sizes, **options: PersistentMemoryAttention(*sizes, memories=3, **options),
    "persistent memory, narrow, grouped": lambda *sizes, **options: PersistentMemoryAttention(
        *sizes, memories=3, head_dim=6, kv_heads=1, **options
    ),
    "residual scores": ResidualScoreAttention,
    "residual scores, narrow, grouped": lambda *sizes, **options: ResidualScoreAttention(
        *sizes, head_dim=6, kv_heads=1, **options
    ),
    "talking heads": TalkingHeadsAttention,
    "talking heads, narrow, grouped": lambda *sizes, **options: TalkingHeadsAttention(
        *sizes, head_dim=6, kv_heads=1, **options
    ),
    "value residual": ValueResidualAttention,
    "value residual, narrow, grouped": lambda *sizes, **options: ValueResidualAttention(
        *sizes, head_dim=6, kv_heads=1, **options
    ),
}
ABLE = [(name, kernel) for name in LAYERS for kernel in TRAINABLE if kernel != "sdpa" or "talking" not in name]
"""Layers and the kernels that can compute them."""
TOKENS_ONLY = [name for name in LAYERS if "memory" not in name]
"""Layers that attend to nothing but tokens."""
HEAD_DIM = {name: 12 if "wide" in name else 6 for name in LAYERS if "wide" in name or "narrow" in name}
"""Where it is not DIM // HEADS."""
PLACED = HEAD_DIM | {"differential": 4, "differential, wide, grouped": 6, "latent": 4, "latent, few placed": 2}

POSITIONS = {
    "none": lambda name: None,
    "rotary": lambda name: Rotary(PLACED.get(name, DIM // HEADS), LENGTH),
    "alibi": lambda name: Alibi(HEADS),
    "relative_bias": lambda name: RelativeBias(HEADS, causal=True, buckets=4, max_distance=5),
}


def layer(name: str, position: str = "none", **options) -> AttentionLayer:
    """In float64, with nothing in it zero."""
    torch.manual_seed(0)
    made = LAYERS[name](DIM, HEADS, position=POSITIONS[position](name), **options).double()
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.4)
    return made


def tokens(n: int = LENGTH, dim: int = DIM) -> Tensor:
    return torch.randn(3, n, dim, dtype=torch.float64)


VALID = torch.tensor([[1, 1, 1, 1, 0], [0, 1, 0, 1, 1], [0, 0, 0, 0, 0]], dtype=torch.bool)


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("steps", [(1,) * LENGTH, (4, 1, 2)])
def test_decoding_with_a_cache_equals_all_at_once(name: str, position: str, steps: tuple[int, ...]) -> None:
    ours, x, cache = layer(name, position), tokens(), KeyValueCache(LENGTH)
    mask = Causal() & Document(torch.tensor([[0] * 7, [0, 0, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 1, 1]]))
    parts = [ours(part, mask=mask, cache=cache) for part in x.split(steps, 1)]
    torch.testing.assert_close(torch.cat(parts, 1), ours(x, mask=mask))


class Reversed(ScaledDot):
    """With the features of the query in the opposite order."""

    def at_query(self, query):
        return query.flip(-1)


@pytest.mark.parametrize("score", [Dot, lambda: General(HEADS, DIM // HEADS), lambda: Reversed(DIM // HEADS)])
def test_latent_attention_with_another_score_decodes_as_well(score) -> None:
    ours, x, cache = layer("latent", score=score().double()), tokens(), KeyValueCache(LENGTH)
    parts = [ours(part, mask=Causal(), cache=cache) for part in x.split(1, 1)]
    torch.testing.assert_close(torch.cat(parts, 1), ours(x, mask=Causal()))


@pytest.mark.parametrize(("name", "kernel"), ABLE)
def test_nothing_gives_nothing(name: str, kernel: KernelName) -> None:
    ours, x = layer(name, "alibi", kernel=kernel), tokens()
    assert ours(x[:0]).shape == x[:0].shape
    assert ours(x[:, :0]).shape == x[:, :0].shape
    assert ours(x[:, :0], x).shape == x[:, :0].shape


@pytest.mark.parametrize("name", LAYERS)
def test_tokens_of_another_shape_are_told(name: str) -> None:
    for wrong in (tokens()[0], tokens(3, DIM - 1)):
        with pytest.raises(ValueError, match=rf"^tokens must be \(B, T, {DIM}\), got \("):
            layer(name)(wrong)


@pytest.mark.parametrize(("name", "kernel"), ABLE)
def test_kernels_agree(name: str, kernel: KernelName) -> None:
    ours, reference, x = layer(name, "alibi", kernel=kernel), layer(name, "alibi", kernel="eager"), tokens()
    torch.testing.assert_close(ours(x, mask=Causal()), reference(x, mask=Causal()))


@pytest.mark.parametrize("with_memory", [False, True])
@pytest.mark.parametrize("name", TOKENS_ONLY)
def test_the_weights_times_the_values_are_what_is_combined(name: str, with_memory: bool) -> None:
    ours, x = layer(name, "rotary"), tokens(5)
    memory = tokens(5) if with_memory else None
    mask = Padding(VALID) if with_memory else Padding(VALID) & Causal()
    weights = ours.weights(x, memory, mask=mask)
    assert weights.shape == (3, HEADS, 5, 5)
    assert (weights[~mask.dense(5, 5, device=None).expand_as(weights)] == 0).all()
    v = ours.project(x, memory)[2]
    heads = weights @ v.repeat_interleave(HEADS // v.shape[1], 1)
    torch.testing.assert_close(ours.combine(heads, x), ours(x, memory, mask=mask))


@pytest.mark.parametrize("name", LAYERS)
def test_keys_and_values_of_a_memory_serve_several_calls(name: str) -> None:
    ours = layer(name, memory_dim=6)
    x, memory = tokens(4), tokens(5, 6)
    known = ours.keys_values(memory)
    torch.testing.assert_close(ours(x, known, mask=Padding(VALID)), ours(x, memory, mask=Padding(VALID)))
    torch.testing.assert_close(ours(x[:, 1:], known), ours(x, memory)[:, 1:])


@pytest.mark.parametrize("name", LAYERS)
def test_there_is_no_cache_beside_a_memory(name: str) -> None:
    given = layer(name, score=Dot())
    x = torch.randn(1, 2, DIM, dtype=torch.float64)
    with pytest.raises(ValueError, match="a cache is for self-attention"):
        given(x, x, cache=given.cache(4))


@pytest.mark.parametrize("name", LAYERS)
def test_half_precision_throughout(name: str) -> None:
    given = layer(name).bfloat16()
    x = torch.randn(2, LENGTH, DIM)
    torch.testing.assert_close(given(x.bfloat16()).float(), given.float()(x), rtol=0.1, atol=0.5)


@pytest.mark.parametrize("name", LAYERS)
def test_what_is_masked_shows_nowhere(name: str) -> None:
    ours, x, memory = layer(name), tokens(4), tokens(5)
    poisoned = torch.where(VALID.unsqueeze(-1), memory, 1e9)
    output = ours(x, poisoned, mask=Padding(VALID))
    torch.testing.assert_close(output[:2], ours(x, memory, mask=Padding(VALID))[:2])
    if name in TOKENS_ONLY:
        nothing = ours.combine(torch.zeros(3, HEADS, 4, HEAD_DIM.get(name, DIM // HEADS), dtype=torch.float64), x)
        torch.testing.assert_close(output[2], nothing[2])


PROJECTIONS = {"qkv", "from_memory", "query", "down", "key_value", "output"}


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("bias", [True, False])
def test_every_parameter_gets_a_gradient(name: str, position: str, bias: bool) -> None:
    ours = layer(name, position, bias=bias)
    ours(tokens(), mask=Causal()).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in ours.parameters())
    own = ours
    ours = layer(name, bias=bias, memory_dim=5)
    for each in (own, ours):
        projections = {type(part.bias) for key, part in each.named_children() if key in PROJECTIONS}
        assert projections == {nn.Parameter if bias else type(None)}
    ours(tokens(), tokens(3, 5)).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in ours.parameters())


class Sink(Normalizer, nn.Module):
    """Softmax with one score more, which is learned, and whose weight goes to nobody."""

    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Parameter(torch.tensor(0.3))

    def normalize(self, scores: Tensor) -> Tensor:
        sink = self.score.expand(*scores.shape[:-1], 1).to(scores.dtype)
        return torch.softmax(torch.cat([scores, sink], -1), -1)[..., :-1]


@pytest.mark.parametrize("kernel", ["eager", "chunked"])
@pytest.mark.parametrize("name", LAYERS)
def test_a_normalizer_that_learns_is_a_part_of_its_layer(name: str, kernel: KernelName) -> None:
    ours, x = layer(name, normalizer=Sink(), kernel=kernel), tokens()
    twin = copy.deepcopy(ours)
    (key,) = (key for key in ours.state_dict() if key.startswith("normalizer.") and key.endswith(".score"))
    assert ours.normalizer is not twin.normalizer is twin.mechanism.normalizer

    def output(score: Tensor) -> Tensor:
        return torch.func.functional_call(ours, {key: score}, x)

    score = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(output, (score,), fast_mode=True)


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_by_finite_differences(name: str) -> None:
    ours = layer(name)
    x, memory = (torch.randn(1, n, DIM, dtype=torch.float64, requires_grad=True) for n in (2, 3))
    assert torch.autograd.gradcheck(lambda x: ours(x, mask=Causal()), (x,), fast_mode=True)
    assert torch.autograd.gradcheck(ours, (x, memory), fast_mode=True)


@pytest.mark.parametrize("name", LAYERS)
def test_dropout_only_in_training(name: str) -> None:
    torch.manual_seed(0)
    ours, x = LAYERS[name](DIM, HEADS, dropout=0.5), tokens().float()
    assert not torch.equal(ours(x), ours(x))
    ours.eval()
    assert torch.equal(ours(x), ours(x))


@pytest.mark.parametrize("name", LAYERS)
def test_a_block_takes_it(name: str) -> None:
    block = TransformerBlock(layer(name, "rotary"), FeedForward(DIM, 8), cross=layer(name)).double()
    x, memory, cache = tokens(), tokens(4), BlockCache(KeyValueCache(LENGTH))
    parts = [block(part, memory, mask=Causal(), cache=cache) for part in x.split(1, 1)]
    torch.testing.assert_close(torch.cat(parts, 1), block(x, memory, mask=Causal()))


@pytest.mark.parametrize("name", LAYERS)
def test_a_new_one_is_of_ordinary_size(name: str) -> None:
    torch.manual_seed(0)
    output = LAYERS[name](64, 4)(torch.randn(8, 32, 64))
    assert 0.02 < output.std().item() < 2


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize(("name", "kernel"), ABLE)
def test_autocast_rounds_and_does_no_more(name: str, position: str, kernel: KernelName) -> None:
    ours, x, cache = layer(name, position, kernel=kernel).float(), tokens().float(), KeyValueCache(LENGTH)
    expected = ours(x, mask=Causal())
    with torch.autocast("cpu", torch.bfloat16):
        whole = ours(x, mask=Causal())
        whole.float().sum().backward()
        parts = [ours(part, mask=Causal(), cache=cache) for part in x.split(1, 1)]
    bound = 0.05 * expected.abs().max().item()
    torch.testing.assert_close(whole.float(), expected, atol=bound, rtol=0)
    torch.testing.assert_close(torch.cat(parts, 1).float(), expected, atol=bound, rtol=0)


def test_what_variants_begin_with() -> None:
    torch.manual_seed(0)
    for gate, gates in (("head", 4), ("element", 64)):
        weight = GatedAttention(64, 4, gate=gate).gate.weight
        assert weight.std().item() == pytest.approx(math.sqrt(2 / (64 + gates)), rel=0.1)  # Glorot & Bengio 2010
    differential = DifferentialAttention(256, 1)
    for drawn in (differential.lambda_query, differential.lambda_key):
        assert drawn.std().item() == pytest.approx(0.1, rel=0.2)


# Each variant against its formula.


def test_a_gate_is_one_number_for_each_head_or_element() -> None:
    x = tokens()
    for name, gates in (("gated heads", HEADS), ("gated", DIM)):
        ours = layer(name)
        assert isinstance(ours, GatedAttention)
        plain = layer("multi_head")
        plain.load_state_dict({k: v for k, v in ours.state_dict().items() if not k.startswith("gate")})
        heads = plain.attend(*plain.project(x), None)
        share = torch.sigmoid(x @ ours.gate.weight.T + ours.gate.bias)
        assert share.shape == (3, LENGTH, gates)
        joined = torch.cat([heads[:, n] * share.chunk(HEADS, -1)[n] for n in range(HEADS)], -1)
        torch.testing.assert_close(ours(x), ours.output(joined))


def test_differential_attention_is_a_difference_of_two() -> None:
    ours, x = layer("differential"), tokens()
    assert isinstance(ours, DifferentialAttention)
    initial = 0.8 - 0.6 * math.exp(-0.3 * 2)
    (q_1, q_2), (k_1, k_2) = ours.lambda_query.detach(), ours.lambda_key.detach()
    strength = math.exp(q_1 @ k_1) - math.exp(q_2 @ k_2) + initial
    queries, keys, values = ours.qkv(x).chunk(3, -1)
    outputs = []
    for n in range(HEADS):
        # Queries and keys 0 .. N - 1 are those of the first map, N .. 2 N - 1 those of the second.
        of_map = [slice(4 * (n + HEADS * i), 4 * (n + HEADS * i) + 4) for i in range(2)]
        first, second = (F.softmax(queries[..., s] @ keys[..., s].mT / 2, -1) for s in of_map)
        head = (first - strength * second) @ values[..., 8 * n : 8 * n + 8]
        rms = (head.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        outputs.append((1 - initial) * head / rms * ours.norm.weight)
    torch.testing.assert_close(ours(x), ours.output(torch.cat(outputs, -1)))
    torch.testing.assert_close(ours.weights(x).sum(-1), torch.full((3, HEADS, LENGTH), 1 - strength).double())


def test_latent_attention_has_keys_and_values_of_one_vector() -> None:
    ours, x = layer("latent, few placed", "rotary"), tokens()
    assert isinstance(ours, LatentAttention)
    compressed = ours.down(x)
    latent, shared = F.rms_norm(compressed[..., :5], (5,), ours.norm.weight, 1e-6), compressed[..., 5:]
    rotary = Rotary(2, LENGTH).double()
    outputs = []
    for n in range(HEADS):
        query = ours.query(x)[..., 8 * n : 8 * n + 8]
        turned, shared_turned = rotary.at_query_key(query[:, None, :, 6:], shared[:, None])
        key, value = ours.up_key(latent)[..., 6 * n : 6 * n + 6], ours.up_value(latent)[..., 8 * n : 8 * n + 8]
        scores = query[..., :6] @ key.mT + (turned @ shared_turned.mT)[:, 0]
        outputs.append(F.softmax(scores / 8**0.5, -1) @ value)
    torch.testing.assert_close(ours(x), ours.output(torch.cat(outputs, -1)))


def test_a_latent_cache_holds_the_latents_only() -> None:
    ours, cache = layer("latent"), KeyValueCache(LENGTH)
    ours(tokens(3), cache=cache)
    latents, placed = cache.extend(torch.zeros(3, 1, 1, 5), torch.zeros(3, 1, 1, 4))
    assert latents.shape == (3, 1, 4, 5)
    assert placed.shape == (3, 1, 4, 4)


@pytest.mark.parametrize("memory_dim", [None, 5])
def test_heads_of_a_width_of_their_own_are_as_many_formulas(memory_dim: int | None) -> None:
    n, d, m = 3, 10, 1  # three heads do not divide the 16 features
    torch.manual_seed(0)
    ours = MultiHeadAttention(DIM, n, head_dim=d, kv_heads=m, memory_dim=memory_dim).double()
    x, memory = tokens(4), tokens(5, memory_dim or DIM)
    of_memory = ours.from_memory or nn.Linear(DIM, 2 * m * d, dtype=torch.float64)
    if memory_dim is None:
        of_memory.load_state_dict({"weight": ours.qkv.weight[n * d :], "bias": ours.qkv.bias[n * d :]})
    keys, values = of_memory(memory).chunk(2, -1)
    queries = (x @ ours.qkv.weight[: n * d].mT + ours.qkv.bias[: n * d]).chunk(n, -1)
    heads = [F.softmax(query @ keys.mT / d**0.5, -1) @ values for query in queries]
    torch.testing.assert_close(ours(x, memory), ours.output(torch.cat(heads, -1)))
    n_inputs = n * d * (DIM + 1) + 2 * m * d * ((memory_dim or DIM) + 1)
    assert sum(parameter.numel() for parameter in ours.parameters()) == n_inputs + DIM * (n * d + 1)


@pytest.mark.parametrize("kv_heads", [1, 2])
def test_heads_talk_of_scores_and_of_weights(kv_heads: int) -> None:
    ours, x, there = layer("talking heads", kv_heads=kv_heads, normalizer=SoftmaxOffByOne()), tokens(5), VALID[:, None]
    assert isinstance(ours.normalizer, TalkingHeads)
    q, k, v = ours.qkv(x).split([DIM, DIM // HEADS * kv_heads, DIM // HEADS * kv_heads], -1)
    q, k, v = (t.unflatten(-1, (-1, DIM // HEADS)) for t in (q, k, v))
    k, v = (t.expand(-1, -1, HEADS, -1) for t in (k, v))
    scores = torch.einsum("btnd,bsnd,mn->bmts", q, k, ours.normalizer.of_scores) / (DIM // HEADS) ** 0.5
    strength = scores.exp() * there[:, None]
    weights = torch.einsum("bnts,mn->bmts", strength / (1 + strength.sum(-1, keepdim=True)), ours.normalizer.of_weights)
    expected = ours.output(torch.einsum("bnts,bsnd->btnd", weights, v).flatten(2))
    torch.testing.assert_close(ours(x, mask=Padding(VALID)), expected)
    torch.testing.assert_close(ours.weights(x, mask=Padding(VALID)), weights)


@pytest.mark.parametrize("position", POSITIONS)
def test_heads_that_listen_to_themselves_only_are_multi_head_attention(position: str) -> None:
    ours, x, mask = layer("talking heads", position), tokens(), Causal()
    assert isinstance(ours.normalizer, TalkingHeads)
    plain = layer("multi_head", position)
    plain.load_state_dict({k: v for k, v in ours.state_dict().items() if not k.startswith("normalizer")})
    assert not torch.allclose(ours(x, mask=mask), plain(x, mask=mask))
    for matrix in (ours.normalizer.of_scores, ours.normalizer.of_weights):
        nn.init.eye_(matrix)
    torch.testing.assert_close(ours(x, mask=mask), plain(x, mask=mask))
    fresh = TalkingHeadsAttention(DIM, HEADS).normalizer
    assert isinstance(fresh, TalkingHeads)
    assert torch.equal(fresh.of_scores, torch.eye(HEADS))
    assert torch.equal(fresh.of_weights, torch.eye(HEADS))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        *(
            (
                lambda kernel=kernel: TalkingHeadsAttention(8, 2, kernel=kernel),
                f"kernel={kernel} cannot compute this: its normalizer is softmax, not TalkingHeads; "
                "auto or eager or chunked can",
            )
            for kernel in ("sdpa", "flex")
        ),
        (lambda: GatedAttention(8, 2, gate="value"), "gate must be head or element, got 'value'"),  # pyright: ignore[reportArgumentType]
        (lambda: MultiHeadAttention(8, 2, head_dim=0), "head_dim must be at least 1, got 0"),
        (lambda: MultiHeadAttention(8, 0, head_dim=4), "heads must be at least 1, got 0"),
        (lambda: DifferentialAttention(6, 2), "two maps need an even number of features of a head, got 3"),
        (lambda: DifferentialAttention(8, 2, depth=0), "depth must be at least 1, got 0"),
        (lambda: DifferentialAttention(8, 3), "heads must divide the 8 features"),
        (lambda: LatentAttention(8, 3, latent_dim=4), "heads must divide the 8 features"),
        (lambda: LatentAttention(8, 2, latent_dim=0), "latent_dim must be at least 1, got 0"),
        (lambda: LatentAttention(8, 2, latent_dim=4, placed_dim=4), "placed_dim must be some of the 4 .*, got 4"),
        (lambda: LatentAttention(8, 8, latent_dim=4), "placed_dim must be some of the 1 .*, got 0"),
    ],
)
def test_bad_arguments(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
