"""Objectives of several players: each loss by its definition and by finite differences, and who moves what."""

import math
from collections.abc import Callable
from typing import Any

import latent_contract as contract
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from attelbo.data.batch import Batch, DataSpec
from attelbo.latent import VAEGAN, Adversarial, Evidence, Factor
from attelbo.latent.spaces import OneHot, Product, Real, Sphere
from attelbo.models import VariationalAutoencoder, build_vae

JOINT = Product((6,), (Real((2,)), OneHot((1, 4))))
"""Of independent parts; but as six numbers, the four of a choice have a total correlation of 0.86 nats."""
NAMES = sorted(contract.FAMILIES["objective"]["game"])
DATA = DataSpec("bits", (1, 6, 6), "binary", None)
SIZES: dict[str, dict[str, Any]] = {
    "adversarial": {"hidden": [5]},
    "factor": {"hidden": [5], "gamma": 3.0},
    "vae_gan": {"channels": [3, 4], "gamma": 0.3},
}


def model(name: str) -> VariationalAutoencoder:
    torch.manual_seed(0)
    parts = {
        "encoder": {"_target_": "attelbo.networks.MLPEncoder", "hidden": [6]},
        "decoder": {"_target_": "attelbo.networks.MLPDecoder", "hidden": [6]},
        "posterior": contract.spec("posterior", "diagonal_normal"),
        "prior": contract.spec("prior", "standard_normal"),
        "likelihood": contract.spec("likelihood", "bernoulli"),
        "objective": {**contract.spec("objective", name), **SIZES[name]},
    }
    adam = {"_target_": "torch.optim.Adam", "lr": 1e-3, "betas": [0.9, 0.999]}
    constant = {"_target_": "attelbo.models.schedulers.Constant"}
    return build_vae(data=DATA, latent_dim=2, optimizer=adam, scheduler=constant, **parts).double()


def batch() -> Batch:
    x = torch.rand(4, 1, 6, 6, generator=torch.Generator().manual_seed(5), dtype=torch.float64).round()
    return Batch(x, None, torch.arange(4))


def loss_of(name: str, place: int) -> Callable[[], Tensor]:
    player = model(name).players()[place]

    def loss() -> Tensor:
        torch.manual_seed(1)
        return player.losses(batch())["loss"]

    return loss


# -- the losses written down once more, in the plainest way ----------------------------------------------


def log_d(logits: Tensor, *, real: bool) -> Tensor:
    target = torch.full_like(logits, float(real))
    return -F.binary_cross_entropy_with_logits(logits, target)


def factor(m: Any, e: Evidence, noise: Callable[[], None]) -> list[Tensor]:
    logits = m.objective.critic(e.z[0])
    noise()
    order = torch.rand(1, 4, 2, dtype=torch.float64).argsort(1)[0]
    mixed = torch.stack([e.z[0, order[:, d], d] for d in range(2)], 1)
    made = m.objective.critic(mixed)
    return [-e.elbo.mean() + 3.0 * logits.mean(), -log_d(logits, real=True) - log_d(made, real=False)]


def adversarial(m: Any, e: Evidence, noise: Callable[[], None]) -> list[Tensor]:
    logits = m.objective.critic(e.z[0])
    noise()
    real = m.objective.critic(torch.randn(4, 2, dtype=torch.float64))
    return [
        -e.log_likelihood.mean(),
        -log_d(real, real=True) - log_d(logits, real=False),
        -log_d(logits, real=True),
    ]


def vae_gan(m: Any, e: Evidence, noise: Callable[[], None]) -> list[Tensor]:
    assert e.eta is not None
    noise()
    invented = m.decode(torch.randn(1, 4, 2, dtype=torch.float64))[0].sigmoid()
    real, made, own = (m.objective.critic(images) for images in (batch().x, e.eta[0].sigmoid(), invented))
    distance = sum(0.5 * (a - b).square().sum() for a, b in zip(real[1], made[1], strict=True)) / 4
    return [
        e.kl.sum(1).mean() + distance,
        0.3 * distance - log_d(made[0], real=True) - log_d(own[0], real=True),
        -log_d(real[0], real=True) - log_d(made[0], real=False) - log_d(own[0], real=False),
    ]


TABLE = {"adversarial": adversarial, "factor": factor, "vae_gan": vae_gan}
PLACES = [(name, place) for name, n in (("adversarial", 3), ("factor", 2), ("vae_gan", 3)) for place in range(n)]


def test_every_game_is_in_the_table() -> None:
    assert set(NAMES) == set(TABLE)
    assert [(name, place) for name in NAMES for place, _ in enumerate(model(name).players())] == PLACES


@pytest.mark.parametrize(("name", "place"), PLACES)
def test_losses_are_their_definitions(name: str, place: int) -> None:
    m = model(name)
    torch.manual_seed(1)
    evidence = m.evidence(batch().x)
    state = torch.get_rng_state()
    expected = TABLE[name](m, evidence, lambda: torch.set_rng_state(state))[place]
    torch.testing.assert_close(loss_of(name, place)(), expected)


# -- who moves what --------------------------------------------------------------------------------------

