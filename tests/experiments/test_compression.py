"""Bits-back coding: what is coded is decoded, the stack gets its first bits back, and the length is what it must be."""

import json
import math
from types import SimpleNamespace

import constriction
import numpy as np
import pytest
import torch
from scipy import stats

from attelbo.cli import main
from attelbo.data.loader import spread_rows
from attelbo.errors import ConfigError
from attelbo.experiments.assembly import assemble
from attelbo.experiments.evaluation.compression import BitsBack, evaluate_compression, whole_numbers
from attelbo.experiments.evaluation.conditions import Conditions
from attelbo.experiments.settings import Evaluation
from attelbo.models import load_run

N = 60
WORDS = {
    "bernoulli": ("data.binarize=dynamic",),
    "beta_binomial": ("data.binarize=none", "model/likelihood=beta_binomial"),
    "logistic_mixture": ("data.binarize=none", "model/likelihood=logistic_mixture"),
}


@pytest.fixture(scope="module", params=WORDS)
def trained(request, shared_runs):
    """A small VAE that has learnt a little, its data and 60 test images."""
    words = (f"name={request.param}", "data.train_size=500", "trainer.max_epochs=3", "optimizer.lr=1e-2")
    run = shared_runs.train(*words, *WORDS[request.param]).run_dir
    model, data = load_run(run)
    data.setup()
    return SimpleNamespace(
        run=run, model=model, data=data, x=data.materialize(spread_rows(N, data.n_rows("test")), "test").x
    )


def full_stack(n_words: int = 4000):
    words = np.random.default_rng(0).integers(1, 2**32, n_words, dtype=np.uint32)
    return constriction.stream.stack.AnsCoder(words), words


@torch.inference_mode()
def test_batches_are_decoded_and_the_first_bits_are_recovered(trained):
    coder = BitsBack(trained.model)
    stack, words = full_stack()
    batches = trained.x.split(25)  # the last one is shorter
    for x in batches:
        coder.push(stack, x)
    assert not np.array_equal(stack.get_compressed(), words)
    for x in reversed(batches):
        decoded = coder.pop(stack, len(x))
        assert torch.equal(decoded, coder.levels(x))
        assert torch.equal(decoded.float() / (coder.n_levels - 1), x)
    assert np.array_equal(stack.get_compressed(), words)


@torch.inference_mode()
def test_a_batch_is_as_long_as_its_probabilities_say(trained):
    """The places that are popped are found on a stack that is equal; their probabilities, and those of the pixels,
    come from scipy and from the likelihood itself."""
    model, coder = trained.model, BitsBack(trained.model)
    (stack, _), (twin, _) = full_stack(), full_stack()
    before = stack.num_valid_bits()
    coder.push(stack, trained.x)
    places = twin.decode(constriction.stream.model.Categorical(perfect=False), coder._posterior(trained.x, None))
    q = model.infer(trained.x)
    edges = stats.norm.ppf(np.arange(257) / 256)
    cdf = stats.norm.cdf(edges, q.mean.double().numpy()[..., None], q.std.double().numpy()[..., None])
    masses = np.diff(np.rint(cdf * 2**14)).reshape(-1, 256) / 2**14
    z = torch.tensor(stats.norm.ppf((places + 0.5) / 256), dtype=torch.float32).view(1, N, -1)
    log_p = float(model.likelihood.log_prob(model.decode(z), trained.x).double().sum())
    expected = -log_p / math.log(2) + 8 * len(places) + np.log2(masses[np.arange(len(places)), places]).sum()
    grown = stack.num_valid_bits() - before
    # Rounding to whole numbers takes up to 255 of 2^14 from a pixel that is certain, 1 of 2^12 if it is binary.
    most = trained.x.numel() * (1.2 / 2**12 if coder.n_levels == 2 else 256 / 2**14) / math.log(2)
    assert -0.002 * expected < grown - expected < most + 64


