"""VAEs whose posteriors or priors are more than a formula, written out a second time after their papers: loss and
gradients, with the same weights and the same noise.

In evaluation mode, where a sampled KL has no control variate.
"""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch import distributions as D

from attelbo.attention import FeedForward, MultiHeadAttention
from attelbo.data.batch import Batch, DataSpec
from attelbo.models import build_ladder, build_vae
from attelbo.networks.diffusion_transformer import DiffusionTransformer
from written_out import BERNOULLI, MLPS, SHARED, check, images, kl, moved, noise, perceptron

N, SHAPE, PIXELS = 4, (1, 5, 4), 20
STANDARD = {"_target_": "attelbo.latent.priors.StandardNormal"}


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def vae(posterior: dict[str, Any], latent_dim: int, prior: dict[str, Any] = STANDARD) -> Any:
    parts = {"posterior": posterior, "prior": prior, "latent_dim": latent_dim}
    return moved(build_vae(DataSpec("bits", SHAPE, "binary"), **parts, **MLPS, **BERNOULLI, **SHARED)).eval()


def log_normal(x: Tensor, variance: float | Tensor = 1.0) -> Tensor:
    """log N(x; 0, variance), summed over the last dimension."""
    variance = torch.as_tensor(variance, dtype=x.dtype)
    return (-0.5 * x.square() / variance - 0.5 * (2 * math.pi * variance).log()).sum(-1)


def log_joint_of(model: Any, x: Tensor) -> Callable[[Tensor], Tensor]:
    """log p(x, z) of z (N, D)."""

    def log_joint(z: Tensor) -> Tensor:
        logits = perceptron(model.decoder, z, torch.tanh)
        return D.Bernoulli(logits=logits).log_prob(x.flatten(1)).sum(1) + log_normal(z)

    return log_joint


