"""Each quantizing posterior against brute force, its straight-through gradient, and the codebook's moving averages
against a loop."""

from collections.abc import Callable
from typing import Any

import latent_contract as contract
import numpy as np
import pytest
import torch
from torch import Tensor, distributed

from attelbo.latent import (
    Codebook,
    FiniteScalarPosterior,
    MovingCodebook,
    MultiScaleVectorQuantizedPosterior,
    ResidualVectorQuantizedPosterior,
    VectorQuantizedPosterior,
)
from attelbo.latent.pyramid import sizes_of
from attelbo.latent.spaces import Codes, ScaledCodes

IN_SHAPES = {"map": (3, 2, 4), "vector": (5,)}


def by_distance(v: Tensor, embedding: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest code of each of v (..., D), by all distances: vectors and codes."""
    codes = (v.unsqueeze(-2) - embedding).square().sum(-1).argmin(-1)
    return embedding[codes], codes


def vector_quantized(part: VectorQuantizedPosterior, v: Tensor) -> tuple[Tensor, Tensor]:
    e, codes = by_distance(v.unflatten(-1, (2, 2)), part.codebook.embedding)
    return e.flatten(-2), codes


def residual(part: Any, v: Tensor) -> tuple[Tensor, Tensor]:
    total, codes = torch.zeros_like(v), []
    for book in part.codebooks:
        e, own = by_distance(v - total, book.embedding)
        total = total + e
        codes.append(own)
    return total, torch.stack(codes, -1)


def partial_sums(part: Any, v: Tensor) -> tuple[list[Tensor], Tensor]:
    """The sums after each scale, like v (B, h, w, D) or (B, D), and the codes of all, place by place."""
    size = (*v.shape[1:-1],) or (1, 1)
    full = v.reshape(len(v), *size, -1)
    sums, codes = [torch.zeros_like(full)], []
    for (height, width), smoother in zip(part.space.sizes, part.smoothers, strict=True):
        rest, tall, wide = full - sums[-1], size[0] // height, size[1] // width
        drawn = torch.zeros(len(v), height, width, v.shape[-1], dtype=v.dtype)
        for y in range(height):
            for x in range(width):
                area = rest[:, y * tall : (y + 1) * tall, x * wide : (x + 1) * wide].mean((1, 2))
                drawn[:, y, x], own = by_distance(area, part.codebook.embedding)
                codes.append(own)
        large = cubic(cubic(drawn, 1, tall), 2, wide)
        weight, bias = (each.to(v.dtype) for each in smoother.convolution.parameters())
        learned = torch.nn.functional.conv2d(large.movedim(-1, 1), weight, bias, padding=1)
        sums.append(sums[-1] + large + learned.movedim(1, -1))
    return [one.view_as(v) for one in sums[1:]], torch.stack(codes, 1)


def cubic(x: Tensor, dim: int, factor: int) -> Tensor:
    """x with ``factor`` values for one along ``dim``, by Keys' cubic convolution with a = -3/4, edges repeated."""
    n, values = x.shape[dim], []
    for place in range(n * factor):
        at = (place + 0.5) / factor - 0.5
        weighed = torch.zeros_like(x.select(dim, 0))
        for near in range(int(np.floor(at)) - 1, int(np.floor(at)) + 3):
            d, a = abs(at - near), -0.75
            inner, outer = (a + 2) * d**3 - (a + 3) * d**2 + 1, a * (d**3 - 5 * d**2 + 8 * d - 4)
            weighed = weighed + (inner if d <= 1 else outer) * x.select(dim, min(max(near, 0), n - 1))
        values.append(weighed)
    return torch.stack(values, dim)


def multi_scale(part: Any, v: Tensor) -> tuple[Tensor, Tensor]:
    sums, codes = partial_sums(part, v)
    return sums[-1], codes


def finite_scalar(part: FiniteScalarPosterior, v: Tensor) -> tuple[Tensor, Tensor]:
    """By the nearest of all levels: four values -1, -1/2, 0, 1/2, and three -1, 0, 1."""
    levels = [torch.tensor([-2.0, -1, 0, 1]), torch.tensor([-1.0, 0, 1])]
    bounded = bound(v)
    z, codes = torch.empty_like(v), torch.empty(*v.shape[:-1], 2, dtype=torch.int64)
    for place in range(4):
        own = levels[place % 2].double()
        nearest = (bounded[..., place].unsqueeze(-1) - own).abs().argmin(-1)
        z[..., place] = own[nearest] / own.abs().max()
        codes[..., place // 2] = nearest if place % 2 == 0 else codes[..., place // 2] + 4 * nearest
    return z, codes


def bound(v: Tensor) -> Tensor:
    """The values of (4, 3) levels before they are rounded, in the form of the tanh of a sum, written out."""
    half, offset = torch.tensor([1.4985, 0.999]).double().repeat(2), torch.tensor([0.5, 0.0]).double().repeat(2)
    t, s = v.tanh(), offset / half
    return half * (t + s) / (1 + t * s) - offset


TABLE: dict[str, tuple[Callable[[Any, Tensor], tuple[Tensor, Tensor]], dict[str, Any]]] = {
    "vector_quantized": (vector_quantized, {"n_codes": 12, "pieces": 2}),
    "residual_vector_quantized": (residual, {"n_codes": 12, "n_codebooks": 2}),
    "multi_scale_vector_quantized": (multi_scale, {"n_codes": 12}),
    "finite_scalar": (finite_scalar, {"levels": [4, 3]}),
}
NAMES = sorted(contract.FAMILIES["posterior"]["quantized"])
kinds = pytest.mark.parametrize("kind", IN_SHAPES)


def posterior(name: str, kind: str = "map", **settings: Any) -> Any:
    settings = {**TABLE[name][1], **settings}
    part = contract.build_part("posterior", name, in_shape=IN_SHAPES[kind], latent_dim=4, **settings)
    return contract.randomize(part, scale=0.7)


def features(kind: str = "map", batch: int = 6) -> Tensor:
    return torch.randn(batch, *IN_SHAPES[kind], dtype=torch.float64)


def test_every_part_is_in_the_table() -> None:
    assert set(NAMES) == set(TABLE)


@kinds
@pytest.mark.parametrize("name", NAMES)
def test_codes_and_vectors_are_those_of_brute_force(name: str, kind: str) -> None:
    part, h = posterior(name, kind), features(kind)
    q = part(h)
    expected, codes = TABLE[name][0](part, part.head(h.movedim(1, -1)))
    torch.testing.assert_close(q.mean, expected.movedim(-1, 1))
    assert torch.equal(q.codes.flatten(), codes.flatten())
    assert len(codes.unique()) > 3  # else this would compare little


@kinds
@pytest.mark.parametrize("name", NAMES)
def test_shapes_and_space(name: str, kind: str) -> None:
    part = posterior(name, kind)
    q = part(features(kind))
    places = IN_SHAPES[kind][1:]
    space = Codes((*places, 2), n_codes=12, n_codebooks=1 if name == "vector_quantized" else 2)
    if name == "multi_scale_vector_quantized":
        space = ScaledCodes((10,), 12, sizes=((1, 2), (2, 4))) if places else ScaledCodes((1,), 12, sizes=((1, 1),))
    assert part.latent_shape == q.mean.shape[1:] == (4, *places)
    assert part.space == space
    assert q.codes.shape == (6, *space.shape)
    assert q.codes.dtype == torch.int64
    assert isinstance(q, part.distribution)


def test_one_code_at_a_place_has_no_dimension_of_its_own() -> None:
    assert VectorQuantizedPosterior((3, 2, 4), 6).space.shape == (2, 4)
    assert VectorQuantizedPosterior((3,), 6).space.shape == (1,)
    assert FiniteScalarPosterior((3, 2, 4), 4).space == Codes((2, 4), n_codes=1000)


@kinds
@pytest.mark.parametrize("name", NAMES)
def test_a_point_with_probability_one(name: str, kind: str) -> None:
    q = posterior(name, kind)(features(kind))
    z, log_q = q.rsample_with_log_prob(3)
    assert (z == q.mean).all()
    assert log_q.shape == (3, 6)
    assert (log_q == 0).all()
    assert (q.prior_value(z) == q.codes).all()
    assert q.prior_value(z).shape == (3, *q.codes.shape)
    assert q.deterministic
    assert (q.stop_gradient().rsample(1) == q.mean).all()
    assert not q.stop_gradient().mean.requires_grad


@kinds
@pytest.mark.parametrize("name", NAMES)
def test_codes_are_looked_up_as_what_the_decoder_saw(name: str, kind: str) -> None:
    part = posterior(name, kind)
    q = part(features(kind))
    torch.testing.assert_close(part.from_prior(q.codes), q.mean)
    codes = torch.randint(12, (7, *part.space.shape))
    assert part.from_prior(codes).shape == (7, *part.latent_shape)


@pytest.mark.parametrize("name", ["vector_quantized", "residual_vector_quantized", "multi_scale_vector_quantized"])
@pytest.mark.parametrize("decay", [0.99, None])
def test_the_gradient_goes_straight_through(name: str, decay: float | None) -> None:
    part = posterior(name, "vector", decay=decay)
    v = torch.randn(4, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda u: part.quantize(u.view(1, 4))[0].flatten(), v)
    torch.testing.assert_close(jacobian, torch.eye(4, dtype=torch.float64), rtol=0, atol=0)


def test_the_gradient_of_finite_scalars_is_that_of_the_bound() -> None:
    part = posterior("finite_scalar")
    v = 2 * torch.randn(4, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda u: part.quantize(u)[0], v)
    half_width = torch.tensor([2.0, 1.0], dtype=torch.float64).repeat(2)
    expected = torch.autograd.functional.jacobian(lambda u: bound(u) / half_width, v)
    torch.testing.assert_close(jacobian, expected)
    assert (jacobian.diagonal() > 0).all()


@pytest.mark.parametrize("levels", [[8, 5, 5, 5], [3], [3, 4], [7, 6, 5]])
def test_finite_scalars_reach_every_code_and_no_other(levels: list[int]) -> None:
    n_codes = int(np.prod(levels))
    part = FiniteScalarPosterior((3,), len(levels), levels).double()
    codes = torch.arange(n_codes)
    z = part.from_prior(codes.unsqueeze(1))
    assert len(z.unique(dim=0)) == n_codes
    for i, level in enumerate(levels):
        highest = 1 - (level % 2 == 0) * 2 / level
        torch.testing.assert_close(z[:, i].unique(), torch.linspace(-1, highest, level, dtype=torch.float64))
    # Back through the inverse of the bound, which is where z came from.
    u = z * part.half_width
    v = ((u + part.offset) / part.half_range).clamp(-1 + 1e-9, 1 - 1e-9).atanh() - part.shift
    again, found, _ = part.quantize(v)
    assert torch.equal(found[:, 0], codes)
    torch.testing.assert_close(again, z)
    for wild in (-1e6, 1e6):
        assert 0 <= int(part.quantize(torch.full((1, len(levels)), wild).double())[1]) < n_codes
    middle = part.quantize(torch.zeros(1, len(levels), dtype=torch.float64))[0]
    assert (middle == 0).all()


@kinds
def test_commitment_by_hand(kind: str) -> None:
    for name in ("vector_quantized", "residual_vector_quantized"):
        part, h = posterior(name, kind, commitment=0.3), features(kind)
        v = part.head(h.movedim(1, -1))
        rest, squares = v, torch.zeros(6, dtype=torch.float64)
        for book in part.codebooks if name.startswith("residual") else [part.codebook]:
            pieces = rest.unflatten(-1, (-1, book.embedding.shape[-1]))
            rest = (pieces - by_distance(pieces, book.embedding)[0]).flatten(-2)
            squares = squares + rest.square().flatten(1).sum(1)
        torch.testing.assert_close(part.eval()(h).penalty, 0.3 * squares)
    assert posterior("finite_scalar")(features()).penalty is None


def test_each_scale_of_maps_is_committed_to_the_sum_so_far() -> None:
    part, h = posterior("multi_scale_vector_quantized", commitment=0.3).eval(), features()
    v = part.head(h.movedim(1, -1))
    squares = torch.stack([(v - one).square().sum((1, 2, 3)) for one in partial_sums(part, v)[0]])
    assert len(squares) == 2
    torch.testing.assert_close(part(h).penalty, 1.3 * squares.mean(0))


@pytest.mark.parametrize("decay", [0.99, None])
def test_the_commitment_of_scales_teaches_encoder_and_convolutions_and_a_codebook_without_averages(
    decay: float | None,
) -> None:
    part, h = posterior("multi_scale_vector_quantized", decay=decay, commitment=0.5).eval(), features()
    part(h).penalty.sum().backward()
    learned = {name for name, each in part.named_parameters() if each.grad is not None and each.grad.any()}
    convolutions = {f"smoothers.{k}.convolution.{kind}" for k in range(2) for kind in ("weight", "bias")}
    assert learned == {"head.weight", "head.bias", *convolutions} | ({"codebook.embedding"} if decay is None else set())
    # The encoder is drawn by the commitment alone: twice of it, twice the gradient.
    once = part.head.weight.grad.clone()
    part.codebook.commitment = 1.0
    part.zero_grad()
    part(h).penalty.sum().backward()
    torch.testing.assert_close(part.head.weight.grad, 2 * once)


def test_scales_are_those_of_the_paper_up_to_the_map_or_given() -> None:
    paper = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)
    assert sizes_of((16, 16), None) == tuple((each, each) for each in paper)
    assert sizes_of((7, 7), None) == tuple((each, each) for each in range(1, 8))
    assert sizes_of((2, 6), None) == ((1, 3), (2, 6))
    assert sizes_of((1, 1), None) == ((1, 1),)
    assert sizes_of((8, 4), [1, 3, 8]) == ((1, 1), (3, 2), (8, 4))
    part = MultiScaleVectorQuantizedPosterior((3, 6, 6), 4, scales=[2, 6])
    assert part.space.shape == (40,)
    assert str(part.space) == "40 codes out of 512"


def test_finer_scales_make_the_rest_smaller() -> None:
    """Smooth maps: the first code has their mean, and each further scale leaves less."""
    torch.manual_seed(0)
    part = MultiScaleVectorQuantizedPosterior((2, 8, 8), 2, n_codes=64, scales=[1, 2, 4, 8], decay=0.9)
    coarse = torch.randn(64, 2, 2, 2)
    v = torch.nn.functional.interpolate(coarse, (8, 8), mode="bilinear").movedim(1, -1)
    for step in range(40):
        part.at_step(step, 40)
        part.quantize(v)
    sums, _ = partial_sums(part.eval(), v)
    left = [float(((v - one).square().mean() / v.square().mean()).detach()) for one in sums]
    assert left == sorted(left, reverse=True)
    assert left[0] > 0.3
    assert left[-1] < 0.02


def test_commitment_draws_the_vector_and_the_codebooks_own_term_the_code() -> None:
    book = Codebook(5, 3, commitment=0.25).double()
    v = torch.randn(1, 3, dtype=torch.float64, requires_grad=True)
    found = book(v)
    found.penalty.sum().backward()
    deviation = (v - found.vectors).detach()
    torch.testing.assert_close(v.grad, 2 * 0.25 * deviation)
    expected = torch.zeros(5, 3, dtype=torch.float64).index_put((found.codes,), -2 * deviation)
    torch.testing.assert_close(book.embedding.grad, expected)
    moving = MovingCodebook(5, 3, commitment=0.25).double()
    assert [name for name, _ in moving.named_parameters()] == []


# -- moving averages -----------------------------------------------------------------------------------


def steps(book: MovingCodebook, minibatches: list[list[Tensor]]) -> None:
    """Optimizer steps on minibatches, each in parts, and the beginning of the one after them."""
    for step, parts in enumerate(minibatches):
        book.at_step(step)
        for part in parts:
            book(part)
    book.at_step(len(minibatches))
    book(minibatches[0][0])


def moving(restart_below: float = 0.0, decay: float = 0.8) -> MovingCodebook:
    torch.manual_seed(0)
    return MovingCodebook(6, 3, 0.25, decay, restart_below).double()


def test_the_codebook_is_the_moving_average_of_what_was_nearest() -> None:
    book = moving()
    minibatches = [torch.randn(20, 3, dtype=torch.float64) for _ in range(4)]
    e, counts, sums = book.embedding.numpy().copy(), np.zeros(6), np.zeros((6, 3))
    for minibatch in minibatches:
        n, total = np.zeros(6), np.zeros((6, 3))
        for v in minibatch.numpy():
            k = ((e - v) ** 2).sum(-1).argmin()
            n[k] += 1
            total[k] += v
        counts, sums = 0.8 * counts + 0.2 * n, 0.8 * sums + 0.2 * total
        used = counts > 0
        e[used] = sums[used] / counts[used, None]
    steps(book, [[v] for v in minibatches])
    np.testing.assert_allclose(book.embedding, e, rtol=1e-12)
    np.testing.assert_allclose(book.counts, counts, rtol=1e-12)


@pytest.mark.parametrize("n_parts", [2, 5])
def test_parts_of_a_minibatch_move_it_like_the_whole(n_parts: int) -> None:
    whole, in_parts = moving(), moving()
    minibatches = [torch.randn(20, 3, dtype=torch.float64) for _ in range(3)]
    steps(whole, [[v] for v in minibatches])
    steps(in_parts, [list(v.chunk(n_parts)) for v in minibatches])
    torch.testing.assert_close(in_parts.embedding, whole.embedding)
    torch.testing.assert_close(in_parts.counts, whole.counts)


def test_processes_move_it_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if another process had seen the same: with sums over both, twice the vectors."""
    doubled, alone = moving(0.3), moving(0.3)
    minibatches = [torch.randn(10, 3, dtype=torch.float64) for _ in range(3)]
    with monkeypatch.context() as patch:
        sources: list[int] = []
        patch.setattr(distributed, "is_initialized", lambda: True)
        patch.setattr(distributed, "all_reduce", lambda t: t.mul_(2))
        patch.setattr(distributed, "broadcast", lambda t, source: (sources.append(source), t.copy_(minibatches[0][:6])))
        steps(doubled, [[v] for v in minibatches])
    assert set(sources) == {0}
    monkeypatch.setattr(torch, "randint", lambda *_, **__: torch.arange(6))
    steps(alone, [[torch.cat([v, v])] for v in minibatches])
    torch.testing.assert_close(doubled.counts, alone.counts)
    # The codes that began anew did so at the vectors of the first process.
    again = doubled.step_vectors
    assert torch.equal(again, minibatches[0][:6])


def test_a_dead_code_begins_anew_where_the_data_are() -> None:
    book = moving(restart_below=0.5)
    with torch.no_grad():
        book.embedding[3] = 1e3
    v = torch.randn(30, 3, dtype=torch.float64)
    book.at_step(0)
    assert 3 not in book(v).codes
    book.at_step(1)
    book(v)
    assert torch.isclose(book.embedding[3], v).all(-1).any()
    assert float(book.counts[3]) == 30 / 6
    never = moving(restart_below=0.0)
    with torch.no_grad():
        never.embedding[3] = 1e3
    steps(never, [[v]] * 3)
    assert (never.embedding[3] == 1e3).all()


def test_all_codes_come_into_use() -> None:
    torch.manual_seed(3)
    v = torch.randn(400, 2) * 0.1 + 50  # far from where the codebook begins
    used = {}
    for restart_below in (0.0, 0.1):
        book = MovingCodebook(32, 2, 0.25, 0.9, restart_below)
        steps(book, [[v]] * 40)
        used[restart_below] = len(book.eval()(v).codes.unique())
    assert used[0.0] == 1
    assert used[0.1] >= 30


def test_evaluation_moves_nothing() -> None:
    book = moving(0.1)
    v = torch.randn(20, 3, dtype=torch.float64)
    steps(book, [[v]] * 2)
    before = {name: value.clone() for name, value in book.state_dict().items()}
    book.eval()
    book.at_step(7)
    before["step"].fill_(7)
    book(v)
    assert all(torch.equal(value, before[name]) for name, value in book.state_dict().items())


def test_what_was_saved_in_the_middle_goes_on_as_it_would_have() -> None:
    minibatches = [[torch.randn(20, 3, dtype=torch.float64)] for _ in range(6)]
    whole, first, second = moving(), moving(), moving()
    for book, places in ((whole, range(6)), (first, range(3)), (second, range(3, 6))):
        if book is second:
            book.load_state_dict(first.state_dict())
        for step in places:
            torch.manual_seed(step)
            book.at_step(step)
            book(minibatches[step][0])
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in second.state_dict().items())


@pytest.mark.parametrize("name", NAMES)
def test_full_precision_under_autocast(name: str) -> None:
    part, h = posterior(name).float(), features().float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        q = part(h)
        v = part.head(h.movedim(1, -1)).float()
    assert q.mean.dtype == torch.float32
    expected, codes = TABLE[name][0](part, v.double())
    assert torch.equal(q.codes.flatten(), codes.flatten())
    torch.testing.assert_close(q.mean.double(), expected.double().movedim(-1, 1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_is_trained(name: str) -> None:
    for decay in (0.99, None):
        part = posterior(name, **({} if name == "finite_scalar" else {"decay": decay}))
        q = part(features(batch=60))
        loss = (q.rsample(1) * torch.randn(q.mean.shape).double()).sum()
        (loss if q.penalty is None else loss + q.penalty.sum()).backward()
        for parameter in part.parameters():
            assert parameter.grad is not None
            assert parameter.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("vector_quantized", {"latent_dim": 0}, "latent_dim must be at least 1, got 0"),
        ("vector_quantized", {"n_codes": 1}, "n_codes must be at least 2, got 1"),
        ("vector_quantized", {"pieces": 3}, "pieces must divide latent_dim, 4, got 3"),
        ("vector_quantized", {"pieces": 0}, "pieces must divide latent_dim, 4, got 0"),
        ("vector_quantized", {"commitment": -1.0}, "commitment must be finite and not negative, got -1"),
        ("vector_quantized", {"decay": 1.0}, r"decay must be in \[0, 1\), got 1"),
        ("vector_quantized", {"restart_below": 1.0}, r"restart_below must be in \[0, 1\), got 1"),
        ("residual_vector_quantized", {"n_codebooks": 0}, "n_codebooks must be at least 1, got 0"),
        ("residual_vector_quantized", {"latent_dim": 0}, "latent_dim must be at least 1, got 0"),
        ("multi_scale_vector_quantized", {"latent_dim": 0}, "latent_dim must be at least 1, got 0"),
        *(
            ("multi_scale_vector_quantized", {"scales": scales}, r"scales must rise to 2, the height of the")
            for scales in ([], [1], [0, 2], [2, 1], [1, 1, 2], [2, 4])
        ),
        ("finite_scalar", {"levels": []}, "levels must be at least one number of at least 3"),
        ("finite_scalar", {"levels": [5, 2]}, "levels must be at least one number of at least 3"),
        ("finite_scalar", {"latent_dim": 6}, "latent_dim must be a multiple of 4, the number of levels, got 6"),
        ("finite_scalar", {"latent_dim": 0}, "latent_dim must be at least 1, got 0"),
    ],
)
def test_out_of_range(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        contract.build_part("posterior", name, **{"in_shape": (3, 2, 2), "latent_dim": 4, **settings})


def test_codebooks_of_a_residual_quantizer_each_make_the_rest_smaller() -> None:
    part = ResidualVectorQuantizedPosterior((2,), 2, n_codes=8, n_codebooks=4, decay=0.9)
    v = torch.randn(500, 2)
    for step in range(30):
        part.at_step(step, 30)
        part.quantize(v)
    codes = part.eval().quantize(v)[1]
    rest, squares = v, []
    for book, own in zip(part.codebooks, codes.unbind(-1), strict=True):
        assert isinstance(book, MovingCodebook)
        rest = rest - book.look_up(own)
        squares.append(float(rest.square().mean()))
    assert squares[3] < 0.5 * squares[2] < 0.25 * squares[1] < 0.125 * squares[0]
    torch.testing.assert_close(v - rest, part.look_up(codes))
