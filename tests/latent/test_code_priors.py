"""Each prior over codes: probabilities by enumeration, causality, samples; torch's own GRU."""

import math
from typing import Any

import latent_contract as contract
import pytest
import torch
from torch import Tensor, nn

from attelbo.latent import AutoregressiveConvolutional, AutoregressiveRecurrent, OneHotCategorical, Quantized
from attelbo.latent.priors import autoregressive_convolutional
from attelbo.latent.priors.autoregressive import draw
from attelbo.latent.spaces import Codes
from enumerated_codes import assert_distributed, every_code

SPACES = {
    "line": Codes((4,), 3),
    "map": Codes((2, 2), 3),
    "residual": Codes((1, 2, 2), 3, n_codebooks=2),
    "one": Codes((1,), 5),
}
# What makes a part small; whether it is learned.
TABLE: dict[str, tuple[dict[str, Any], bool]] = {
    "uniform_codes": ({}, False),
    "autoregressive_recurrent": ({"hidden": 7}, True),
    "autoregressive_convolutional": ({"channels": 6, "layers": 2, "reach": 2}, True),
    "autoregressive_transformer": ({"dim": 8, "heads": 2, "layers": 2, "axial_rotary": True}, True),
}
NAMES = sorted(contract.FAMILIES["prior"]["codes"])
AUTOREGRESSIVE = [name for name in NAMES if TABLE[name][1]]
spaces = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)


def prior(name: str, space: Codes, **settings: Any) -> Any:
    part = contract.build_part("prior", name, space=space, **{**TABLE[name][0], **settings})
    return contract.randomize(part, scale=0.8)


def test_every_part_is_in_the_table() -> None:
    assert set(NAMES) == set(TABLE)


@spaces
@pytest.mark.parametrize("name", NAMES)
def test_probabilities_sum_to_one(name: str, space: Codes) -> None:
    log_prob = prior(name, space).log_prob(every_code(space).unsqueeze(0))
    assert log_prob.shape == (1, space.n_codes ** math.prod(space.shape))
    assert float(log_prob.detach().exp().sum()) == pytest.approx(1, rel=1e-12)
    assert (len(log_prob.unique()) > 1) == TABLE[name][1]


@spaces
@pytest.mark.parametrize("name", NAMES)
def test_samples_have_the_probabilities(name: str, space: Codes) -> None:
    n, p = 5_000, prior(name, space)
    expected = p.log_prob(every_code(space).unsqueeze(0))[0].detach().exp()
    codes = p.sample(n)
    assert codes.shape == (n, *space.shape)
    assert codes.dtype == torch.int64
    assert_distributed(codes, space, expected)


@spaces
@pytest.mark.parametrize("name", AUTOREGRESSIVE)
def test_a_code_has_influence_on_those_after_it_and_no_others(name: str, space: Codes) -> None:
    p, t = prior(name, space), math.prod(space.shape)
    codes = torch.randint(space.n_codes, (1, t))
    before = p.logits(codes)
    assert before.shape == (1, t, space.n_codes)
    for place in range(t):
        changed = codes.clone()
        changed[0, place] = (codes[0, place] + 1) % space.n_codes
        moved = (p.logits(changed) != before).any(-1)[0]
        assert not moved[: place + 1].any()
        assert moved[place + 1 :].all()


@pytest.mark.parametrize("name", AUTOREGRESSIVE)
def test_the_gradient_is_causal(name: str) -> None:
    """By the vectors of the codes, each position with a code of its own."""
    p = prior(name, Codes((2, 3), 6))
    codes = torch.randperm(6).unsqueeze(0)
    for place in range(6):
        (gradient,) = torch.autograd.grad(p.logits(codes)[0, place].square().sum(), p.code)
        influence = gradient.abs().sum(-1)[codes[0]]
        assert (influence[:place] > 0).all()
        assert (influence[place:] == 0).all()


