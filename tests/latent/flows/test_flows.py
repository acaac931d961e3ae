"""Each flow against Jacobians by automatic differentiation, areas, and the order of what it may see."""

from collections.abc import Callable

import latent_contract as contract
import pytest
import torch
from torch import Tensor

from attelbo.latent.flows import (
    AffineCoupling,
    Chain,
    Flow,
    InverseAutoregressive,
    MaskedAutoregressive,
    MaskedNetwork,
    Planar,
    Radial,
    Sylvester,
)
from attelbo.latent.flows.base import Frozen
from attelbo.latent.flows.sylvester import orthogonal

FLOWS: dict[str, Callable[[int], Flow]] = {
    "planar": Planar,
    "radial": Radial,
    "sylvester": lambda dim: Sylvester(dim, n_reflections=3),
    "iaf": lambda dim: InverseAutoregressive(dim, (8, 7)),
    "iaf, reversed": lambda dim: InverseAutoregressive(dim, (8,), reverse=True),
    "maf": lambda dim: MaskedAutoregressive(dim, (8, 7)),
    "maf, reversed": lambda dim: MaskedAutoregressive(dim, (8,), reverse=True),
    "coupling": lambda dim: AffineCoupling(dim, (8, 7)),
    "coupling, swapped": lambda dim: AffineCoupling(dim, (8,), swap=True),
    "chain": lambda dim: Chain(2, lambda place: Radial(dim) if place else InverseAutoregressive(dim, (8,))),
}
INVERTIBLE = [name for name in FLOWS if name not in ("planar", "sylvester")]
NETWORKS = [name for name in FLOWS if name not in ("planar", "radial", "sylvester")]


def flow(name: str, dim: int = 5) -> Flow:
    made = FLOWS[name](dim).double()
    contract.randomize(made, scale=0.7)
    return made


def given(f: Flow, batch: int) -> Tensor:
    return torch.randn(batch, f.n_given, dtype=torch.float64)


def points(n: int = 3, batch: int = 2, dim: int = 5) -> Tensor:
    return 2 * torch.randn(n, batch, dim, dtype=torch.float64)


def jacobians(function: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], z: Tensor, own: Tensor) -> Tensor:
    """d function(z) / dz of each point by itself, (n, B, D, D)."""
    of_one = torch.func.jacrev(lambda z, own: function(z.view(1, 1, -1), own.view(1, -1))[0].flatten())
    return torch.stack([torch.stack([of_one(z[n, b], own[b]) for b in range(z.shape[1])]) for n in range(len(z))])


@pytest.mark.parametrize("name", FLOWS)
@pytest.mark.parametrize("dim", [2, 5])
def test_log_determinant_is_that_of_the_jacobian(name: str, dim: int) -> None:
    f, z = flow(name, dim), points(dim=dim)
    own = given(f, 2)
    _, log_det = f(z, own)
    sign, expected = torch.linalg.slogdet(jacobians(f, z, own))
    assert (sign == 1).all()  # none of them turns the space over
    torch.testing.assert_close(log_det, expected)


@pytest.mark.parametrize("name", INVERTIBLE)
def test_inverse_goes_back(name: str) -> None:
    f, z = flow(name), points()
    own = given(f, 2)
    moved, log_det = f(z, own)
    assert (moved - z).abs().max() > 0.1
    back, inverse_log_det = f.inverse(moved, own)
    torch.testing.assert_close(back, z)
    torch.testing.assert_close(inverse_log_det, -log_det)
    # and from a point that no sample was
    origin, _ = f.inverse(z, own)
    torch.testing.assert_close(f(origin, own)[0], z)


@pytest.mark.parametrize("name", [name for name in FLOWS if name not in INVERTIBLE])
def test_what_cannot_be_inverted_says_so(name: str) -> None:
    f = flow(name)
    with pytest.raises(NotImplementedError, match=rf"^{type(f).__name__} has no inverse in closed form"):
        f.inverse(points(), given(f, 2))


