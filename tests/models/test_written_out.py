"""Models written out a second time, after their papers and in the plainest form, with the same weights and the same
noise: the loss of the model, and its gradient by every parameter.

Nothing of attelbo is called but the model that is tested.
"""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch import distributions as D
from torch.nn import functional as F

from attelbo.data.batch import BOS, CONTEXT, EOS, IGNORE, PAD, TARGET, UNK, Batch, DataSpec
from attelbo.models import (
    build_air,
    build_draw,
    build_ladder,
    build_neural_process,
    build_recurrent_text_vae,
    build_slot_autoencoder,
    build_top_down,
)
from written_out import BERNOULLI, MLPS, SHARED, check, images, kl, moved, noise, normed, perceptron


def lstm(step: Any, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Hochreiter & Schmidhuber's, with torch's order of the gates."""
    gates = torch.cat([x, h], 1) @ step.gates.weight.T + step.gates.bias
    i, f, g, o = gates.unflatten(1, (4, -1)).unbind(1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


# -- DRAW: Gregor et al. 2015, eq. 3-17 and 19-29 -------------------------------------------------------------


def filters(parameters: Tensor, n: int, width: int, height: int) -> tuple[Tensor, Tensor, Tensor]:
    """F_X (N, n, A), F_Y (N, n, B) and gamma (N,), pixels counted from 1 as in the paper."""
    g_x, g_y, log_variance, log_stride, log_gamma = parameters.unbind(1)
    g_x, g_y = (width + 1) / 2 * (g_x + 1), (height + 1) / 2 * (g_y + 1)
    stride = (max(width, height) - 1) / (n - 1) * log_stride.exp()
    banks = []
    for center, length in ((g_x, width), (g_y, height)):
        rows = []
        for i in range(1, n + 1):
            mean = center + (i - n / 2 - 0.5) * stride
            row = torch.stack([(-((a - mean) ** 2) / (2 * log_variance.exp())).exp() for a in range(1, length + 1)], 1)
            rows.append(row / row.sum(1, keepdim=True))
        banks.append(torch.stack(rows, 1))
    return banks[0], banks[1], log_gamma.exp()


def test_draw_with_attention() -> None:
    n, shape, strokes, latent = 4, (1, 5, 4), 3, 2
    sizes = {"latent_dim": latent, "hidden": 6, "strokes": strokes, "read": 2, "write": 3}
    model = moved(build_draw(DataSpec("bits", shape, "binary"), **BERNOULLI, **SHARED, **sizes))
    x = images(n, shape)[:, 0]

    def loss() -> Tensor:
        canvas = model.blank[0].expand(n, -1, -1)
        (h_enc, c_enc), (h_dec, c_dec) = (start.unsqueeze(1).expand(2, n, 6) for start in START)
        rate = torch.zeros(n, dtype=torch.float64)
        for _ in range(strokes):
            error = x - torch.sigmoid(canvas)
            f_x, f_y, gamma = filters(h_dec @ model.reader.window.weight.T + model.reader.window.bias, 2, 4, 5)
            glimpses = [gamma.view(n, 1, 1) * f_y @ image @ f_x.mT for image in (x, error)]
            read = torch.cat([glimpse.flatten(1) for glimpse in glimpses], 1)
            h_enc, c_enc = lstm(model.encoder, torch.cat([read, h_dec], 1), h_enc, c_enc)
            mean, log_std = (h_enc @ model.posterior.weight.T + model.posterior.bias).split(latent, 1)
            rate = rate + kl(mean, log_std.exp())
            h_dec, c_dec = lstm(model.decoder, mean + log_std.exp() * noise(1, n, latent)[0], h_dec, c_dec)
            f_x, f_y, gamma = filters(h_dec @ model.writer.window.weight.T + model.writer.window.bias, 3, 4, 5)
            patch = (h_dec @ model.writer.paint.weight.T + model.writer.paint.bias).view(n, 3, 3)
            canvas = canvas + f_y.mT @ patch @ f_x / gamma.view(n, 1, 1)
        log_p = (x * F.logsigmoid(canvas) + (1 - x) * F.logsigmoid(-canvas)).sum((1, 2))
        return (rate - log_p).mean()

    START = (model.encoder_start, model.decoder_start)
    check(model, Batch(images(n, shape), None, torch.arange(n)), loss)


# -- ladders: Sonderby et al. 2016, eq. 5-12 ------------------------------------------------------------------


@pytest.mark.parametrize("skip", [False, True])
def test_ladder_vae(skip: bool) -> None:
    n, dims = 5, (3, 2, 2)
    prior = {"_target_": "attelbo.latent.priors.StandardNormal"}
    sizes = {"latent_dims": dims, "hidden": (5, 4), "skip": skip, "prior": prior}
    model = moved(build_ladder(DataSpec("bits", (1, 5, 4), "binary"), **MLPS, **BERNOULLI, **SHARED, **sizes))
    x = images(n)

    def loss() -> Tensor:
        d = perceptron(model.encoder, x.flatten(1), torch.tanh, last=True)
        read = []
        for layer in range(3):
            d = perceptron(model.upward[layer - 1], d, F.leaky_relu, last=True) if layer else d
            mean, log_std = (d @ model.readings[layer].weight.T + model.readings[layer].bias).chunk(2, 1)
            read.append((mean, log_std.exp()))
        mean, std = read[2]
        rate, z = kl(mean, std), mean + std * noise(1, n, dims[2])[0]
        chosen = [z]
        for layer in (1, 0):
            hidden, out = model.downward[layer]
            h = perceptron(hidden, z, F.leaky_relu, last=True)
            p_mean, p_log_std = (h @ out.weight.T + out.bias).chunk(2, 1)
            p_std, (mean, std) = p_log_std.exp(), read[layer]
            variance = 1 / (std**-2 + p_std**-2)
            q_mean = (mean * std**-2 + p_mean * p_std**-2) * variance
            rate = rate + kl(q_mean, variance.sqrt(), D.Normal(p_mean, p_std))
            z = q_mean + variance.sqrt() * noise(1, n, dims[layer])[0]
            chosen.append(z)
        logits = perceptron(model.decoder, torch.cat(chosen, 1) if skip else z, torch.tanh)
        return (rate - D.Bernoulli(logits=logits).log_prob(x.flatten(1)).sum(1)).mean()

    check(model, Batch(x, None, torch.arange(n)), loss)


# -- very deep VAEs: Child 2021, figure 3 ---------------------------------------------------------------------


def bottleneck(block: Any, x: Tensor) -> Tensor:
    """GELU, 1 x 1; GELU, k x k; GELU, k x k; GELU, 1 x 1."""
    for layer in block.modules():
        if isinstance(layer, nn.Conv2d):
            x = F.conv2d(F.gelu(x), layer.weight, layer.bias, padding=layer.weight.shape[-1] // 2)
    return x


def test_top_down_vae() -> None:
    n, shape, latent = 3, (1, 6, 4), 2
    sizes = {"channels": 8, "latent_channels": latent, "blocks": (1, 2)}
    model = moved(build_top_down(DataSpec("bits", shape, "binary"), **BERNOULLI, **SHARED, **sizes))
    x = images(n, shape)
    # On small maps all convolutions are of one pixel, on others those in the middle are of 3 x 3.
    kernels = [block.posterior.layers[3].kernel_size for block in model.downward]
    assert kernels == [(1, 1), (1, 1), (3, 3)]

    def loss() -> Tensor:
        h = F.conv2d(x, model.read.weight, model.read.bias, padding=1)
        h = h + bottleneck(model.upward[0][0], h)
        large, small = h, F.avg_pool2d(h, 2)
        for block in model.upward[1]:
            small = small + bottleneck(block, small)
        h, rate = model.start.expand(n, -1, -1, -1), torch.zeros(n, dtype=torch.float64)
        for place, block in enumerate(model.downward):
            if place == 2:
                h = h.repeat_interleave(2, 2).repeat_interleave(2, 3) + model.offsets[0]
            activation = large if place == 2 else small
            mean, log_std = bottleneck(block.posterior, torch.cat([h, activation], 1)).split(latent, 1)
            p_mean, p_log_std, features = bottleneck(block.prior, h).split([latent, latent, 8], 1)
            rate = rate + kl(mean, log_std.exp(), D.Normal(p_mean, p_log_std.exp()))
            z = mean + log_std.exp() * noise(1, *mean.shape)[0]
            h = h + features + F.conv2d(z, block.from_latent.weight, block.from_latent.bias)
            h = h + bottleneck(block.out, h)
        logits = F.conv2d(h, model.output.weight, model.output.bias, padding=1)
        return (rate - D.Bernoulli(logits=logits).log_prob(x).sum((1, 2, 3))).mean()

    check(model, Batch(x, None, torch.arange(n)), loss)


# -- attend, infer, repeat: Eslami et al. 2016, sections 2.1 and 3.1; NVIL: Mnih & Gregor 2014 ------------------


def sampled_at(source: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Bilinear interpolation between the centers of the pixels of one map (H, W), zeros outside, at places x, y in
    pixels counted from 0."""
    height, width = source.shape
    total = torch.zeros_like(x)
    for i in range(height):
        for j in range(width):
            total = total + source[i, j] * (1 - (y - i).abs()).clamp(min=0) * (1 - (x - j).abs()).clamp(min=0)
    return total


def centers(n: int) -> Tensor:
    return (2 * torch.arange(n, dtype=torch.float64) + 1) / n - 1


def cut(image: Tensor, size: Tensor, across: Tensor, down: Tensor, n: int) -> Tensor:
    """n x n pixels of one image (H, W), whose borders are at -1 and 1."""
    height, width = image.shape
    x, y = across + size * centers(n), down + size * centers(n)
    at_x, at_y = ((x + 1) * width - 1) / 2, ((y + 1) * height - 1) / 2
    return sampled_at(image, at_x.expand(n, n), at_y.unsqueeze(1).expand(n, n))


def pasted(patch: Tensor, size: Tensor, across: Tensor, down: Tensor, height: int, width: int) -> Tensor:
    n = len(patch)
    x, y = (centers(width) - across) / size, (centers(height) - down) / size
    at_x, at_y = ((x + 1) * n - 1) / 2, ((y + 1) * n - 1) / 2
    return sampled_at(patch, at_x.expand(height, width), at_y.unsqueeze(1).expand(height, width))


def test_attend_infer_repeat() -> None:
    n, latent, steps, hidden, cost, p = 6, 2, 3, 5, 1.5, 0.4
    sizes = {"latent_dim": latent, "hidden": hidden, "steps": steps, "glimpse": 3, "presence": p, "cost": cost}
    places = {"object_size": 0.6, "size_std": 0.2, "spread": 0.5, "waiting": 0.0}
    model = moved(build_air(DataSpec("bits", (1, 5, 4), "binary"), **MLPS, **BERNOULLI, **SHARED, **sizes, **places))
    model.at_step(0, 10)
    x, finder = images(n)[:, 0], model.finder
    with torch.no_grad():
        model.finder.head.bias[0] = 1.0  # most images have objects
    where_mean = torch.tensor([math.log(0.6 / 0.4), 0.0, 0.0], dtype=torch.float64)
    where_std = torch.tensor([0.2, 0.5, 0.5], dtype=torch.float64)

    def loss() -> Tensor:
        embedding = perceptron(finder.embedding, x.flatten(1), torch.relu, last=True)
        h, c = finder.start.unsqueeze(1).expand(2, n, hidden)
        z, reached = torch.zeros(n, 1 + 3 + latent, dtype=torch.float64), torch.ones(n, dtype=torch.float64)
        canvas = torch.zeros(n, 5, 4, dtype=torch.float64)
        chances, presences, baselines, before, rates = [], [], [], [], []
        for _ in range(steps):
            h, c = lstm(finder.recurrence, torch.cat([embedding, z], 1), h, c)
            of_h = h @ finder.head.weight.T + finder.head.bias
            chance = torch.sigmoid(of_h[:, 0])
            q_std = where_std * of_h[:, 4:].exp()
            q_mean = where_mean + where_std * of_h[:, 1:4]
            drawn = (torch.rand(n, dtype=torch.float64) < chance).double() * reached
            where = q_mean + q_std * noise(1, n, 3)[0]
            size = torch.sigmoid(where[:, 0])
            seen = torch.stack([cut(x[b], size[b], where[b, 1], where[b, 2], 3) for b in range(n)])
            features = perceptron(finder.encoder, seen.flatten(1), torch.tanh, last=True)
            mean, log_std = (features @ finder.what.weight.T + finder.what.bias).split(latent, 1)
            what = mean + log_std.exp() * noise(1, n, latent)[0]
            glimpse = torch.sigmoid(perceptron(model.decoder, what, torch.tanh)).view(n, 3, 3)
            painted = [pasted(glimpse[b], size[b], where[b, 1], where[b, 2], 5, 4) for b in range(n)]
            canvas = canvas + drawn.view(n, 1, 1) * torch.stack(painted)
            bernoulli = chance * (chance / p).log() + (1 - chance) * ((1 - chance) / (1 - p)).log()
            others = kl(q_mean, q_std, D.Normal(where_mean, where_std)) + kl(mean, log_std.exp())
            before.append(reached * (bernoulli + cost * chance))
            rates.append(reached * (bernoulli + cost * chance) + drawn * others)
            baseline = 20 * perceptron(finder.expected, torch.cat([embedding, h], 1).detach(), torch.relu)[:, 0]
            chances.append(reached * (drawn * chance.log() + (1 - drawn) * (1 - chance).log()))
            presences.append(reached)
            baselines.append(baseline)
            z = drawn.unsqueeze(1) * torch.cat([drawn.unsqueeze(1), where, what], 1)
            reached = drawn
        mean = canvas.clamp(1e-3, 1 - 1e-3)
        log_p = (x * mean.log() + (1 - x) * (1 - mean).log()).sum((1, 2))
        bound = sum(rates) - log_p
        total = bound
        for t in range(steps):
            # What comes of the presence of step t: all but the terms that were known before it was drawn.
            signal = (log_p - sum(rates[t:]) + before[t]).detach()
            total = total - (signal - baselines[t].detach()) * chances[t]
            total = total + presences[t] * ((signal - baselines[t]) / 20) ** 2
        return (total - total.detach() + bound.detach()).mean()

    check(model, Batch(images(n), None, torch.arange(n)), loss, 1e-5)


# -- slot attention: Locatello et al. 2020, algorithm 1 and appendix E.3 ----------------------------------------


def spatial(places: Any, maps: Tensor) -> Tensor:
    """Adds a linear function of the distances to the upper, left, lower and right edge."""
    height, width = maps.shape[-2:]
    rows = []
    for i in range(height):
        for j in range(width):
            down, across = i / (height - 1), j / (width - 1)
            rows.append([down, across, 1 - down, 1 - across])
    grid = torch.tensor(rows, dtype=torch.float64) @ places.linear.weight.T + places.linear.bias
    return maps + grid.T.unflatten(1, (height, width))


def test_slot_autoencoder() -> None:
    n, dim, n_slots, latent = 3, 6, 3, 2
    parts = {
        "encoder": {"_target_": "attelbo.networks.SlotEncoder", "channels": [4, 5], "dim": dim, "n_slots": n_slots},
        "decoder": {"_target_": "attelbo.networks.SlotDecoder", "channels": [4]},
        "posterior": {"_target_": "attelbo.latent.posteriors.SpatialNormalPosterior"},
        "prior": {"_target_": "attelbo.latent.priors.StandardNormal"},
    }
    model = moved(
        build_slot_autoencoder(DataSpec("bits", (1, 8, 6), "binary"), latent_dim=latent, **parts, **BERNOULLI, **SHARED)
    )
    x, encoder, decoder = images(n, (1, 8, 6)), model.encoder, model.decoder
    attention, cell = encoder.slots, nn.GRUCell(dim, dim).double()

    def loss() -> Tensor:
        first, second = (layer for layer in encoder.layers if isinstance(layer, nn.Conv2d))
        h = F.conv2d(x, first.weight, first.bias, stride=2, padding=2).relu()
        h = F.conv2d(h, second.weight, second.bias, padding=2).relu()
        elements = perceptron(encoder.features, normed(encoder.norm, spatial(encoder.places, h).flatten(2).mT), F.relu)
        key, value = (normed(attention.element_norm, elements) @ attention.key_value.weight.T).chunk(2, -1)
        slots = attention.beginnings.expand(n, -1, -1)
        weights = {
            "weight_ih": attention.from_won.weight,
            "bias_ih": attention.from_won.bias,
            "weight_hh": attention.from_slot.weight,
            "bias_hh": attention.from_slot.bias,
        }
        for _ in range(3):
            query = normed(attention.slot_norm, slots) @ attention.query.weight.T
            shares = torch.softmax(key @ query.mT / dim**0.5, -1) + 1e-8  # (B, S, K)
            updates = (shares / shares.sum(1, keepdim=True)).mT @ value
            pair = (updates.flatten(0, 1), slots.flatten(0, 1))
            slots = torch.func.functional_call(cell, weights, pair).unflatten(0, (n, n_slots))
            slots = slots + perceptron(attention.mlp, normed(attention.mlp[0], slots), F.relu)
        head = next(layer for layer in model.posterior.modules() if isinstance(layer, nn.Conv2d | nn.Linear))
        mean, log_std = (slots @ head.weight.flatten(1).T + head.bias).chunk(2, -1)  # (B, K, D)
        z = mean + log_std.exp() * noise(1, n, latent, n_slots, 1)[0, ..., 0].mT
        rate = kl(mean, log_std.exp())
        masks, painted = [], []
        for k in range(n_slots):
            broadcast = z[:, k] @ decoder.features.weight.T + decoder.features.bias
            maps = spatial(decoder.places, broadcast[:, :, None, None].expand(-1, -1, 4, 3))
            both = decoder.painter(maps)  # tested with the other convolutional models
            painted.append(both[:, :1])
            masks.append(both[:, 1:])
        shares = torch.softmax(torch.stack(masks), 0)
        logits = (shares * torch.stack(painted)).sum(0)
        return (rate - D.Bernoulli(logits=logits).log_prob(x).sum((1, 2, 3))).mean()

    check(model, Batch(x, None, torch.arange(n)), loss, 1e-5)


# -- neural processes: Garnelo et al. 2018; Kim et al. 2019, eq. 3 and figure 2 ---------------------------------


def attended(layer: Any, query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """Scaled dot products, head by head (Vaswani et al. 2017), of one function: (T, E), (S, E), (S, E)."""
    dim = query.shape[-1]
    w_q, w_k, w_v = layer.qkv.weight.split(dim)
    b_q, b_k, b_v = layer.qkv.bias.split(dim)
    q, k, v = query @ w_q.T + b_q, key @ w_k.T + b_k, value @ w_v.T + b_v
    size, seen = dim // heads, []
    for head in range(heads):
        own = slice(size * head, size * (head + 1))
        seen.append(torch.softmax(q[:, own] @ k[:, own].T / size**0.5, -1) @ v[:, own])
    return torch.cat(seen, -1) @ layer.output.weight.T + layer.output.bias


def block(mab: Any, query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """Lee et al. 2019, eq. 6-7, where the query is added to what it saw."""
    h = normed(mab.attention_norm, query + attended(mab.attention, query, key, value, heads))
    return normed(mab.feed_forward_norm, h + torch.relu(perceptron(mab.feed_forward, h, torch.relu)))


@pytest.mark.parametrize(
    ("heads", "latent", "objective"),
    [(2, 3, "ELBO"), (2, 3, "IWAE"), (2, None, "ELBO"), (None, 3, "ELBO"), (None, 3, "IWAE"), (None, None, "ELBO")],
)
def test_neural_processes(heads: int | None, latent: int | None, objective: str) -> None:
    dim, k = 8, (4 if objective == "IWAE" else 1)
    data = DataSpec("curves", (6, 1), "function", target=DataSpec("values", (6, 1), "real"))
    sizes = {"heads": heads, "latent_dim": latent, "dim": dim, "decoder_layers": 3, "smallest_std": 0.1}
    given = SHARED | {"objective": {"_target_": f"attelbo.latent.objectives.{objective}"}}
    if objective == "IWAE":
        given["objective"]["n_samples"] = k
    model = moved(build_neural_process(data, n_predictions=1, **sizes, **given))
    x, y = noise(3, 6, 1), noise(3, 6, 1)
    segments = torch.tensor([[0, 0, 1, 1, 1, 1], [0, 0, 0, 1, 1, -1], [0, 1, 1, -1, -1, -1]])
    assert (CONTEXT, TARGET, IGNORE) == (0, 1, -1)

    def of_points(features: Any, points: Tensor) -> Tensor:
        each = perceptron(features.each, points, torch.relu)
        return each if heads is None else block(features.among.block, each.relu(), each.relu(), each.relu(), heads)

    def whole(summary: Any, points: Tensor) -> Tensor:
        return perceptron(summary.whole, of_points(summary.features, points).mean(0), torch.relu)

    def z_of(points: Tensor) -> D.Normal:
        mean, scale = whole(model.latent, points).chunk(2)
        return D.Normal(mean, 0.1 + 0.9 * torch.sigmoid(scale))

    def seen_by(path: Any, context: Tensor, places: Tensor) -> Tensor:
        if hasattr(path, "summary"):
            return whole(path.summary, context).expand(len(places), -1)
        keys, queries = (perceptron(path.queries_keys, of, torch.relu) for of in (context[:, :1], places))
        return block(path.cross, queries, keys, of_points(path.values, context), heads or 0)

    def loss() -> Tensor:
        draws, values = noise(k, 3, latent or 0), []
        for b in range(3):
            points = torch.cat([x[b], y[b]], -1)
            context, there = points[segments[b] == 0], points[segments[b] >= 0]
            nothing = D.Normal(torch.zeros(0), torch.ones(0))
            prior, posterior = (nothing, nothing) if latent is None else (z_of(context), z_of(there))
            places = there[:, :1]
            seen = torch.cat([seen_by(path, context, places) for path in model.paths], 1)
            log_weights, log_ps = [], []
            for draw in draws[:, b]:
                z = posterior.mean + posterior.stddev * draw
                together = torch.cat([places, seen, z.expand(len(places), -1)], 1)
                hidden = torch.relu(together @ model.decoder.first.weight.T + model.decoder.first.bias)
                mean, scale = perceptron(model.decoder.rest, hidden, torch.relu).chunk(2, 1)
                log_p = D.Normal(mean, 0.1 + 0.9 * F.softplus(scale)).log_prob(there[:, 1:]).sum()
                log_ps.append(log_p)
                log_weights.append(log_p + (prior.log_prob(z) - posterior.log_prob(z)).sum())
            if objective == "IWAE":
                values.append(torch.stack(log_weights).logsumexp(0) - math.log(k))
            else:
                values.append(log_ps[0] - D.kl_divergence(posterior, prior).sum())
        return -torch.stack(values).mean()

    check(model, Batch(x, y, torch.arange(3), segments), loss)


# -- sentences: Bowman et al. 2016, section 3; Zhu et al. 2020, eq. 4-7 (means that are normalized over the batch) ---


@pytest.mark.parametrize(("posterior", "free_bits"), [("diagonal", 0.0), ("diagonal", 0.8), ("batch", 0.0)])
def test_text_vae(posterior: str, free_bits: float) -> None:
    latent, n_tokens, dropout = 3, 9, 0.4
    kinds = {"diagonal": "DiagonalNormalPosterior", "batch": "BatchNormalizedPosterior"}
    parts = {
        "posterior": {"_target_": f"attelbo.latent.{kinds[posterior]}"},
        "prior": {"_target_": "attelbo.latent.StandardNormal"},
    }
    given = SHARED | {"objective": SHARED["objective"] | {"free_bits": free_bits}}
    sizes = {"latent_dim": latent, "embedding": 4, "hidden": 5, "latent_into": "both", "word_dropout": dropout}
    data = DataSpec("texts", (6,), "tokens", n_tokens=n_tokens, pads=True)
    model = moved(build_recurrent_text_vae(data, **parts, **sizes, **given))
    pad, begin, end, unknown = PAD, BOS, EOS, UNK
    texts = [[4, 5, 8], [6], [], [7, 7, 4, 5], [8, 4]]
    x = torch.full((5, 6), pad)
    for row, text in enumerate(texts):
        x[row, : len(text) + 2] = torch.tensor([begin, *text, end])
    vectors = model.encoder.embedding.weight

    def gru(layer: nn.GRU, seen: Tensor, h: Tensor) -> Tensor:
        """One step (Cho et al. 2014, with the reset behind the product, as in torch)."""
        by_input, by_state = seen @ layer.weight_ih_l0.T, h @ layer.weight_hh_l0.T
        if layer.bias:
            by_input, by_state = by_input + layer.bias_ih_l0, by_state + layer.bias_hh_l0
        r_x, u_x, n_x = by_input.chunk(3, -1)
        r_h, u_h, n_h = by_state.chunk(3, -1)
        update, new = torch.sigmoid(u_x + u_h), torch.tanh(n_x + torch.sigmoid(r_x + r_h) * n_h)
        return (1 - update) * new + update * h

    def loss() -> Tensor:
        last = []
        for text in texts:
            h = torch.zeros(5, dtype=torch.float64)
            for token in [begin, *text, end]:
                h = gru(model.encoder.reader.readers[0].layers[0], vectors[token], h)
            last.append(h)
        q = model.posterior
        if posterior == "diagonal":
            mean, log_std = (torch.stack(last) @ q.head.weight.T + q.head.bias).chunk(2, 1)
        else:
            raw, log_std = torch.stack(last) @ q.means.weight.T, q.log_stds(torch.stack(last))
            centered = raw - raw.mean(0)
            mean = 0.5 * centered / (centered.square().mean(0) + 1e-5).sqrt() + q.shift
        std = log_std.exp()
        z = mean + std * noise(1, 5, latent)[0]
        dropped = torch.rand(1, 5, 5)[0] < dropout
        total = torch.zeros((), dtype=torch.float64)
        for row, text in enumerate(texts):
            told, targets = [begin, *text], [*text, end]
            h = z[row] @ model.decoder.start.weight.T + model.decoder.start.bias
            for place, (token, target) in enumerate(zip(told, targets, strict=True)):
                known = unknown if dropped[row, place] and token > 3 else token
                h = gru(model.decoder.units.layers[0], torch.cat([vectors[known], z[row]]), h)
                logits = h @ model.decoder.output.weight.T + model.decoder.output.bias
                total = total - torch.log_softmax(logits, 0)[target]
        by_dimension = (0.5 * (mean**2 + std**2 - 1) - std.log()).mean(0)
        return total / 5 + by_dimension.clamp(min=free_bits).sum()

    check(model, Batch(x, None, torch.arange(5)), loss, 1e-5)