def test_the_units_are_those_of_torch() -> None:
    p = prior("autoregressive_recurrent", Codes((5,), 4))
    gru = nn.GRU(7, 7, batch_first=True).double()
    with torch.no_grad():
        gru.weight_ih_l0.copy_(p.of_input.weight)
        gru.bias_ih_l0.copy_(p.of_input.bias)
        gru.weight_hh_l0.copy_(p.of_state.weight)
        gru.bias_hh_l0.copy_(p.of_state.bias)
    codes = torch.randint(4, (3, 5))
    before = torch.cat([torch.zeros(3, 1, 7, dtype=torch.float64), p.code[codes[:, :-1]]], dim=1)
    states, _ = gru(before + p.position)
    torch.testing.assert_close(p.logits(codes), p.output(states))


@pytest.mark.parametrize("shape", [(9, 3), (2, 3, 2), (7,)])
def test_sampling_computes_each_place_once_as_if_all_were_known(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    p = prior("autoregressive_convolutional", Codes(shape, 4), layers=2, reach=2)
    seen: list[Tensor] = []

    def watched(logits: Tensor) -> Tensor:
        seen.append(logits)
        return draw(logits)

    monkeypatch.setattr(autoregressive_convolutional, "draw", watched)
    codes = p.sample(5)
    torch.testing.assert_close(torch.stack(seen, 1), p.logits(codes.flatten(1)))


def test_uniform_kl_is_exact_at_every_position() -> None:
    space = Codes((2, 3), 512)
    p = prior("uniform_codes", space)
    codes = torch.randint(512, (4, 2, 3))
    q = Quantized(torch.randn(4, 5, 2, 3, dtype=torch.float64), codes)
    kl = p.exact_kl(q)
    assert kl.shape == (4, 6)
    torch.testing.assert_close(kl, torch.full((4, 6), math.log(512), dtype=torch.float64))
    torch.testing.assert_close(-p.log_prob(codes.unsqueeze(0))[0], kl.sum(-1))
    assert p.exact_kl(OneHotCategorical(torch.zeros(2, 1, 3))) is None


@pytest.mark.parametrize("name", AUTOREGRESSIVE)
def test_every_parameter_is_trained(name: str) -> None:
    p = prior(name, Codes((3, 4), 3))
    p.log_prob(torch.randint(3, (2, 30, 3, 4))).sum().backward()
    for parameter in p.parameters():
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0


@pytest.mark.parametrize("name", NAMES)
def test_full_precision_under_autocast(name: str) -> None:
    p = prior(name, SPACES["map"]).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        log_prob = p.log_prob(every_code(SPACES["map"]).unsqueeze(0))
        codes = p.sample(5)
    assert log_prob.dtype == torch.float32
    assert codes.dtype == torch.int64
    assert float(log_prob.detach().exp().sum()) == pytest.approx(1, rel=1e-4)


def test_a_pattern_is_learned() -> None:
    """Codes of which each is the one before plus one: log 3 nats for the first, nothing for the rest."""
    starts = torch.arange(3).repeat(10)
    codes = ((starts[:, None] + torch.arange(6)) % 3).view(1, 30, 2, 3)
    for p in (AutoregressiveRecurrent(Codes((2, 3), 3), 16), AutoregressiveConvolutional(Codes((2, 3), 3), 16)):
        optimizer = torch.optim.Adam(p.parameters(), lr=0.02)
        for _ in range(60):
            optimizer.zero_grad()
            loss = -p.log_prob(codes).mean()
            loss.backward()
            optimizer.step()
        assert math.log(3) - 1e-3 < float(loss.detach()) < math.log(3) + 0.1


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("autoregressive_recurrent", {"hidden": 0}, "hidden must be at least 1, got 0"),
        ("autoregressive_convolutional", {"channels": 0}, "channels must be at least 1, got 0"),
        ("autoregressive_convolutional", {"layers": 0}, "layers must be at least 1, got 0"),
        ("autoregressive_convolutional", {"reach": 0}, "reach must be at least 1, got 0"),
    ],
)
def test_out_of_range(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        prior(name, SPACES["map"], **settings)
