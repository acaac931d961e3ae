"""The engine that replays recorded steps: on a CPU with a recorder that calls the function again, on a GPU with
CUDA graphs."""

from contextlib import nullcontext

import pytest
import torch
from lightning.pytorch import Callback

from attelbo.building import build
from attelbo.errors import ConfigError
from attelbo.experiments import run
from attelbo.models import VariationalAutoencoder
from attelbo.training import graphs, stepping
from attelbo.training.graphs import GraphEngine
from attelbo.training.replicas import Group

WORDS = ("scheduler=cosine", "data.train_size=95", "optimizer.lr=0.01")  # minibatches of 10, and one of 5
CODES = (
    "model/posterior=vector_quantized",
    "model.posterior.n_codes=8",
    "model.posterior.restart_below=0.3",
    "model/prior=autoregressive_recurrent",
    "model.prior.hidden=8",
)  # a codebook moves in buffers, by noise too


class CallAgain:
    """Replays by calling the function again, which reads and writes the same addresses, as a graph would."""

    recorded = 0

    def aside(self):
        return nullcontext()

    def record(self, function, generators):
        type(self).recorded += 1
        return function


class FailsToRecord(CallAgain):
    def record(self, function, generators):
        function()  # comes as far as the gradients
        raise RuntimeError("operation not permitted when stream is capturing\nmore lines")


def weights(trainer):
    return weights_of(trainer.lightning_module)


def weights_of(model):
    """What was learned: parameters, and what a codebook has in buffers."""
    learned = [*model.parameters(), *model.posterior.buffers()]
    return torch.cat([tensor.detach().flatten() for tensor in learned])


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """Graphs are chosen as on a GPU, with another recorder; the engines that were made."""
    made = []
    monkeypatch.setattr(stepping, "_can_use_graphs", lambda trainer: True)

    def use(recorder):
        monkeypatch.setattr(graphs, "CudaRecorder", recorder)
        init = GraphEngine.__init__
        monkeypatch.setattr(
            GraphEngine, "__init__", lambda self, *args, **named: (made.append(self), init(self, *args, **named))[1]
        )
        return made

    return use


@pytest.mark.parametrize("latents", [(), CODES], ids=["normal", "codes"])
def test_replayed_steps_are_the_steps(runs, as_on_a_gpu, latents):
    words = (*WORDS, *latents)
    eager = runs.fit(*words, "trainer.cuda_graphs=false")
    made = as_on_a_gpu(CallAgain)
    CallAgain.recorded = 0
    replayed = runs.fit(*words, "trainer.cuda_graphs=true")
    assert len(made) == 1
    assert CallAgain.recorded == 2  # one for each size of minibatch
    # The learning rate goes through a float32 on the device.
    torch.testing.assert_close(weights(replayed), weights(eager), rtol=1e-4, atol=1e-6)
    assert replayed.lightning_module.stepper.terms == eager.lightning_module.stepper.terms
    torch.testing.assert_close(
        replayed.lightning_module.stepper.block_values,
        eager.lightning_module.stepper.block_values,
        rtol=1e-4,
        atol=1e-4,
    )
    assert replayed.global_step == eager.global_step == 20


def test_what_cannot_be_recorded_is_trained_without_and_said(runs, as_on_a_gpu, capsys):
    as_on_a_gpu(FailsToRecord)
    with pytest.raises(
        ConfigError, match=r"trainer\.cuda_graphs=true: .* cannot be captured \(operation not permitted"
    ):
        runs.fit(*WORDS, "trainer.cuda_graphs=true")
    trained = runs.fit(*WORDS, "trainer.cuda_graphs=auto")
    assert "goes on without CUDA graphs (operation not permitted when stream is capturing)" in capsys.readouterr().err
    assert trained.global_step == 20
    assert all(parameter.grad is None for parameter in trained.lightning_module.parameters())
    assert weights(trained).isfinite().all()


def test_an_optimizer_whose_step_is_not_on_the_device_is_not_recorded(runs, as_on_a_gpu, capsys):
    words = ("data.train_size=95", "optimizer=sgd")
    eager = runs.fit(*words, "trainer.cuda_graphs=false")
    as_on_a_gpu(CallAgain)
    assert torch.equal(weights(runs.fit(*words)), weights(eager))
    assert "the optimizer is not a fused Adam" in capsys.readouterr().err


def test_a_replay_that_computes_something_else_is_an_error(runs, as_on_a_gpu):
    class Stale(CallAgain):
        """What was on the host when the step was recorded stays as it was."""

        def record(self, function, generators):
            def stale():
                function()
                made[0]._places.values += 1

            return stale

    made = as_on_a_gpu(Stale)
    with pytest.raises(ConfigError, match=r"trainer\.cuda_graphs: a replayed step has the loss .*cuda_graphs=false"):
        runs.fit(*WORDS)


@pytest.mark.parametrize("latents", [(), CODES], ids=["normal", "codes"])
def test_parts_of_a_minibatch_are_compared_as_they_are_drawn(runs, as_on_a_gpu, latents):
    """The loss that a replay is compared with has the noise of the step: part by part."""
    words = (*WORDS, *latents, "trainer.micro_batches=3")
    eager = runs.fit(*words, "trainer.cuda_graphs=false")
    as_on_a_gpu(CallAgain)
    torch.testing.assert_close(weights(runs.fit(*words)), weights(eager), rtol=1e-4, atol=1e-6)