SIDES = {
    "adversarial": ["encoder posterior decoder", "objective", "encoder posterior"],
    "factor": ["encoder posterior decoder", "objective"],
    "vae_gan": ["encoder posterior", "decoder", "objective"],
}


@pytest.mark.parametrize(("name", "place"), PLACES)
def test_a_player_moves_its_own_and_all_of_it(name: str, place: int) -> None:
    m = contract.randomize(model(name))
    assert isinstance(m, VariationalAutoencoder)
    player = m.players()[place]
    sides = SIDES[name][place].split()
    own = [parameter for side in sides for parameter in m.get_submodule(side).parameters()]
    assert {id(parameter) for parameter in player.parameters} == {id(parameter) for parameter in own}
    player.losses(batch())["loss"].backward(inputs=player.parameters)
    for parameter_name, parameter in m.named_parameters():
        moves = parameter.grad is not None and bool((parameter.grad != 0).any())
        assert moves == (parameter_name.partition(".")[0] in sides), parameter_name


@pytest.mark.parametrize(("name", "place"), PLACES)
def test_gradients_by_finite_differences(name: str, place: int) -> None:
    m = model(name)
    player = m.players()[place]
    generator = torch.Generator().manual_seed(3)
    directions = [torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in player.parameters]

    def loss() -> Tensor:
        torch.manual_seed(1)
        return player.losses(batch())["loss"]

    loss().backward(inputs=player.parameters)
    analytic = sum((p.grad * d).sum() for p, d in zip(player.parameters, directions, strict=True) if p.grad is not None)
    step, values = 1e-6, []
    with torch.no_grad():
        for sign in (1, -1):
            for parameter, direction in zip(player.parameters, directions, strict=True):
                parameter.add_(direction, alpha=sign * step)
            values.append(loss())
            for parameter, direction in zip(player.parameters, directions, strict=True):
                parameter.sub_(direction, alpha=sign * step)
    torch.testing.assert_close((values[0] - values[1]) / (2 * step), torch.as_tensor(analytic), rtol=1e-5, atol=1e-8)


def test_the_discriminator_sends_nothing_into_the_model() -> None:
    for name, place in (("factor", 1), ("adversarial", 1), ("vae_gan", 2)):
        m = model(name)
        m.players()[place].losses(batch())["loss"].backward()  # into whatever it reaches
        moved = {key.partition(".")[0] for key, parameter in m.named_parameters() if parameter.grad is not None}
        assert moved == {"objective"}


# -- around ------------------------------------------------------------------------------------------------


def test_turns_on_latents_do_without_the_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    m = model("adversarial")

    def decode(*_: Any) -> Tensor:
        raise AssertionError("decoded")

    players = m.players()
    monkeypatch.setattr(m, "decode", decode)
    for player in players[1:]:
        assert player.losses(batch())["loss"].isfinite()
    with pytest.raises(AssertionError, match="decoded"):
        players[0].losses(batch())


@pytest.mark.parametrize("options", [{}, {"betas": [0.9, 0.999]}], ids=["left out", "given"])
def test_the_betas_of_a_game(options: dict[str, Any]) -> None:
    adam = {"_target_": "torch.optim.Adam", "lr": 1e-3, **options}
    betas = {name: [o.param_groups[0]["betas"] for o in optimizers_of(name, adam)] for name in NAMES}
    usual, game = (0.9, 0.999), (0.5, 0.9)
    assert {name: [tuple(each) for each in own] for name, own in betas.items()} == {
        "adversarial": [usual] * 3,
        "factor": [usual, game],
        "vae_gan": [game] * 3,
    }


def test_an_optimizer_without_betas_gets_none() -> None:
    sgd = {"_target_": "torch.optim.SGD", "lr": 1e-3}
    assert all("betas" not in own.param_groups[0] for name in NAMES for own in optimizers_of(name, sgd))


def optimizers_of(name: str, optimizer: dict[str, Any]) -> list[torch.optim.Optimizer]:
    m = model(name)
    m.optimizer_spec = optimizer
    m.stepper = lambda block: None  # pyright: ignore[reportAttributeAccessIssue]
    return m.configure_optimizers()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Factor((2, 3)), r"^latents must be a vector .* got shape \(2, 3\)"),
        (
            lambda: Factor((6,), space=JOINT),
            r"^latents must be numbers that may .* 2 real numbers and 1 choices among 4",
        ),
        (
            lambda: Factor((3,), space=Sphere((3,))),
            r"^latents must be numbers .* there are unit vectors in 3 dimensions",
        ),
        (lambda: Factor((2,), gamma=-1.0), r"^gamma must be finite and not negative, got -1.0"),
        (lambda: Factor((2,), n_samples=0), r"^n_samples must be at least 1, got 0"),
        (lambda: Adversarial((2,), hidden=[0]), r"^hidden must be positive"),
        (lambda: VAEGAN((1, 8, 8), gamma=math.nan), r"^gamma must be finite"),
        (lambda: VAEGAN((7,)), r"^data_shape must be"),
    ],
)
def test_what_makes_no_sense(build: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
