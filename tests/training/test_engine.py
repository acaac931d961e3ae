"""Several optimizers in turns, and reduced precision over several steps."""

import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn
from torch.nn.functional import softplus

from attelbo.data import ImageDataModule
from attelbo.errors import ConfigError
from attelbo.models import Model, Player
from attelbo.seeding import derive_seed
from attelbo.training import BlockStepper, compilation
from attelbo.training.trainer import bf16_is_fast
from compilers import needs_a_compiler

ADAM = {"_target_": "torch.optim.Adam", "lr": 0.01, "fused": True}
CONSTANT = {"_target_": "attelbo.models.schedulers.Constant"}
ROWS, BATCH = 60, 20


class Adversarial(Model):
    """A generator of digits against a critic, in the form of the GAN (Goodfellow et al. 2014)."""

    def __init__(self, optimizer=ADAM):
        super().__init__(optimizer, CONSTANT)
        self.generator = nn.Linear(4, 64)
        self.critic = nn.Linear(64, 1)

    def players(self):
        return [
            Player(self.losses, list(self.generator.parameters())),
            Player(self.critic_losses, list(self.critic.parameters()), prefix="critic_"),
        ]

    def losses(self, batch):
        made = self.generator(torch.randn(len(batch.x), 4))
        return {"loss": softplus(-self.critic(made)).mean()}

    def critic_losses(self, batch):
        with torch.no_grad():
            made = self.generator(torch.randn(len(batch.x), 4))
        real, false = softplus(-self.critic(batch.x.flatten(1))).mean(), softplus(self.critic(made)).mean()
        return {"loss": real + false, "real": real.detach()}

    def evaluation_step(self, batch): ...

    def evaluation_results(self):
        return {"zero": torch.zeros(())}


def digits(**changes) -> ImageDataModule:
    arguments = {"batch_size": BATCH, "minibatches_per_block": 2, "train_size": ROWS, "validation_size": 40} | changes
    source = {"_target_": "attelbo.data.sources.Digits"}
    return ImageDataModule(name="digits", source=source, root=".", seed=0, eval_batch_size=50, **arguments)


def fit(model, folder, data=None, epochs=2, **options):
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=[BlockStepper(seed=0, **options)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=folder,
    )
    trainer.fit(model, datamodule=data or digits())
    return trainer


def weights(model):
    return nn.utils.parameters_to_vector(model.parameters()).detach()


def adversarial(**options):
    torch.manual_seed(3)
    return Adversarial(**options)


def play_by_hand(epochs):
    model, data = adversarial(), digits()
    loader = data.train_dataloader()
    optimizers = [torch.optim.Adam(part.parameters(), lr=0.01, fused=True) for part in (model.generator, model.critic)]
    step = 0
    for epoch in range(epochs):
        for rows in loader.order(epoch).split(BATCH):
            torch.manual_seed(derive_seed(0, "step", step, 0))
            batch = data.materialize(rows, "train")
            for optimizer, losses in zip(optimizers, (model.losses, model.critic_losses), strict=True):
                model.zero_grad()
                losses(batch)["loss"].backward()
                optimizer.step()
            step += 1
    return model


def test_players_take_turns_as_in_a_loop_written_by_hand(tmp_path):
    model = adversarial()
    trainer = fit(model, tmp_path)
    assert torch.equal(weights(model), weights(play_by_hand(2)))
    assert not torch.equal(weights(model), weights(play_by_hand(1)))
    assert trainer.global_step == model.stepper.step == 6
    assert model.stepper.terms == ("loss", "critic_loss", "critic_real")
    assert model.stepper.block_values.shape == (1, 3)  # blocks of 2 and 1