@pytest.mark.parametrize("name", ["planar", "radial"])
@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_parameters_out_of_range_leave_it_invertible(name: str, scale: float) -> None:
    # Monotone on a line: of 100 sets of parameters, many of which would fold it without the constraint.
    f = FLOWS[name](1).double()
    z = torch.linspace(-10, 10, 4001, dtype=torch.float64).view(-1, 1, 1).expand(-1, 100, -1)
    moved, log_det = f(z, scale * given(f, 100))
    assert (moved.diff(dim=0) > 0).all()
    assert log_det.isfinite().all()


@pytest.mark.parametrize("name", FLOWS)
def test_rows_do_not_see_each_other(name: str) -> None:
    f = flow(name)
    z, own = points().requires_grad_(), given(f, 2).requires_grad_()
    moved, log_det = f(z, own)
    (moved.sum(-1) + log_det)[0, 0].backward()
    assert z.grad is not None
    assert z.grad[0, 0].abs().sum() > 0
    assert (z.grad.flatten(0, 1)[1:] == 0).all()
    if f.n_given:
        assert own.grad is not None
        assert own.grad[0].abs().sum() > 0
        assert (own.grad[1] == 0).all()


@pytest.mark.parametrize("name", FLOWS)
def test_gradients(name: str) -> None:
    f = flow(name, 3)
    parameters = tuple(f.parameters())
    z, own = points(dim=3).requires_grad_(), given(f, 2).requires_grad_()
    inputs = (z, own, *parameters)
    assert torch.autograd.gradcheck(lambda z, own, *_: f(z, own), inputs, fast_mode=True)
    if name in INVERTIBLE:
        assert torch.autograd.gradcheck(lambda z, own, *_: f.inverse(z, own), inputs, fast_mode=True)


@pytest.mark.parametrize("name", NETWORKS)
def test_frozen_it_is_the_same_but_for_the_gradients_of_its_parameters(name: str) -> None:
    f, z = flow(name), points().requires_grad_()
    own = given(f, 2)
    for ours, theirs in ((Frozen(f), f), (Frozen(f).inverse, f.inverse)):
        moved, log_det = ours(z, own)
        torch.testing.assert_close((moved, log_det), theirs(z, own))
        (moved.sum() + log_det.sum()).backward()
    assert z.grad is not None
    assert all(parameter.grad is None for parameter in f.parameters())


@pytest.mark.parametrize("name", ["maf", "maf, reversed", "coupling", "coupling, swapped"])
def test_priors_flows_start_as_the_identity(name: str) -> None:
    f, z = FLOWS[name](5).double(), points()
    moved, log_det = f(z, given(f, 2))
    torch.testing.assert_close(moved, z)
    assert (log_det == 0).all()


# -- what is special about one of them -----------------------------------------------------------------


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("hidden", [(16,), (16, 9), (2,)])
def test_an_output_sees_the_inputs_before_it(hidden: tuple[int, ...], reverse: bool) -> None:
    network = MaskedNetwork(5, hidden, reverse).double()
    contract.randomize(network)
    for output in range(2):
        jacobian = torch.func.jacrev(lambda z, output=output: network(z)[output])(points()[0, 0])
        jacobian = jacobian.flip(0, 1) if reverse else jacobian
        assert (jacobian.triu() == 0).all()
        if min(hidden) >= 5:
            assert (jacobian.tril(-1).abs() + torch.ones(5, 5).triu() > 0).all()


def test_a_context_reaches_every_output() -> None:
    network = MaskedNetwork(5, (16, 9)).double()
    contract.randomize(network)
    z, context = points()[0, 0], torch.randn(16, dtype=torch.float64)
    for output in range(2):
        jacobian = torch.func.jacrev(lambda context, output=output: network(z, context)[output])(context)
        assert (jacobian.abs().sum(1) > 0).all()


def test_an_inverse_autoregressive_flow_and_a_masked_one_see_the_dimensions_before() -> None:
    for name in ("iaf", "maf"):
        f, z = flow(name), points(1, 1)
        own = given(f, 1)
        for function in (f, f.inverse):
            jacobian = jacobians(function, z, own)[0, 0]
            assert (jacobian.triu(1) == 0).all()
            assert (jacobian.diagonal() > 0).all()
        reversed_flow = flow(f"{name}, reversed")
        assert (jacobians(reversed_flow, z, given(reversed_flow, 1))[0, 0].tril(-1) == 0).all()


