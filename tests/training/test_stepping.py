"""The block stepper against loops written by hand and against Lightning's own, bit for bit where the noise is equal."""

import math
from itertools import pairwise

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import nn

from attelbo.data.loader import training_order
from attelbo.errors import ConfigError
from attelbo.experiments import run
from attelbo.latent.distributions import DiagonalNormal
from attelbo.models import Model
from attelbo.models.schedulers import Cosine
from attelbo.seeding import derive_seed
from attelbo.training import BlockStepper
from equal_runs import same

ROWS, BATCH, EPOCHS = 100, 10, 2
STEPS = EPOCHS * ROWS // BATCH


def parameters(model: nn.Module) -> torch.Tensor:
    return nn.utils.parameters_to_vector(model.parameters()).detach()


def plain_loop(config, optimizer_class=torch.optim.Adam, steps=STEPS, **options) -> torch.Tensor:
    """The training as one would write it without any framework."""
    model, data = run.assemble(config)
    optimizer = optimizer_class(model.parameters(), **options)
    step = 0
    for epoch in range(math.ceil(steps * BATCH / ROWS)):
        order = training_order(ROWS, config["seed"], epoch)
        for rows in order.split(BATCH):
            if step == steps:
                break
            torch.manual_seed(derive_seed(config["seed"], "step", step, 0))
            optimizer.zero_grad()
            model.losses(data.materialize(rows, "train"))["loss"].backward()
            optimizer.step()
            step += 1
    return parameters(model)


@pytest.mark.parametrize("fused", [True, False])
def test_equals_the_plain_loop(runs, fused):
    trainer = runs.fit(f"optimizer.fused={fused}", "optimizer.lr=0.01")
    expected = plain_loop(runs.configure(), lr=0.01, fused=fused)
    assert trainer.lightning_module.stepper.step == STEPS
    assert torch.equal(parameters(trainer.lightning_module), expected)
    assert not torch.equal(expected, plain_loop(runs.configure(), lr=0.01, fused=fused, steps=STEPS - 1))