def test_the_length_is_near_the_elbo(trained):
    settings = Evaluation(n_samples=1, n_images=N, batch_size=20, chunk=None, checkpoint="best")
    numbers = evaluate_compression(trained.model, trained.data, Conditions("test", settings))
    with torch.no_grad():
        elbos = torch.stack([trained.model.evidence(trained.x).elbo for _ in range(20)])
    bits = -float(elbos.mean()) / (64 * math.log(2))
    noise = float(elbos.std(0).mean()) / math.sqrt(N) / (64 * math.log(2))
    coded = numbers["test/coded_bits_per_dim"]
    overhead = 0.001 if trained.model.likelihood.n_levels == 2 else 256 / 2**14 / math.log(2)
    assert bits - 4 * noise < coded < bits + overhead + 4 * noise
    assert numbers["test/coding_overhead"] == pytest.approx(100 * (coded / bits - 1), abs=400 * noise / bits)
    with torch.no_grad():
        q = trained.model.infer(trained.x[:20])
    entropy = 0.5 * math.log(2 * math.pi * math.e) * q.mean.numel() + float(q.log_std.sum())
    # On a grid whose bins are 2^-8 of the prior: 8 bits, and the expectation of log2 of the prior's density.
    density = stats.norm.logpdf(q.mean.numpy()).sum() - float(q.std.square().sum()) / 2
    expected = 8 * q.mean.numel() + (entropy + density) / math.log(2)
    assert numbers["test/initial_bits"] == pytest.approx(expected, rel=0.05)


def test_a_run_and_a_command_say_it(trained, capsys):
    assert main(["evaluate", str(trained.run), "compress=true", "n_samples=2", "n_images=20", "accelerator=cpu"]) == 0
    assert "by bits-back coding, decoded again" in capsys.readouterr().out
    metrics = json.loads((trained.run / "evaluation-test.json").read_text())["metrics"]
    assert {"test/coded_bits_per_dim", "test/coding_overhead", "test/initial_bits"} <= metrics.keys()


def test_a_training_ends_with_it(runs):
    run = runs.train("trainer.max_epochs=1", "evaluation.compress=true", "data.binarize=dynamic").run_dir
    assert "test/coded_bits_per_dim" in json.loads((run / "result.json").read_text())["metrics"]


@pytest.mark.parametrize(
    "words",
    [
        ("model/prior=mixture_of_gaussians",),
        ("model/posterior=full_normal",),
        ("data.binarize=none", "model/likelihood=normal"),
    ],
)
def test_what_cannot_be_coded_is_told_before_the_training(runs, words):
    with pytest.raises(Exception, match="compress=true: bits-back coding here is for images and a VAE"):
        assemble(runs.configure("evaluation.compress=true", *words))


def test_images_whose_label_would_be_given_for_free_are_not_coded(runs):
    with pytest.raises(ConfigError, match="compress=true: M2 sums over labels"):
        assemble(runs.configure("evaluation.compress=true", "model=m2"))


@pytest.mark.parametrize("bits", [8, 12, 14])
def test_whole_numbers_are_positive_and_add_up(bits):
    torch.manual_seed(0)
    p = torch.cat([torch.randn(50, 200).mul(20).softmax(-1), torch.eye(200)[:3], torch.full((1, 200), 1 / 200)])
    rounded = whole_numbers(p.clone(), bits)
    counts = rounded.double() * 2**bits
    assert torch.equal(counts, counts.round())
    assert counts.min() >= 1
    assert torch.equal(counts.sum(-1), torch.full((54,), 2.0**bits, dtype=torch.float64))
    # At the worst, what all levels keep is taken from one that is certain; and each is off by one at most.
    overhead = (p.double() * (p / rounded).double().clamp(min=1e-30).log2()).sum(-1)
    assert float(overhead.max()) < -math.log2(1 - 199 / 2**bits) + 200 / 2**bits
