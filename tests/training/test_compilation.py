"""Compiled losses: the same numbers, one graph, and what happens where it cannot be done."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters

from attelbo.data.batch import Batch, DataSpec
from attelbo.errors import ConfigError
from attelbo.latent.posteriors import PlanarPosterior
from attelbo.models import VariationalAutoencoder, build_vae
from attelbo.training import compilation
from attelbo.training.compilation import CompiledLosses, compiler_missing, steps_to_pay
from compilers import needs_a_compiler

CPU = torch.device("cpu")
PARTS = {
    "mlp": {"hidden": [5], "activation": "tanh"},
    "conv": {"channels": [9], "activation": "relu", "attention_at": [], "heads": 1},
    "resnet": {"channels": [4, 4], "groups": 2, "activation": "silu", "attention_at": [], "heads": 1},
}


def make(
    network: str, likelihood: str = "Bernoulli", attention_at: Sequence[int] = (), **objective: Any
) -> VariationalAutoencoder:
    torch.manual_seed(0)
    name = {"mlp": "MLP", "conv": "Conv", "resnet": "ResNet"}[network]
    part = PARTS[network] | ({"attention_at": attention_at} if attention_at else {})
    return build_vae(
        DataSpec("made up", (1, 4, 4), "binary"),
        encoder={"_target_": f"attelbo.networks.{name}Encoder", **part},
        decoder={"_target_": f"attelbo.networks.{name}Decoder", **part},
        posterior={"_target_": "attelbo.latent.DiagonalNormalPosterior"},
        prior={"_target_": "attelbo.latent.StandardNormal"},
        likelihood={"_target_": f"attelbo.latent.{likelihood}"},
        objective={"_target_": "attelbo.latent.ELBO", **objective},
        latent_dim=2,
        optimizer={"_target_": "torch.optim.Adam", "lr": 1e-2, "fused": True},
        scheduler={"_target_": "attelbo.models.schedulers.Constant"},
    )


def batch(rows: int = 6) -> Batch:
    return Batch(torch.arange(rows * 16).remainder(3).gt(0).float().view(rows, 1, 4, 4), None, torch.arange(rows))


def losses_and_gradients(model: VariationalAutoencoder, losses: Any, given: Batch) -> list[Tensor]:
    """All terms, and the gradient by every parameter, with the same noise each time."""
    torch.manual_seed(7)
    terms = losses(given)
    assert list(terms) == ["loss", "elbo", "reconstruction", "kl"]
    return [*terms.values(), *torch.autograd.grad(terms["loss"], list(model.parameters()))]


@pytest.fixture
def graphs() -> Iterator[Any]:
    """How many graphs were made, when called."""
    counters.clear()
    yield lambda: counters["stats"]["unique_graphs"]
    torch._dynamo.reset()


def assert_same(model: VariationalAutoencoder, compiled: Any, given: Batch) -> None:
    """Within the rounding of float32: sums over 16 pixels are taken in another order."""
    mine, eager = (losses_and_gradients(model, losses, given) for losses in (compiled, model.losses))
    torch.testing.assert_close(mine, eager, rtol=2e-5, atol=1e-6)


@needs_a_compiler
@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_compiled_losses_are_the_losses_from_one_graph(network: str, graphs: Any) -> None:
    model = make(network, weight={"_target_": "attelbo.latent.schedules.Linear"})
    compiled = CompiledLosses(model.losses, 6, required=True)
    assert_same(model, compiled, batch(rows=4))  # a run may go on with the short minibatch at the end of an epoch
    assert graphs() == 0
    for step in (0, 3, 9):  # the weight of the KL moves
        model.at_step(step, 10)
        assert_same(model, compiled, batch())
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(0.9)
    assert graphs() == 1
    assert_same(model, compiled, batch(rows=4))
    assert graphs() == 1


def test_a_flow_posterior_becomes_one_graph() -> None:
    """The class of the distribution that it makes is known to whoever traces it."""
    posterior = PlanarPosterior((5,), latent_dim=3)
    h = torch.linspace(-1, 1, 10).view(2, 5)
    traced = torch.compile(lambda h: posterior(h).mean, backend="eager", fullgraph=True)(h)
    assert torch.equal(traced, posterior(h).mean)
    torch._dynamo.reset()


@needs_a_compiler
@pytest.mark.skipif(not compilation._HAS_ISOLATION, reason="this torch gives models of the same code the same graph")
def test_the_next_model_has_a_graph_of_its_own(graphs: Any) -> None:
    """The jobs of a sweep share code and process."""
    for factor in (1, 2):
        model = make("mlp")
        with torch.no_grad():
            next(model.posterior.parameters()).mul_(factor)
        compiled = CompiledLosses(model.losses, 6, required=True)
        assert_same(model, compiled, batch())
        assert_same(model, compiled, batch())
    assert graphs() == 2


class Stubborn:
    """Losses that nothing can compile: what is computed depends on a value."""

    def __init__(self) -> None:
        self.weight = torch.nn.Parameter(torch.ones(()))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        noise = torch.randn(())
        return {"loss": self.weight * noise if noise > 0 else -self.weight * batch.x.sum()}


def test_what_cannot_be_compiled_is_run(capsys: pytest.CaptureFixture[str]) -> None:
    model = Stubborn()
    losses = CompiledLosses(model.losses, 6, required=False)
    for _ in range(2):
        torch.manual_seed(7)
        value = losses(batch())["loss"]
        torch.manual_seed(7)
        assert torch.equal(value, model.losses(batch())["loss"])
    before, told = capsys.readouterr().err.splitlines()
    assert before.startswith("the losses are compiled, once, before the first step")
    assert told.startswith("trainer.compile=auto: not compiled: ")
    torch._dynamo.reset()


def test_what_must_be_compiled_and_cannot_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"^trainer\.compile=true: .*; trainer\.compile=false runs it$"):
        CompiledLosses(Stubborn().losses, 6, required=True)(batch())
    torch._dynamo.reset()


def test_when_it_pays() -> None:
    gpu, soon, late, never = torch.device("cuda"), compilation.STEPS_TO_PAY, compilation.LONG, math.inf
    assert steps_to_pay(make("conv", likelihood="DiscretizedLogistic"), CPU) == soon
    assert steps_to_pay(make("conv", attention_at=[2]), CPU) == soon
    assert steps_to_pay(make("resnet", attention_at=[2]), CPU) == never
    assert steps_to_pay(make("conv"), CPU) == never
    assert steps_to_pay(nn.Sequential(nn.Linear(2, 2), nn.GRUCell(2, 2)), CPU) == never
    assert [steps_to_pay(make("mlp"), device) for device in (CPU, gpu)] == [late, late]
    assert [steps_to_pay(make(network), gpu) for network in ("conv", "resnet")] == [late, never]


def test_what_compiling_takes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert compiler_missing(CPU) == "there is no C++ compiler no-such-compiler"
    monkeypatch.setenv("CXX", "ls")
    monkeypatch.setattr(compilation.sysconfig, "get_path", lambda _: str(tmp_path))
    assert compiler_missing(CPU) == f"Python's own header is missing: {tmp_path / 'Python.h'}"
    (tmp_path / "Python.h").touch()
    assert compiler_missing(CPU) is None
