"""Attention maps of models: which weights are drawn, where they stand, and that drawing leaves no trace."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from attelbo.attention import record_attention
from attelbo.data.batch import Batch, DataSpec
from attelbo.errors import ConfigError, UserError
from attelbo.latent.spaces import Codes, ScaledCodes
from attelbo.models import Classifier, build_transformer_text_vae
from attelbo.networks import AutoregressiveTransformer, NextScaleTransformer
from attelbo.training.callbacks import AttentionMaps
from attelbo.training.callbacks.attention_maps import (
    Grid,
    between_cells,
    grid_of,
    on_tokens,
    over_images,
    spread,
    token_labels,
)
from attelbo.training.maps import alignment_map, attention_map, attention_overlay
from classifiers import IMAGES, PARTS, TEXTS, images, of_images, of_texts, texts


class Rows:
    """Data that hand over these rows."""

    def __init__(self, spec: DataSpec, batch: Batch, **more: Any) -> None:
        self.spec, self.batch = spec, batch
        self.__dict__.update(more)

    def n_rows(self, split: str) -> int:
        return len(self.batch.x)

    def materialize(self, index: torch.Tensor, split: str) -> Batch:
        return Batch(self.batch.x[index], None if self.batch.y is None else self.batch.y[index], index)

    def shown(self, x: torch.Tensor) -> torch.Tensor:
        return x


@pytest.mark.parametrize(
    ("n_keys", "size", "grid"),
    [
        (16, (8, 8), Grid(0, 4, 4)),
        (17, (8, 8), Grid(1, 4, 4)),
        (65, (32, 32), Grid(1, 8, 8)),
        (12, (7, 5), Grid(0, 4, 3)),  # halved and rounded up
        (7, (4, 6), Grid(1, 2, 3)),
        (2, (8, 8), Grid(1, 1, 1)),
        (8, (8, 8), None),
    ],
)
def test_keys_are_the_cells_of_a_grid(n_keys, size, grid):
    assert grid_of(n_keys, size) == grid


def test_what_the_class_token_sees_is_laid_over_the_image():
    weights, x = torch.rand(3, 2, 7, 7), torch.rand(3, 1, 4, 6)
    expected = attention_overlay(x, weights[:, :, 0, 1:].unflatten(-1, (2, 3)), panels=["head 1", "head 2"])
    np.testing.assert_array_equal(over_images(weights, x), expected)


def test_the_numbers_of_a_vector_are_counted():
    data = Rows(DataSpec("vectors", (3,), kind="real"), Batch(torch.rand(2, 3), None, torch.arange(2)))
    assert token_labels(data.batch, data) == ["1", "2", "3"]


def test_registers_are_in_no_cell():
    weights, x = torch.rand(3, 2, 10, 10), torch.rand(3, 1, 4, 6)
    expected = attention_overlay(x, weights[:, :, 0, 4:].unflatten(-1, (2, 3)), panels=["head 1", "head 2"])
    np.testing.assert_array_equal(over_images(weights, x, 4), expected)


def test_four_cells_of_a_feature_map_ask():
    weights, x = torch.rand(3, 2, 16, 16), torch.rand(3, 1, 8, 8)
    asking = torch.tensor([[5, 7, 13, 15]])  # rows and columns 1 and 3
    expected = attention_overlay(x, weights.mean(1)[:, asking[0]].unflatten(-1, (4, 4)), asking.expand(3, -1))
    np.testing.assert_array_equal(over_images(weights, x), expected)


def test_learned_queries_are_in_no_cell_and_have_a_panel_each():
    x, weights = torch.rand(3, 1, 8, 8), torch.rand(3, 4, 12, 16)
    shown = weights.mean(1)[:, :8].unflatten(-1, (4, 4))
    expected = attention_overlay(x, shown, panels=[f"query {place}" for place in range(1, 9)])
    np.testing.assert_array_equal(over_images(weights, x), expected)


@pytest.mark.parametrize("shape", [(12, 2, 4, 4), (3, 2, 8, 8), (3, 2, 1, 1)])
def test_lines_windows_and_single_cells_are_no_images(shape):
    assert over_images(torch.rand(shape), torch.rand(3, 1, 8, 8)) is None


def test_of_maps_of_several_scales_the_cells_of_the_finest_ask():
    model = torch.nn.Module()
    model.prior = NextScaleTransformer(ScaledCodes.of(((1, 1), (2, 2), (4, 4)), 3), dim=4, heads=2, layers=1)
    weights = torch.rand(3, 2, 21, 21)
    torch.testing.assert_close(
        between_cells(weights, "prior.network.blocks.0.attention", model), weights[:, :, 5:, 5:], rtol=0, atol=0
    )
    assert between_cells(weights, "decoder.layers.0", model) is weights


def test_a_code_is_seen_where_it_is_not_where_the_next_is_predicted():
    model = torch.nn.Module()
    model.prior = AutoregressiveTransformer(Codes((2, 3), 4), dim=4, heads=2, layers=1)
    weights = torch.rand(2, 2, 6, 6).tril()
    placed = between_cells(weights, "prior.network.blocks.0.attention", model)
    assert placed.shape == weights.shape
    assert torch.equal(placed[..., :5], weights[..., 1:])  # key 1 holds code 0
    assert not placed.triu().any()  # no query sees the code that it predicts


def test_padding_is_left_out_and_a_class_token_named():
    weights = torch.rand(1, 2, 5, 5)
    expected = attention_map(
        weights[0, :, :3, :3], ["(class)", "a", "b"], ["(class)", "a", "b"], "x", panels=["head 1", "head 2"]
    )
    np.testing.assert_array_equal(on_tokens(weights, ["a", "b", "", ""], "x"), expected)


def test_layers_are_spread_evenly():
    names = [str(i) for i in range(12)]
    assert spread(names, 4) == ["2", "5", "8", "11"]
    assert spread(names[:2], 4) == ["0", "1"]


def test_a_vision_transformer_is_drawn_and_stays_as_it_was():
    model, callback = of_images(network=PARTS["network"] | {"layers": 3}), AttentionMaps(n_layers=2, n_images=4)
    state = torch.get_rng_state()
    pictures = callback.draw(model, Rows(IMAGES, images()))
    assert list(pictures) == ["attention_body_network_blocks_1", "attention_body_network_blocks_2"]
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())

    rows = torch.arange(4) * 10 // 4
    with torch.no_grad(), record_attention(model.eval(), ["body.network.blocks.2.attention"]) as maps:
        model(images().x[rows])
    expected = over_images(maps["body.network.blocks.2.attention"], images().x[rows])
    np.testing.assert_array_equal(pictures["attention_body_network_blocks_2"], expected)


def test_words_are_labels():
    model = of_texts(pooling={"_target_": "attelbo.networks.AttentionPooling"}).eval()
    words = SimpleNamespace(tokens=[f"word{i}" for i in range(11)])
    pictures = AttentionMaps().draw(model, Rows(TEXTS, texts(), tokenizer=words))
    assert list(pictures) == ["attention_body_network_blocks_0", "attention_body_pooling"]
    row = texts().x[:1]
    there = row[row > 0].tolist()
    with torch.no_grad(), record_attention(model, ["body.pooling"]) as maps:
        model(row)
    labels = [f"word{token}" for token in there]
    expected = attention_map(
        maps["body.pooling"][0, :, 0, : len(there)], ["1"], labels, "body.pooling", axes=("head", "key")
    )
    np.testing.assert_array_equal(pictures["attention_body_pooling"], expected)


def test_a_decoder_of_texts_sees_what_is_made_of_z_and_all_but_the_end():
    names = {"posterior": "DiagonalNormalPosterior", "prior": "StandardNormal", "objective": "ELBO"}
    around: dict[str, Any] = {part: {"_target_": f"attelbo.latent.{name}"} for part, name in names.items()}
    data = DataSpec("texts", (6,), "tokens", n_tokens=8, pads=True)
    model = build_transformer_text_vae(data, latent_dim=2, n_memory=2, **PARTS, **around).eval()
    torch.nn.init.zeros_(model.decoder.project.weight)  # maps do not depend on the sample of z
    letters = SimpleNamespace(tokens=["<pad>", "<s>", "</s>", *"?abcd"])
    batch = Batch(torch.tensor([[1, 4, 5, 2]]), None, torch.arange(1))
    name = "decoder.network.blocks.0.attention"
    pictures = AttentionMaps(layers=(name,)).draw(model, Rows(data, batch, tokenizer=letters))
    with torch.no_grad(), record_attention(model, [name]) as maps:
        model.losses(batch)
    seen = ["(z)", "(z)", "<s>", "a", "b"]
    heads = maps[name][0]
    expected = attention_map(heads, seen, seen, name, panels=[f"head {i + 1}" for i in range(len(heads))])
    np.testing.assert_array_equal(pictures["attention_decoder_network_blocks_0"], expected)


class Translator(Classifier):
    """A model that aligns the last target token with the first source token, and so on, or has no attention."""

    aligns = True

    def alignment(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        if not self.aligns:
            raise UserError("none")
        return torch.eye(target.shape[1], source.shape[1]).flip(0).expand(len(source), -1, -1)


def test_a_translation_is_aligned():
    model = of_texts()
    model.__class__ = Translator
    letters, spec = SimpleNamespace(tokens=["<pad>", "<s>", "</s>", *"abcd"]), DataSpec("x", (4,), "tokens", pads=True)
    batch = Batch(torch.tensor([[1, 3, 4, 2]]), torch.tensor([[1, 5, 2, 0, 0]]), torch.arange(1))
    data = Rows(spec, batch, tokenizer=letters, target_tokenizer=letters)
    pictures = AttentionMaps().draw(model, data)
    weights = model.alignment(batch.x, batch.y[:, :-1])[0, :2]
    expected = alignment_map(weights, ["<s>", "a", "b", "</s>"], ["c", "</s>"], "Alignment of target with source")
    np.testing.assert_array_equal(pictures["alignment_1"], expected)
    model.aligns = False
    assert AttentionMaps().draw(model, data) == {}


def test_a_model_without_attention_has_no_maps_nor_have_points():
    assert AttentionMaps().draw(torch.nn.Linear(1, 1), Rows(IMAGES, images())) == {}
    points = Rows(DataSpec("points", (5, 2), "set"), images())
    assert not AttentionMaps().serves(of_images(), points)


@pytest.mark.parametrize("name", ["n_layers", "n_images", "n_alignments"])
def test_numbers_below_one_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        AttentionMaps(**{name: 0})


def test_layers_that_are_not_there_are_told_before_the_training():
    trainer: Any = None
    AttentionMaps(layers=["body.*"]).setup(trainer, of_images(), "fit")
    AttentionMaps(layers=["body.*"]).setup(trainer, torch.nn.Linear(1, 1), "fit")
    with pytest.raises(
        ConfigError, match=r"^callbacks\.attention_maps\.layers: .* called 'head': there are body\.network"
    ):
        AttentionMaps(layers=["head"]).setup(trainer, of_images(), "fit")