def test_clipping_and_parts_reach_every_player(tmp_path):
    model, clipped = adversarial(), adversarial(optimizer=ADAM | {"_target_": "torch.optim.SGD", "lr": 1.0})
    start = weights(clipped)
    fit(model, tmp_path, micro_batches=2)
    fit(clipped, tmp_path, epochs=1, clip_norm=1e-4)
    assert not torch.equal(weights(model), weights(play_by_hand(2)))  # other noise: two draws for each minibatch
    moved = (weights(clipped) - start).split([4 * 64 + 64, 65])
    for part in moved:
        assert 0 < part.norm() <= 3 * 1e-4 * 1.01


def test_who_has_several_optimizers_needs_blocks_and_one_device(tmp_path):
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        default_root_dir=tmp_path,
    )
    with pytest.raises(ConfigError, match=r"minibatches_per_block must be at least 1 for a model with several"):
        trainer.fit(adversarial(), datamodule=digits(minibatches_per_block=0))


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_autocast_rounds_the_weights_of_every_step_anew(runs, micro_batches):
    """Its cache outlives a step where a block is one context: the second step would see the first one's weights."""

    def train(minibatches_per_block):
        words = ("trainer.precision=bf16-mixed", f"data.minibatches_per_block={minibatches_per_block}")
        trained = runs.fit(*words, f"trainer.micro_batches={micro_batches}", "optimizer.lr=0.05").lightning_module
        assert trained.stepper.step == 20
        return weights(trained)

    if not bf16_is_fast("cpu"):
        pytest.skip("this CPU has no bf16 arithmetic, and attelbo refuses to train in it")
    assert torch.equal(train(1), train(10))


@needs_a_compiler
def test_compiled_steps_are_the_steps(runs):
    words = ("scheduler=cosine", "data.train_size=95", "optimizer.lr=0.01")  # minibatches of 10, and one of 5
    eager = runs.fit(*words, "trainer.compile=false")
    compiled = runs.fit(*words, "trainer.compile=true")
    ours = compiled.lightning_module.stepper
    assert {type(player.losses).__name__ for player, _ in ours.engine.step.turns} == {"CompiledLosses"}
    torch.testing.assert_close(
        weights(compiled.lightning_module), weights(eager.lightning_module), rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(ours.block_values, eager.lightning_module.stepper.block_values, rtol=1e-4, atol=1e-4)


def test_a_missing_compiler_is_named(runs, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ConfigError, match=r"trainer\.compile=true: there is no C\+\+ compiler no-such-compiler; "):
        runs.fit("trainer.compile=true")
    assert runs.fit("trainer.compile=auto").global_step == 20


@needs_a_compiler
def test_auto_compiles_what_was_measured_to_pay(runs, monkeypatch):
    conv = ("model/encoder=conv_attention", "model/decoder=conv_attention")
    without = ("model/encoder=mlp", "model/decoder=mlp", "model.encoder.hidden=[8]", "model.decoder.hidden=[8]")
    # Only the decision: nothing is computed.
    monkeypatch.setattr(BlockStepper, "__call__", lambda self, block: None)

    def compiles(*words, without=()):
        return runs.fit("trainer.max_epochs=1", *words, without=without).lightning_module.stepper._compiles()

    monkeypatch.setattr(compilation, "STEPS_TO_PAY", 10)
    assert not compiles()
    assert compiles(*conv, without=without)
    assert not compiles(*conv, "trainer.compile=false", without=without)
    monkeypatch.setattr(compilation, "STEPS_TO_PAY", 11)
    assert not compiles(*conv, without=without)


def test_one_word_turns_all_fast_paths_off(runs):
    plain = runs.fit("debug=plain", without=("data.minibatches_per_block=4",)).lightning_module
    assert len(plain.stepper.block_values) == 1
    assert not plain.stepper._compiles()
    assert torch.equal(weights(plain), weights(runs.fit().lightning_module))
    trainer = runs.configure("trainer=bf16", "debug=plain", without=("trainer.accelerator=cpu",))["trainer"]
    assert (trainer["precision"], trainer["threads"]) == ("32-true", None)