OTHERS = {
    "sgd": (torch.optim.SGD, {"lr": 1e-3, "momentum": 0.9, "nesterov": True}),
    "radam": (torch.optim.RAdam, {"lr": 1e-3, "decoupled_weight_decay": True, "weight_decay": 0.1}),
    "nadam": (torch.optim.NAdam, {"lr": 1e-3, "decoupled_weight_decay": True, "weight_decay": 0.1}),
    "rmsprop": (torch.optim.RMSprop, {"lr": 1e-3, "weight_decay": 0.1, "momentum": 0.5}),
    "adafactor": (torch.optim.Adafactor, {"lr": 1e-2, "weight_decay": 0.1}),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_optimizers_equal_torchs_own_in_the_plain_loop(runs, name):
    """What the file of each says besides is what torch takes by itself."""
    kind, options = OTHERS[name]
    words = [f"optimizer.{key}={value}" for key, value in options.items()]
    trainer = runs.fit(f"optimizer={name}", *words)
    expected = plain_loop(runs.configure(), kind, **options)
    assert torch.equal(parameters(trainer.lightning_module), expected)
    assert expected.isfinite().all()


@pytest.mark.parametrize("name", [*OTHERS, "muon"])
def test_other_optimizers_are_stored_and_go_on_bit_for_bit(runs, name):
    whole = runs.checkpoint(runs.train(f"optimizer={name}"))
    first = runs.train(f"optimizer={name}", "trainer.max_epochs=1", "name=first")
    rest = runs.train(f"optimizer={name}", f"ckpt={first.run_dir / 'checkpoints' / 'last.ckpt'}", "name=rest")
    assert same(whole["state_dict"], runs.checkpoint(rest)["state_dict"])
    assert same(whole["optimizer_states"], runs.checkpoint(rest)["optimizer_states"])


class SeedEachStep(Callback):
    """Gives Lightning's own loop the noise of ours."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        torch.default_generator.manual_seed(derive_seed(0, "step", trainer.global_step, 0))


def plain_trainer(runs, epochs: int = EPOCHS, **settings) -> Trainer:
    return Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=runs.folder,
        **settings,
    )


@pytest.mark.parametrize(
    "words", [(), ("model=gpt",), ("model/posterior=vector_quantized", "model/prior=uniform_codes")]
)
def test_a_model_is_validated_trained_and_tested_by_a_plain_trainer(runs, words):
    model, data = run.assemble(runs.configure(*words, "data.minibatches_per_block=0"))
    trainer = plain_trainer(runs)
    (before,) = trainer.validate(model, data, verbose=False)
    trainer.fit(model, data)
    (after,) = trainer.validate(model, data, verbose=False)
    assert after["val/loss"] < before["val/loss"]
    (tested,) = trainer.test(model, data, verbose=False)
    assert tested.keys() == {name.replace("val/", "test/") for name in after}


def test_blocks_are_refused_by_a_plain_trainer(runs):
    model, data = run.assemble(runs.configure())
    with pytest.raises(ConfigError, match=r"^data\.minibatches_per_block must be 0 where a Trainer of your own"):
        plain_trainer(runs).fit(model, data)


def test_a_plain_trainer_without_an_end_is_told_that_schedules_need_one(runs):
    model, data = run.assemble(runs.configure("data.minibatches_per_block=0"))
    with pytest.raises(ConfigError, match=r"^a Trainer of your own takes max_epochs or max_steps: schedules"):
        plain_trainer(runs, epochs=-1, max_time="00:00:00:30").fit(model, data)


@pytest.mark.parametrize("scheduler", ["constant", "cosine"])
def test_equals_plain_lightning_with_automatic_optimization(runs, scheduler):
    # Without dynamic binarization, which Lightning's loop draws before any callback can seed it.
    words = ("data.binarize=threshold", f"scheduler={scheduler}", "optimizer.lr=0.01")
    ours = runs.fit(*words).lightning_module

    model, data = run.assemble(runs.configure(*words, "data.minibatches_per_block=0"))
    trainer = plain_trainer(runs, callbacks=[SeedEachStep()])
    trainer.fit(model, datamodule=data)
    assert model.automatic_optimization
    assert trainer.global_step == STEPS
    assert torch.equal(parameters(model), parameters(ours))
    assert trainer.callback_metrics["val/elbo"].isfinite()


def test_the_size_of_a_block_changes_nothing(runs):
    weights = [
        parameters(runs.fit(f"data.minibatches_per_block={size}", "scheduler=cosine").lightning_module)
        for size in (1, 4, 16)
    ]
    assert torch.equal(weights[0], weights[1])
    assert torch.equal(weights[0], weights[2])


def test_the_seed_decides_and_zero_is_a_seed(runs):
    weights = {}
    for seed in (0, 1):
        weights[seed] = parameters(runs.fit(f"seed={seed}").lightning_module)
        torch.manual_seed(99)  # whatever was drawn before
        assert torch.equal(parameters(runs.fit(f"seed={seed}").lightning_module), weights[seed])
    assert not torch.equal(weights[0], weights[1])


# -- what happens to the gradient ----------------------------------------------------------------------


@pytest.fixture
def without_noise(monkeypatch):
    """Every sample of q(z|x) is its mean."""
    monkeypatch.setattr(DiagonalNormal, "rsample", lambda self, n: self.mean.expand(n, *self.mean.shape))


SGD = ("optimizer=sgd", "optimizer.momentum=0.0", "optimizer.nesterov=false", "data.binarize=threshold")


@pytest.mark.usefixtures("without_noise")
@pytest.mark.parametrize("parts", [2, 3, 7])
def test_micro_batches_add_up_to_the_minibatch(runs, parts):
    words = (*SGD, "trainer.max_epochs=1", "data.train_size=97", "data.minibatches_per_block=16")
    whole = runs.fit(*words).lightning_module
    split = runs.fit(*words, f"trainer.micro_batches={parts}").lightning_module
    torch.testing.assert_close(parameters(split), parameters(whole), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(split.stepper.block_values, whole.stepper.block_values, rtol=1e-5, atol=1e-4)
    assert not torch.equal(parameters(split), parameters(run.assemble(runs.configure(*words))[0]))


SENTENCES = ["a", "b a", "c b a d", "d", "a b c d a b", "c c", "b", "d a b c", "a c", "b b b b b"]
SMALL_TEXT = (
    "model.dim=8",
    "model.network.layers=1",
    "model.attention.heads=2",
    "data.batch_size=10",
    "callbacks=none",
)
TEXTS = {
    "translation": (
        *("model=transformer", "data=parallel", "data/tokenizer=words", "data/tokenizer@data.target_tokenizer=words"),
        *("model.dropout=0", "model.network.dropout=0", "model.network.hidden_dropout=0", "model.attention.dropout=0"),
    ),
    "documents": (
        *("model=gpt", "data=text", "data/tokenizer=characters", "data.documents=padded", "data.windows=consecutive"),
        *("data.context=12", r"data.source.separator='\n'"),
    ),
    "prefixes": (
        *("model=gpt", "model.prefix=true", "data=text", "data/tokenizer=characters", "data.windows=consecutive"),
        "data.context=12",
    ),
}


@pytest.mark.parametrize("text", TEXTS)
def test_micro_batches_of_padded_texts_count_by_their_tokens(runs, tmp_path, text):
    for split in ("train", "validation", "test"):
        for side in ("source", "target"):
            file = tmp_path / "parallel" / f"{split}.{side}"
            file.parent.mkdir(exist_ok=True)
            file.write_text("\n".join(SENTENCES) + "\n")
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "input.txt").write_text("\n".join(SENTENCES * 4))
    places = (f"paths.data_dir={tmp_path}", f"paths.output_dir={tmp_path}", "trainer.accelerator=cpu")
    words = ("~experiment", *TEXTS[text], *SMALL_TEXT, *places, *SGD[:3], "optimizer.lr=0.5", "trainer.max_steps=3")
    models = [
        runs.fit_composed(runs.compose([*words, f"trainer.micro_batches={parts}"])).lightning_module for parts in (1, 3)
    ]
    torch.testing.assert_close(parameters(models[1]), parameters(models[0]), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(models[1].stepper.block_values, models[0].stepper.block_values, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("parts", [1, 2])
def test_clipping_limits_the_norm_and_keeps_the_direction(runs, parts):
    words = (*SGD, "optimizer.lr=1.0", "trainer.max_steps=1", f"trainer.micro_batches={parts}")
    start = parameters(run.assemble(runs.configure(*words))[0])
    free = parameters(runs.fit(*words).lightning_module) - start
    clipped = parameters(runs.fit(*words, "trainer.clip_norm=0.5").lightning_module) - start
    loose = parameters(runs.fit(*words, "trainer.clip_norm=1e6").lightning_module) - start
    assert free.norm() > 1
    assert clipped.norm().item() == pytest.approx(0.5, rel=1e-3)
    assert torch.cosine_similarity(free, clipped, dim=0).item() == pytest.approx(1, abs=1e-5)
    assert torch.equal(loose, free)


class ScaledSetup(Callback):
    """What ``trainer.precision=16-mixed`` does on a GPU, on the CPU, where Lightning refuses it."""

    def setup(self, trainer, pl_module, stage):
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)  # pyright: ignore[reportPrivateImportUsage]
        trainer.strategy.precision_plugin = MixedPrecision("16-mixed", "cpu", scaler)


def test_scaled_16_bit_gradients_are_clipped_by_their_true_norm(runs):
    words = (*SGD, "optimizer.fused=false", "optimizer.lr=1.0", "trainer.max_steps=1")
    start = parameters(run.assemble(runs.configure(*words))[0])
    exact = parameters(runs.fit(*words, "trainer.clip_norm=0.5").lightning_module) - start
    scaled = parameters(runs.fit(*words, "trainer.clip_norm=0.5", callbacks=(ScaledSetup(),)).lightning_module) - start
    assert scaled.norm().item() == pytest.approx(0.5, rel=1e-3)
    torch.testing.assert_close(scaled, exact, rtol=0.05, atol=2e-3)
    assert not torch.equal(scaled, exact)  # it was indeed computed in 16 bits


def test_16_bit_gradients_of_a_fused_optimizer_are_not_clipped_silently(runs):
    config = runs.configure()
    model, data = run.assemble(config)
    stepper = BlockStepper(seed=0, clip_norm=1.0)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        callbacks=[ScaledSetup(), stepper],
        enable_checkpointing=False,
        enable_progress_bar=False,
        default_root_dir=runs.folder,
    )
    with pytest.raises(ConfigError, match=r"trainer\.clip_norm: a fused optimizer .* optimizer\.fused=false"):
        trainer.fit(model, datamodule=data)


# -- steps, schedules, limits --------------------------------------------------------------------------


class StepRecorder(Callback):
    """The learning rate that each optimizer step used, and what the model was told about its position."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.positions: list[tuple[int, int]] = []

    def on_train_start(self, trainer, pl_module):
        (optimizer,) = trainer.optimizers
        optimizer.register_step_pre_hook(lambda opt, args, kwargs: self.rates.append(opt.param_groups[0]["lr"]))
        told = pl_module.at_step
        pl_module.at_step = lambda step, total: (self.positions.append((step, total)), told(step, total))


def test_the_schedule_moves_with_every_optimizer_step(runs):
    recorder = StepRecorder()
    words = ("scheduler=cosine", "scheduler.warmup=0.2", "optimizer.lr=0.02")
    trainer = runs.fit(*words, callbacks=(recorder,))
    factor = Cosine(warmup=0.2)
    assert recorder.rates == pytest.approx([0.02 * factor(step, STEPS) for step in range(STEPS)], rel=1e-9)
    assert recorder.positions == [(step, STEPS) for step in range(STEPS)]
    assert trainer.global_step == STEPS


@pytest.mark.parametrize("max_steps", [1, 6, 10, 13])
def test_max_steps_in_the_middle_of_a_block(runs, max_steps):
    recorder = StepRecorder()
    words = (f"trainer.max_steps={max_steps}", "trainer.max_epochs=-1", "scheduler=cosine")
    trainer = runs.fit(*words, callbacks=(recorder,))
    assert trainer.lightning_module.stepper.step == max_steps
    assert trainer.global_step == max_steps
    assert recorder.positions == [(step, max_steps) for step in range(max_steps)]
    unscheduled = runs.fit(*words[:2]).lightning_module
    assert torch.equal(parameters(unscheduled), plain_loop(runs.configure(), steps=max_steps, lr=1e-3, fused=True))


@pytest.mark.parametrize(
    ("words", "steps"),
    [
        (("data.train_size=95",), 20),
        (("data.train_size=95", "data.drop_last=true"), 18),
        (("trainer.limit_train_blocks=1",), 8),
        (("trainer.limit_train_blocks=50",), 20),
        (("trainer.max_steps=25",), 20),
        (("trainer.limit_train_blocks=2", "trainer.max_steps=13"), 13),
    ],
)
def test_the_planned_steps_are_those_that_are_taken(runs, words, steps):
    recorder = StepRecorder()
    stepper = runs.fit(*words, callbacks=(recorder,)).lightning_module.stepper
    assert stepper.total_steps == steps
    assert stepper.step == steps
    assert len(recorder.rates) == steps


def test_blocks_of_no_minibatch_are_refused(runs):
    with pytest.raises(ConfigError, match=r"data\.minibatches_per_block must be at least 1"):
        runs.fit("data.minibatches_per_block=0")


# -- what is logged ------------------------------------------------------------------------------------


class LossRecorder(Callback):
    """Every loss of the training with its number of rows, where the model computes it."""

    def __init__(self) -> None:
        self.epochs: list[list[tuple[int, dict[str, float]]]] = []
        self.means: list[dict[str, float]] = []

    def on_train_start(self, trainer, pl_module: Model):
        computed = pl_module.losses

        def losses(batch):
            terms = computed(batch)
            self.epochs[-1].append((len(batch.x), {name: value.item() for name, value in terms.items()}))
            return terms

        pl_module.losses = losses

    def on_train_epoch_start(self, trainer, pl_module):
        self.epochs.append([])

    def on_train_epoch_end(self, trainer, pl_module):
        logged = trainer.callback_metrics
        self.means.append({name: float(logged[f"train/{name}_epoch"]) for name in pl_module.stepper.terms})


@pytest.mark.parametrize("parts", [1, 2])
def test_epoch_means_are_exact(runs, parts):
    recorder = LossRecorder()
    # The last minibatch has 3 rows: an unweighted mean would be off.
    trainer = runs.fit("data.train_size=93", f"trainer.micro_batches={parts}", callbacks=(recorder,))
    assert trainer.lightning_module.stepper.rows_seen == 2 * 93
    assert len(recorder.means) == EPOCHS
    for losses, means in zip(recorder.epochs, recorder.means, strict=True):
        assert sum(rows for rows, _ in losses) == 93
        assert set(means) == {"loss", "elbo", "reconstruction", "kl"}
        for name, mean in means.items():
            assert mean == pytest.approx(sum(rows * terms[name] for rows, terms in losses) / 93, rel=1e-5)


def curves(outcome) -> dict[str, list[tuple[int, float]]]:
    from attelbo.files import read_metrics

    return read_metrics(outcome.run_dir / "metrics.csv")


def test_validation_draws_the_same_noise_in_every_epoch(runs):
    logged = curves(runs.train("optimizer.lr=0.0", "trainer.max_epochs=3"))
    losses = [value for _, value in logged["val/loss"]]
    assert len(losses) == 3
    assert losses[0] == losses[1] == losses[2]
    training = [value for _, value in logged["train/loss_epoch"]]
    assert all(a != b for a, b in pairwise(training))  # the training's is fresh


def test_values_are_logged_at_optimizer_steps(runs):
    logged = curves(runs.train("trainer.log_every_n_steps=5"))
    # Blocks end at 4, 8, 10, 14, 18, 20: those in which a multiple of 5 was passed.
    assert [step for step, _ in logged["train/loss"]] == [8, 10, 18, 20]
    assert [step for step, _ in logged["val/elbo"]] == [10, 20]
    assert [step for step, _ in logged["train/loss_epoch"]] == [10, 20]


class KilledError(Exception):
    """The process ends here."""


def test_what_an_epoch_logs_is_written_before_its_checkpoint(runs, monkeypatch):
    """Else a process that is killed between the two would go on without these lines."""
    save = Trainer.save_checkpoint

    def saved_and_killed(self, path, *args, **kwargs):
        save(self, path, *args, **kwargs)
        raise KilledError

    monkeypatch.setattr(Trainer, "save_checkpoint", saved_and_killed)
    with pytest.raises(KilledError):
        runs.train()
    (path,) = runs.folder.glob("*/*/metrics.csv")
    lines = {line.split(",")[2] for line in path.read_text().splitlines() if line.startswith("10,")}
    assert lines >= {"train/loss_epoch", "train/kl_epoch", "val/elbo", "val/active_units"}