# -- replicas -------------------------------------------------------------------------------------------


def fit_together(runs, *words, numbers, stack=True):
    """The weights of replicas that differ in some words, trained in one process."""

    def fit(own, seat):
        config = runs.configure("callbacks=none", *words, *own)
        model, data = run.assemble(config)
        given = {"run_dir": runs.folder, "seed": config["seed"], "callbacks": {}, "seat": seat}
        seat.gather()
        build(config["trainer"], **given).fit(model, datamodule=data)
        seat.rest()
        return weights_of(model)

    jobs = [lambda seat, own=own: fit(own, seat) for own in numbers]
    ends = Group(len(numbers), stack).run(jobs)
    return [end for end in ends if isinstance(end, torch.Tensor) or raise_(end)]


def raise_(error):
    raise error


SEEDS = [("seed=0",), ("seed=1",), ("seed=2",)]
RATES = [("optimizer.lr=0.01",), ("optimizer.lr=0.01",), ("optimizer.lr=0.003",)]


@pytest.mark.parametrize("latents", [(), CODES], ids=["normal", "codes"])
@pytest.mark.parametrize("numbers", [SEEDS, RATES])
def test_replayed_steps_of_replicas_are_those_of_each_alone(runs, as_on_a_gpu, numbers, latents):
    words = (*WORDS, *latents)
    separate = [weights(runs.fit(*words, *own, "trainer.cuda_graphs=false")) for own in numbers]
    made = as_on_a_gpu(CallAgain)
    CallAgain.recorded = 0
    together = fit_together(runs, *words, "trainer.cuda_graphs=true", numbers=numbers)
    assert len(made) == 4  # of each alone, which has nothing to do, and of all
    # For each size of minibatch, and once more when the cosine has brought different rates to zero.
    assert CallAgain.recorded in (2, 3)
    for own, expected in zip(together, separate, strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-3, atol=1e-5)


def test_what_was_recorded_before_parameters_moved_is_recorded_again(runs, as_on_a_gpu):
    """As when models are stacked after steps that each has taken alone."""

    class Moves(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            for parameter in pl_module.parameters():
                parameter.data = parameter.data.clone()

    as_on_a_gpu(CallAgain)
    CallAgain.recorded = 0
    runs.fit(*WORDS, callbacks=(Moves(),))
    assert CallAgain.recorded == 4  # two sizes of minibatch in each of two epochs


GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")


@GPU
def test_a_gpu_goes_on_after_a_step_that_cannot_be_captured(runs, monkeypatch, capsys):
    words = (*WORDS, "trainer.accelerator=gpu")
    eager = weights(runs.fit(*words, "trainer.cuda_graphs=false"))
    losses = VariationalAutoencoder.losses

    def waits(self, batch):
        terms = losses(self, batch)
        terms["loss"].item()
        return terms

    with monkeypatch.context() as patch:
        patch.setattr(VariationalAutoencoder, "losses", waits)
        torch.testing.assert_close(weights(runs.fit(*words)), eager, rtol=1e-4, atol=1e-5)
    assert "goes on without CUDA graphs" in capsys.readouterr().err
    torch.testing.assert_close(weights(runs.fit(*words)), eager, rtol=1e-3, atol=1e-4)
    assert "goes on without" not in capsys.readouterr().err


@GPU
@pytest.mark.parametrize("numbers", [SEEDS, RATES])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_stacked_cuda_graphs_draw_and_step_as_each_alone(runs, numbers, precision):
    words = (*WORDS, "trainer.accelerator=gpu", f"trainer.precision={precision}")
    separate = [weights(runs.fit(*words, *own, "trainer.cuda_graphs=false")) for own in numbers]
    together = fit_together(runs, *words, "trainer.cuda_graphs=true", numbers=numbers)
    tolerance = 1e-3 if precision == "32-true" else 2e-2
    for own, expected in zip(together, separate, strict=True):
        torch.testing.assert_close(own, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_graphs_are_refused_where_there_is_no_gpu(runs):
    with pytest.raises(ConfigError, match=r"trainer\.cuda_graphs=true takes one GPU"):
        runs.fit("trainer.cuda_graphs=true")


@GPU
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("parts", ["mlp", "conv", "codes"])
def test_cuda_graphs_give_the_losses_of_the_plain_path(runs, precision, parts):
    words = (*WORDS, "trainer.accelerator=gpu", f"trainer.precision={precision}")
    without = ()
    if parts == "codes":
        words += CODES
    if parts == "conv":
        words += ("model/encoder=conv", "model/decoder=conv")
        without = ("model.encoder.hidden=[8]", "model.decoder.hidden=[8]")
    eager = runs.fit(*words, "trainer.cuda_graphs=false", without=without)
    replayed = runs.fit(*words, "trainer.cuda_graphs=true", without=without)
    torch.testing.assert_close(weights(replayed), weights(eager), rtol=1e-3, atol=1e-4)