def test_an_inverse_autoregressive_flow_moves_between_z_and_m() -> None:
    """Kingma et al. 2016, eq. 14: sigma z + (1 - sigma) m, with sigma the sigmoid of the gate, but 1/20 at least."""
    f, z = flow("iaf"), points()
    own = given(f, 2)
    m, gate = f.network(z, own)
    sigma = (3 * (gate.sigmoid().log() / 3).tanh()).exp()
    torch.testing.assert_close(f(z, own)[0], sigma * z + (1 - sigma) * m)


@pytest.mark.parametrize("sign", [-1, 1])
def test_closed_and_open_gates_are_inverted_in_single_precision(sign: int) -> None:
    f, z = InverseAutoregressive(5, (8,)), points().float()
    contract.randomize(f, scale=0.1)
    with torch.no_grad():
        f.network.output.bias[5:].fill_(sign * 50.0)
    own = given(f, 2).float()
    moved, log_det = f(z, own)
    torch.testing.assert_close(log_det.double(), torch.full((3, 2), -15.0 if sign < 0 else 0.0).double())
    back, inverse_log_det = f.inverse(moved, own)
    torch.testing.assert_close(back, z, rtol=1e-4, atol=1e-4)  # 20 times the rounding of moved, a few times over
    torch.testing.assert_close(inverse_log_det, -log_det)


@pytest.mark.parametrize(("dim", "n_reflections"), [(4, 1), (4, 4), (4, 9), (1, 2)])
def test_reflections_all_at_once_are_those_one_after_the_other(dim: int, n_reflections: int) -> None:
    vectors = torch.randn(3, dim, n_reflections, dtype=torch.float64)
    expected = torch.eye(dim, dtype=torch.float64).expand(3, -1, -1)
    for v in vectors.unbind(-1):
        outer = v.unsqueeze(2) * v.unsqueeze(1) / v.square().sum(-1).view(-1, 1, 1)
        expected = expected @ (torch.eye(dim, dtype=torch.float64) - 2 * outer)
    q = orthogonal(vectors)
    torch.testing.assert_close(q, expected)
    torch.testing.assert_close(q @ q.mT, torch.eye(dim, dtype=torch.float64).expand(3, -1, -1))


def test_the_radial_flow_in_one_dimension_is_that_of_the_paper() -> None:
    # alpha = gamma leaves everything where it is; gamma > alpha pushes away from the center, less the farther.
    f = Radial(1).double()
    z = torch.tensor([[[3.0]], [[103.0]]], dtype=torch.float64)
    same, _ = f(z, torch.tensor([[2.0, 0.5, 0.5]], dtype=torch.float64))
    torch.testing.assert_close(same, z)
    alpha, gamma = (torch.tensor(value, dtype=torch.float64).exp().log1p() for value in (0.5, 4.0))
    pushed, _ = f(z, torch.tensor([[2.0, 0.5, 4.0]], dtype=torch.float64))
    torch.testing.assert_close(pushed - z, (gamma - alpha) / (alpha + z - 2) * (z - 2))


@pytest.mark.parametrize("name", NETWORKS)
def test_no_hidden_layer_is_refused(name: str) -> None:
    kind = type(FLOWS[name](3))
    if kind is Chain:
        with pytest.raises(ValueError, match=r"^n_flows must be at least 1, got 0"):
            Chain(0, lambda _: Planar(2))
        return
    for hidden in ((), (0,), (3, 0)):
        with pytest.raises(ValueError, match=r"^hidden must name at least one layer"):
            kind(3, hidden)  # pyright: ignore[reportCallIssue]


def test_a_coupling_of_one_dimension_and_no_reflection_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^a coupling takes latents of at least 2 dimensions, got 1"):
        AffineCoupling(1, (8,))
    with pytest.raises(ValueError, match=r"^n_reflections must be at least 1, got 0"):
        Sylvester(2, n_reflections=0)
