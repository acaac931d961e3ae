"""Deep attentive VAEs against a plain loop over their layers, and the model without attention."""

import math

import pytest
import torch
from torch import Tensor
from torch import distributions as D
from torch.nn import functional as F

from attelbo.data.batch import Batch, DataSpec
from attelbo.errors import ConfigError
from attelbo.experiments.assembly import assemble
from attelbo.experiments.listing import choices, package_folder
from attelbo.models import DeepAttentiveVAE, build_deep_attentive, build_top_down
from attelbo.models.hierarchy import given

SHARED = {
    "likelihood": {"_target_": "attelbo.latent.likelihoods.Bernoulli"},
    "objective": {"_target_": "attelbo.latent.objectives.ELBO"},
    "optimizer": {"_target_": "torch.optim.Adam", "lr": 1e-3},
    "scheduler": {"_target_": "attelbo.models.schedulers.Constant"},
    "channels": 8,
    "latent_channels": 2,
}
HEADS = 2
ATTENTION = {"_target_": "attelbo.attention.MultiHeadAttention", "heads": HEADS}
BLOCKS = (1, 0, 2, 2)
SHAPE = (1, 7, 5)  # halved to 4x3, 2x2, 1x1


def specification(shape=SHAPE) -> DataSpec:
    return DataSpec("bits", shape, "binary")


def fresh(blocks=BLOCKS, **changes) -> DeepAttentiveVAE:
    torch.manual_seed(2)
    arguments = {**SHARED, "attention": ATTENTION, "dim": 4, **changes}
    return build_deep_attentive(specification(), blocks=blocks, **arguments).double().eval()


def make(blocks=BLOCKS, **changes) -> DeepAttentiveVAE:
    """Away from the initialization, at which attention is zero."""
    model = fresh(blocks, **changes)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def images(n: int, shape=SHAPE) -> Tensor:
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64).round()


# -- by hand --------------------------------------------------------------------------------------------


def norm(layer, vector: Tensor) -> Tensor:
    return (vector - vector.mean()) / (vector.var(unbiased=False) + layer.eps).sqrt() * layer.weight + layer.bias