def moments(model: Any, head: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    h = perceptron(model.encoder, x.flatten(1), torch.tanh, last=True)
    mean, log_std = (h @ head.weight.T + head.bias).chunk(2, 1)
    return mean, log_std.exp()


# -- Hamiltonian VAEs: Caterini et al. 2018, algorithm 1; Chadebec et al. 2020, algorithm 1 -----------------------


def test_hamiltonian_vae() -> None:
    latent, steps, beta_0 = 2, 3, 0.4
    of_q = {"n_leapfrog": steps, "step_size": 0.1, "beta_0": beta_0}
    model = vae({"_target_": "attelbo.latent.posteriors.HamiltonianPosterior", **of_q}, latent)
    x, log_joint = images(N, SHAPE), log_joint_of(model, images(N, SHAPE))

    def slope(z: Tensor) -> Tensor:
        """The gradient of the potential, itself differentiable."""
        if not z.requires_grad:
            z = z.detach().requires_grad_()
        return -torch.autograd.grad(log_joint(z).sum(), z, create_graph=True)[0]

    def loss() -> Tensor:
        mean, std = moments(model, model.posterior.base.head, x)
        eps = 0.5 * torch.sigmoid(model.posterior.step_logits)
        z_0 = z = mean + std * noise(1, N, latent)[0]
        gamma = noise(1, N, latent)[0]
        rho = gamma / beta_0**0.5
        root = beta_0**0.5
        for k in range(1, steps + 1):
            rho = rho - eps / 2 * slope(z)
            z = z + eps * rho
            rho = rho - eps / 2 * slope(z)
            before, root = root, 1 / ((1 - beta_0**-0.5) * k**2 / steps**2 + beta_0**-0.5)
            rho = before / root * rho
        # Eq. 12: the cooling scales the volume by beta_0^(D/2), and gamma's density was taken before it was divided.
        log_q = log_normal((z_0 - mean) / std) - std.log().sum(1) + log_normal(gamma)
        return -(log_joint(z) + log_normal(rho) - log_q).mean()

    check(model, Batch(x, None, torch.arange(N)), loss)


def test_riemannian_hamiltonian_vae() -> None:
    """With so many iterations that the implicit equations are solved: solutions keep the volume, as the paper says."""
    latent, steps, beta_0, temperature, ridge = 2, 2, 0.5, 1.3, 0.05
    of_q = {"n_leapfrog": steps, "step_size": 0.04, "beta_0": beta_0, "n_centroids": 3, "n_iterations": 25}
    of_metric = {"temperature": temperature, "regularization": ridge}
    model = vae({"_target_": "attelbo.latent.posteriors.RiemannianHamiltonianPosterior", **of_q, **of_metric}, latent)
    x, log_joint, posterior = images(N, SHAPE), log_joint_of(model, images(N, SHAPE)), model.posterior

    def inverse_metric(z: Tensor) -> Tensor:
        total = ridge * torch.eye(latent, dtype=torch.float64)
        for i in range(3):
            factor = torch.diag(posterior.log_diagonals[i].exp())
            factor = factor + torch.diag(posterior.below[i], -1)
            weight = (-(z - posterior.centroids[i]).square().sum(1) / (latent * temperature**2)).exp()
            total = total + weight.view(-1, 1, 1) * (factor @ factor.T)
        return total

    def log_momentum(z: Tensor, rho: Tensor) -> Tensor:
        inverse = inverse_metric(z)
        energy = (rho.unsqueeze(1) @ inverse @ rho.unsqueeze(2)).flatten()
        return 0.5 * inverse.logdet() - 0.5 * energy - latent / 2 * math.log(2 * math.pi)

    def slope(z: Tensor, rho: Tensor) -> Tensor:
        """Of H(z, rho) by z."""
        return -torch.func.grad(lambda at: (log_joint(at) + log_momentum(at, rho)).sum())(z)

    def velocity(z: Tensor, rho: Tensor) -> Tensor:
        return (inverse_metric(z) @ rho.unsqueeze(2)).squeeze(2)

    def loss() -> Tensor:
        mean, std = moments(model, posterior.base.head, x)
        eps = 0.5 * torch.sigmoid(posterior.step_logits)
        z_0 = z = mean + std * noise(1, N, latent)[0]
        root_of_metric = torch.linalg.cholesky(inverse_metric(z))
        gamma = torch.linalg.solve(root_of_metric.mT, noise(1, N, latent)[0])  # of covariance G
        rho, root = gamma / beta_0**0.5, beta_0**0.5
        for k in range(1, steps + 1):
            start = rho
            for _ in range(25):
                rho = start - eps / 2 * slope(z, rho)
            begin = z
            for _ in range(25):
                z = begin + eps / 2 * (velocity(begin, rho) + velocity(z, rho))
            rho = rho - eps / 2 * slope(z, rho)
            before, root = root, 1 / ((1 - beta_0**-0.5) * k**2 / steps**2 + beta_0**-0.5)
            rho = before / root * rho
        log_q = log_normal((z_0 - mean) / std) - std.log().sum(1) + log_momentum(z_0, gamma)
        return -(log_joint(z) + log_momentum(z, rho) - log_q).mean()

    check(model, Batch(x, None, torch.arange(N)), loss, 1e-5)


# -- vector quantization: van den Oord et al. 2017, eq. 1-3; Zeghidour et al. 2021, algorithm 1 -------------------


@pytest.mark.parametrize("books", [1, 3])
def test_quantized_vae(books: int) -> None:
    latent, n_codes, beta = 4, 5, 0.3
    kind = "VectorQuantizedPosterior" if books == 1 else "ResidualVectorQuantizedPosterior"
    posterior = {"_target_": f"attelbo.latent.posteriors.{kind}", "n_codes": n_codes, "commitment": beta, "decay": None}
    if books > 1:
        posterior["n_codebooks"] = books
    model = vae(posterior, latent, {"_target_": "attelbo.latent.priors.UniformCodes"})
    x, q = images(N, SHAPE), model.posterior
    tables = [q.codebook.embedding] if books == 1 else [book.embedding for book in q.codebooks]

    def loss() -> Tensor:
        v = perceptron(model.encoder, x.flatten(1), torch.tanh, last=True) @ q.head.weight.T + q.head.bias
        total, chosen, rest = torch.zeros(N, dtype=torch.float64), torch.zeros_like(v), v
        for table in tables:
            nearest = torch.stack([table[(row - table).norm(dim=1).argmin()] for row in rest])
            total = total + (rest.detach() - nearest).square().sum(1) + beta * (rest - nearest.detach()).square().sum(1)
            chosen, rest = chosen + nearest.detach(), rest - nearest.detach()
        z = v + (chosen - v).detach()
        logits = perceptron(model.decoder, z, torch.tanh)
        log_p = D.Bernoulli(logits=logits).log_prob(x.flatten(1)).sum(1)
        return (total - log_p).mean() + books * math.log(n_codes)

    check(model, Batch(x, None, torch.arange(N)), loss)


# -- the hierarchical VampPrior: Tomczak & Welling 2018, section 4 -------------------------------------------------


def test_hierarchical_vamp_vae() -> None:
    prior = {"_target_": "attelbo.latent.priors.VampPrior", "n_components": 3}
    sizes = {"latent_dims": (3, 2), "hidden": (5,), "skip": True, "prior": prior}
    built = build_ladder(DataSpec("bits", SHAPE, "binary"), **MLPS, **BERNOULLI, **SHARED, **sizes)
    model, x = moved(built).eval(), images(N, SHAPE)

    def read(images_: Tensor) -> tuple[D.Normal, D.Normal]:
        d = perceptron(model.encoder, images_.flatten(1), torch.tanh, last=True)
        found = []
        for layer in (0, 1):
            d = perceptron(model.upward[0], d, torch.nn.functional.leaky_relu, last=True) if layer else d
            mean, log_std = (d @ model.readings[layer].weight.T + model.readings[layer].bias).chunk(2, 1)
            found.append(D.Normal(mean, log_std.exp()))
        return found[0], found[1]

    def loss() -> Tensor:
        likely, top = read(x)
        z_2 = top.mean + top.stddev * noise(1, N, 2)[0]
        _, pseudo = read(torch.sigmoid(model.prior.logits))
        of_each = torch.stack([D.Normal(pseudo.mean[k], pseudo.stddev[k]).log_prob(z_2).sum(1) for k in range(3)])
        rate = top.log_prob(z_2).sum(1) - (of_each.logsumexp(0) - math.log(3))
        hidden, out = model.downward[0]
        h = perceptron(hidden, z_2, torch.nn.functional.leaky_relu, last=True)
        p_mean, p_log_std = (h @ out.weight.T + out.bias).chunk(2, 1)
        p = D.Normal(p_mean, p_log_std.exp())
        variance = 1 / (likely.stddev**-2 + p.stddev**-2)
        mean = (likely.mean * likely.stddev**-2 + p.mean * p.stddev**-2) * variance
        rate = rate + kl(mean, variance.sqrt(), p)
        z_1 = mean + variance.sqrt() * noise(1, N, 3)[0]
        logits = perceptron(model.decoder, torch.cat([z_2, z_1], 1), torch.tanh)
        return (rate - D.Bernoulli(logits=logits).log_prob(x.flatten(1)).sum(1)).mean()

    check(model, Batch(x, None, torch.arange(N)), loss)


# -- transformers for diffusion: Peebles & Xie 2023, section 3.2, adaLN-Zero ----------------------------------------


def test_diffusion_transformer() -> None:
    """The network; chains and bounds of any network are tested with the priors."""
    dim, heads = 8, 2
    prior = DiffusionTransformer((2, 2, 3), steps=4, dim=dim, heads=heads, layers=2).double()
    network: Any = prior.network
    with torch.no_grad():  # gates of zero would hide the blocks
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    z, c = noise(5, 12), noise(5, dim)

    def plain_norm(x: Tensor) -> Tensor:
        return (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()

    def steered(steer: Any, n: int) -> list[Tensor]:
        swish = c * torch.sigmoid(c)
        return list((swish @ steer.weight.T + steer.bias).unsqueeze(1).chunk(n, -1))

    def attention(layer: MultiHeadAttention, x: Tensor) -> Tensor:
        q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in layer.qkv(x).chunk(3, -1))
        weights = torch.softmax(q @ k.mT / (dim / heads) ** 0.5, -1)
        return layer.output((weights @ v).transpose(1, 2).flatten(2))

    def feed_forward(layer: FeedForward, x: Tensor) -> Tensor:
        return layer.second(torch.nn.functional.gelu(layer.first(x)))

    x = network.input(z.view(5, 2, 6).mT) + network.position
    for block in network.blocks:
        for around, layer, compute in (
            (block.around_attention, block.attention, attention),
            (block.around_feed_forward, block.feed_forward, feed_forward),
        ):
            shift, scale, gate = steered(around.steer, 3)
            x = x + gate * compute(layer, plain_norm(x) * (1 + scale) + shift)
    shift, scale = steered(network.output.steer, 2)
    expected = network.output.linear(plain_norm(x) * (1 + scale) + shift).mT.flatten(1)
    torch.testing.assert_close(network(z, c), expected)


# -- relaxed choices: Jang et al. 2017, eq. 1-2; Dupont 2018, eq. 7; levels: Mentzer et al. 2023, section 3.1 --------


def relaxed(log_p: Tensor, temperature: float) -> Tensor:
    """softmax((log p + Gumbel noise) / temperature) of (N, ..., K), the noise as -log of exponential noise."""
    gumbel = -torch.empty(1, *log_p.shape, dtype=torch.float64).exponential_().log()
    return torch.softmax((log_p + gumbel[0]) / temperature, -1)


def test_categorical_vae() -> None:
    groups, classes, temperature = 2, 3, 0.7
    posterior = {"n_classes": classes, "temperature": temperature}
    prior = {"_target_": "attelbo.latent.priors.UniformCategorical"}
    model = vae({"_target_": "attelbo.latent.GumbelSoftmaxPosterior", **posterior}, groups, prior).train()
    x = images(N, SHAPE)

    def loss() -> Tensor:
        h = perceptron(model.encoder, x.flatten(1), torch.tanh, last=True)
        log_p = (h @ model.posterior.head.weight.T + model.posterior.head.bias).view(N, groups, classes).log_softmax(-1)
        logits = perceptron(model.decoder, relaxed(log_p, temperature).flatten(1), torch.tanh)
        rate = (log_p.exp() * (log_p + math.log(classes))).sum((1, 2))
        return (rate - D.Bernoulli(logits=logits).log_prob(x.flatten(1)).sum(1)).mean()

    check(model, Batch(x, None, torch.arange(N)), loss, 1e-6)


def test_joint_vae() -> None:
    latent, classes, temperature, gamma = 2, 3, 0.7, 4.0
    parts = {
        "posterior": {"_target_": "attelbo.latent.JointPosterior", "categories": [classes], "temperature": temperature},
        "prior": {"_target_": "attelbo.latent.JointPrior"},
        "latent_dim": latent,
    }
    capacity = {"capacity": 1.5, "discrete_capacity": 0.4, "gamma": gamma}
    given = SHARED | {"objective": {"_target_": "attelbo.latent.Capacity", **capacity}}
    model = moved(build_vae(DataSpec("bits", SHAPE, "binary"), **parts, **MLPS, **BERNOULLI, **given))
    x, q = images(N, SHAPE), model.posterior

    def loss() -> Tensor:
        h = perceptron(model.encoder, x.flatten(1), torch.tanh, last=True)
        mean, log_std, logits = (h @ q.head.weight.T + q.head.bias).split([latent, latent, classes], 1)
        log_p = logits.log_softmax(1)
        z = mean + log_std.exp() * noise(1, N, latent)[0]
        choice = relaxed(log_p.unsqueeze(1), temperature)[:, 0]
        painted = perceptron(model.decoder, torch.cat([z, choice], 1), torch.tanh)
        distortion = -D.Bernoulli(logits=painted).log_prob(x.flatten(1)).sum(1).mean()
        discrete = (log_p.exp() * (log_p + math.log(classes))).sum(1).mean()
        return distortion + gamma * ((kl(mean, log_std.exp()).mean() - 1.5).abs() + (discrete - 0.4).abs())

    check(model, Batch(x, None, torch.arange(N)), loss, 1e-6)


def test_finite_scalar_vae() -> None:
    levels = (4, 5)
    posterior = {"_target_": "attelbo.latent.FiniteScalarPosterior", "levels": levels}
    model = vae(posterior, 4, {"_target_": "attelbo.latent.UniformCodes"}).train()
    x, q = images(N, SHAPE), model.posterior

    def loss() -> Tensor:
        v = perceptron(model.encoder, x.flatten(1), torch.tanh, last=True) @ q.head.weight.T + q.head.bias
        scalars = []
        for d in range(4):
            n = levels[d % 2]
            half, offset = (n - 1) * (1 - 1e-3) / 2, 0.5 * (n % 2 == 0)
            bounded = half * torch.tanh(v[:, d] + math.atanh(offset / half)) - offset
            scalars.append((bounded + (bounded.round() - bounded).detach()) / (n // 2))
        logits = perceptron(model.decoder, torch.stack(scalars, 1), torch.tanh)
        return 2 * math.log(20) - D.Bernoulli(logits=logits).log_prob(x.flatten(1)).sum(1).mean()

    check(model, Batch(x, None, torch.arange(N)), loss, 1e-5)


# -- flows: Rezende & Mohamed 2015, eq. 10-12 and appendix A.1; van den Berg et al. 2018, eq. 13-15 ------------------


def planar(z: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
    u, w, b = (given[:, :2] / 2**0.5, given[:, 2:4] / 2**0.5, given[:, 4])
    inner = (w * u).sum(1)
    # The appendix's -1 + softplus, moved so that u = 0 stays 0.
    wanted = -1 + (1 + (inner + math.log(math.e - 1)).exp()).log()
    u = u + ((wanted - inner) / w.square().sum(1)).unsqueeze(1) * w
    t = torch.tanh((w * z).sum(1) + b)
    psi = (1 - t.square()).unsqueeze(1) * w
    return z + u * t.unsqueeze(1), (1 + (u * psi).sum(1)).abs().log()


def sylvester(z: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
    """Row by row: R and S with diagonals tanh(.) 0.999, and Q = the product of reflections."""
    moved_, log_dets = [], []
    for row, numbers in zip(z, given, strict=True):
        r_diagonal, r_above, s_diagonal, s_above, b, vectors = numbers.split([2, 1, 2, 1, 2, 6])
        r, s = (
            torch.diag(0.999 * torch.tanh(diagonal)) + torch.diag(above / 2**0.5, 1)
            for diagonal, above in ((r_diagonal, r_above), (s_diagonal, s_above))
        )
        q = torch.eye(2, dtype=torch.float64)
        for v in vectors.view(3, 2):
            q = q @ (torch.eye(2, dtype=torch.float64) - 2 * torch.outer(v, v) / v.square().sum())
        t = torch.tanh(s @ q.T @ row + b)
        moved_.append(row + q @ r @ t)
        log_dets.append((torch.eye(2, dtype=torch.float64) + torch.diag(1 - t.square()) @ s @ r).logdet())
    return torch.stack(moved_), torch.stack(log_dets)


@pytest.mark.parametrize(
    ("kind", "options", "flow"),
    [("PlanarPosterior", {}, planar), ("SylvesterPosterior", {"n_reflections": 3}, sylvester)],
)
def test_vae_with_flows(kind: str, options: dict[str, Any], flow: Callable[..., tuple[Tensor, Tensor]]) -> None:
    model = vae({"_target_": f"attelbo.latent.{kind}", "n_flows": 2, **options}, 2)
    x, head, log_joint = images(N, SHAPE), model.posterior.head, log_joint_of(model, images(N, SHAPE))

    def loss() -> Tensor:
        h = perceptron(model.encoder, x.flatten(1), torch.tanh, last=True)
        numbers = h @ head.weight.T + head.bias
        mean, log_std = numbers[:, :4].chunk(2, 1)
        eps = noise(1, N, 2)[0]
        z, log_q = mean + log_std.exp() * eps, log_normal(eps) - log_std.sum(1)
        for given in numbers[:, 4:].chunk(2, 1):
            z, log_det = flow(z, given)
            log_q = log_q - log_det
        return (log_q - log_joint(z)).mean()

    check(model, Batch(x, None, torch.arange(N)), loss)