def attended(layer, asking: Tensor, memory: list[Tensor]) -> Tensor:
    """What each pixel attends to: heads, softmax and sums spelled out for one pixel at a time."""
    mha, rows = layer.attention, []
    w_q, w_k, w_v = mha.qkv.weight.chunk(3)
    b_q, b_k, b_v = mha.qkv.bias.chunk(3)
    height, width = asking.shape[2:]
    for n in range(len(asking)):
        for i in range(height):
            for j in range(width):
                q = w_q @ norm(layer.query_norm, layer.query.weight @ asking[n, :, i, j] + layer.query.bias) + b_q
                tokens = [norm(layer.memory_norm, at(each[n], i, j, height, width)) for each in memory]
                heads = []
                for h in range(HEADS):
                    part = slice(h * len(q) // HEADS, (h + 1) * len(q) // HEADS)
                    scores = torch.stack([q[part] @ (w_k @ t + b_k)[part] for t in tokens]) / math.sqrt(len(q) // HEADS)
                    weights = scores.exp() / scores.exp().sum()
                    heads.append(sum(w * (w_v @ t + b_v)[part] for w, t in zip(weights, tokens, strict=True)))
                out = mha.output.weight @ torch.cat(heads) + mha.output.bias
                rows.append(layer.back.weight @ out + layer.back.bias)
    return torch.stack(rows).view(len(asking), height, width, -1).permute(0, 3, 1, 2)


def at(map_: Tensor, i: int, j: int, height: int, width: int) -> Tensor:
    """A map (E, h, w) at pixel (i, j) of height x width: the nearest pixel of a smaller one, the mean of a larger."""
    h, w = map_.shape[1:]
    if (h, w) == (height, width):
        return map_[:, i, j]
    if h < height or w < width:
        return map_[:, i * h // height, j * w // width]
    rows = slice(i * h // height, -(-(i + 1) * h // height))
    columns = slice(j * w // width, -(-(j + 1) * w // width))
    return map_[:, rows, columns].mean((1, 2))


def resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    pixels = [torch.stack([torch.stack([at(row, i, j, *size) for j in range(size[1])], -1) for i in range(size[0])], -2)
              for row in x]  # fmt: skip
    return torch.stack(pixels)


def linear(layer, x: Tensor) -> Tensor:
    return torch.einsum("oc,nchw->nohw", layer.weight[:, :, 0, 0], x) + layer.bias[:, None, None]


def by_hand(model: DeepAttentiveVAE, x: Tensor, z: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """log p(x|z), the KL of each layer, and log p(z) - log q(z) of latents that were drawn from q."""
    sizes = [(7, 5), (4, 3), (2, 2), (1, 1)]
    h = model.read(x)
    memory_of_x, level_ends = [linear(model.evidence_memory[0], h)], []
    for size, level in zip(sizes, model.upward, strict=True):
        h = resized(h, size)
        for block in level:
            h = block(h)
            memory_of_x.append(linear(model.evidence_memory[len(memory_of_x)], h))
        level_ends.append((h, len(memory_of_x)))
    memory, kls, log_ratio, layer = [], [], 0.0, 0
    h = model.start.expand(len(x), -1, -1, -1)
    for level in (3, 2, 1, 0):
        if level < 3:
            h = resized(h, sizes[level]) + model.offsets[2 - level]
        for _ in range(BLOCKS[level]):
            block = model.downward[layer]
            c = h + attended(model.above[layer - 2], h, memory) if layer >= 2 else h
            if layer < len(model.memory):
                memory.append(linear(model.memory[layer], h))
            a, n_seen = level_ends[level]
            a = a + attended(model.evidence_at[layer], c, memory_of_x[:n_seen])
            p_mean, p_log_std, features = block.prior(c).split([2, 2, 8], 1)
            q_mean, q_log_std = block.posterior(torch.cat([c, a], 1)).chunk(2, 1)
            if model.residual_posterior:
                q_mean, q_log_std = p_mean + q_mean, p_log_std + q_log_std
            p, q = D.Normal(p_mean, p_log_std.exp()), D.Normal(q_mean, q_log_std.exp())
            kls.append(D.kl_divergence(q, p).sum((1, 2, 3)))
            log_ratio = log_ratio + (p.log_prob(z[layer]) - q.log_prob(z[layer])).sum((1, 2, 3))
            h = block.out(h + features + block.from_latent(z[layer]))
            layer += 1
    log_p = -F.binary_cross_entropy_with_logits(model.output(h), x, reduction="none").sum((1, 2, 3))
    return log_p, torch.stack(kls, -1), log_ratio


@pytest.mark.parametrize("changes", [{}, {"residual_posterior": False}, {"attention_at": (2, 7)}], ids=str)
@torch.no_grad()
def test_the_bound_is_that_of_a_plain_loop_over_the_layers(changes):
    model, x = make(**changes), images(3)
    terms = model.evidence(x, n_samples=2, log_weights=True)
    assert terms.kl.shape == (3, sum(BLOCKS))
    sizes = [math.prod(shape) for shape in model.layer_shapes]
    kls = []
    for sample in range(2):
        parts = terms.z[sample].split(sizes, 1)
        z = [part.unflatten(1, shape) for part, shape in zip(parts, model.layer_shapes, strict=True)]
        log_p, kl, log_ratio = by_hand(model, x, z)
        torch.testing.assert_close(terms.log_likelihood[sample], log_p)
        assert terms.log_weights is not None
        torch.testing.assert_close(terms.log_weights[sample], log_p + log_ratio)
        kls.append(kl)
    torch.testing.assert_close(terms.kl, torch.stack(kls).mean(0))
    torch.testing.assert_close(terms.elbo, terms.log_likelihood.mean(0) - terms.kl.sum(1))


# -- what sees what -------------------------------------------------------------------------------------


def contexts(model: DeepAttentiveVAE, choose, x: Tensor | None = None, n: int = 2) -> list[Tensor]:
    """Those of all layers, from the top."""
    seen, made = [], model.contexts

    def watched():
        context_of = made()

        def watching(layer, h):
            seen.append(context_of(layer, h))
            return seen[-1]

        return watching

    model.contexts = watched
    try:
        model.descend(n, choose, None if x is None else model.bottom_up(x))
    finally:
        model.contexts = made
    return seen


@torch.no_grad()
def test_a_layer_changes_the_contexts_of_the_layers_below_it_only():
    model = make()
    torch.manual_seed(4)
    z = [torch.randn(2, *shape, dtype=torch.float64) for shape in model.layer_shapes]
    before = contexts(model, given(z))
    for changed in range(len(z)):
        other = [each + (layer == changed) for layer, each in enumerate(z)]
        after = contexts(model, given(other))
        for layer, (a, b) in enumerate(zip(before, after, strict=True)):
            assert torch.equal(a, b) == (layer <= changed), (changed, layer)


@torch.no_grad()
def test_every_layer_below_attends_to_a_projection_and_none_above_it():
    model = make()
    before = contexts(model, lambda q, p: p.mean)
    for changed, projection in enumerate(model.memory):
        projection.bias.add_(torch.linspace(0, 1, len(projection.bias), dtype=torch.float64))
        after = contexts(model, lambda q, p: p.mean)
        first = max(changed + 1, 2)  # the first two have no attention
        same = [torch.equal(a, b) for a, b in zip(before, after, strict=True)]
        assert same == [layer < first for layer in range(len(same))]
        before = after


@torch.no_grad()
def test_weights_sum_to_one_over_the_layers_above_and_over_the_blocks_to_the_own_level():
    model = make()
    weights = model.depth_weights(images(4))
    depth = sum(BLOCKS)
    assert weights.above.shape == (depth, depth)
    assert weights.evidence.shape == (depth, 1 + depth)
    ones = torch.ones(depth, dtype=torch.float64)
    torch.testing.assert_close(weights.above.sum(1), ones * (torch.arange(depth) >= 2))
    torch.testing.assert_close(weights.above.tril(-1), weights.above, rtol=0, atol=0)
    assert (weights.above > 0).sum(1).tolist() == [0, 0, 2, 3, 4]
    torch.testing.assert_close(weights.evidence.sum(1), ones)
    # Layers of 1x1 see the input and all five blocks, those of 2x2 not the last two, the last one its own level's.
    assert (weights.evidence > 0).sum(1).tolist() == [6, 6, 4, 4, 2]


@torch.no_grad()
def test_weights_of_each_pixel_are_those_that_it_attends_with():
    model = make()
    layer = model.above[1]
    torch.manual_seed(1)
    h = torch.randn(2, 8, 4, 3, dtype=torch.float64)
    memory = [torch.randn(2, 4, *size, dtype=torch.float64) for size in ((1, 1), (2, 2), (4, 3))]
    weights = layer.weights(h, memory)
    assert weights.shape == (2, HEADS, 12, 3)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, HEADS, 12, dtype=torch.float64))
    torch.testing.assert_close(layer(h, memory), attended(layer, h, memory))


# -- beside the model without attention -----------------------------------------------------------------


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("spatial", [(), (1, 2, 7)])
def test_it_begins_as_the_hierarchy_without_attention(residual, spatial):
    model = fresh(residual_posterior=residual, attention_at=spatial)
    plain = build_top_down(specification(), blocks=BLOCKS, residual_posterior=residual, **SHARED).double().eval()
    plain.load_state_dict({name: model.state_dict()[_placed(name, model)] for name in plain.state_dict()})
    x = images(4)
    results = []
    for each in (model, plain):
        torch.manual_seed(1)
        terms = each.evidence(x, n_samples=2, log_weights=True)
        terms.elbo.sum().backward()
        assert terms.log_weights is not None
        results.append([*terms.log_likelihood, *terms.kl, *terms.log_weights])
    for ours, theirs in zip(*results, strict=True):
        assert torch.equal(ours, theirs)
    ours = dict(model.named_parameters())
    for name, parameter in plain.named_parameters():  # a step of gradient descent is the same, too
        torch.testing.assert_close(ours[_placed(name, model)].grad, parameter.grad)


def _placed(name: str, model: DeepAttentiveVAE) -> str:
    """The name in the model of a parameter of the one without attention: behind a block there may be attention."""
    known = model.state_dict()
    if name in known:
        return name
    head, _, tail = name.partition(".layers.")
    return f"{head}.0.layers.{tail}"


# -- learning -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spatial", [(), (1, 2, 7)])
@pytest.mark.parametrize("blocks", [BLOCKS, (1,), (0, 2), (3, 0)])
def test_every_parameter_is_trained(blocks, spatial):
    heights = [height for height, n in zip((7, 4, 2, 1), blocks, strict=False) if n]
    # In a map of one pixel there is nothing to choose from.
    model = make(blocks, attention_at=[height for height in spatial if height in heights and height > 1])
    x = images(6)
    model.losses(Batch(x, None, torch.arange(6)))["loss"].backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.abs().sum() > 0, key


@pytest.mark.parametrize("name", choices([package_folder()])["model/attention"])
def test_any_attention_that_can_attend_to_a_memory(runs, name):
    words = ["model=deep_attentive_vae", f"model/attention={name}", "data.binarize=dynamic"]
    if name in ("linear", "performer"):
        words += ["~model/score", "~model/normalizer"]
    model, data = assemble(runs.configure(*words))
    data.prepare_data()
    data.setup()
    loss = model.losses(data.materialize(torch.arange(3), "train"))["loss"]
    loss.backward()
    assert loss.isfinite()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert (model.depth_weights(data.materialize(torch.arange(2), "train").x).evidence.sum(1) > 0).all()


# -- what does not fit ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dim": 3}, r"^model\.attention: heads must divide the 3 features of a token"),
        ({"dim": 0}, r"^model\.dim must be at least 1"),
        ({"attention_at": (5,)}, r"^model\.attention_at must name heights of feature maps: \[7, 2, 1\] occur"),
        ({"attention_at": (4,)}, r"^model\.attention_at must .*: \[7, 2, 1\] occur, \[4\] do not"),  # it has no blocks
        ({"attention_at": (2,), "spatial_attention": "none"}, r"^model\.spatial_attention must be one of self, "),
        ({"attention_at": (2,), "spatial_attention": "self", "spatial_heads": 3}, r"^model\.spatial_heads must divide"),
        ({"blocks": (0, 0)}, r"^model\.blocks must name the layers of each level"),
    ],
)
def test_what_cannot_be_built(changes, message):
    with pytest.raises(ConfigError, match=message):
        fresh(**changes)
