"""Hidden tokens: how many, which, what stands in their place, and when they are drawn."""

from pathlib import Path

import pytest
import torch

from attelbo.data import BOS, EOS, IGNORE, PAD, LanguageDataModule
from attelbo.data.text.masking import hide
from attelbo.errors import ConfigError

TEXT = "".join(f"{i}. The line of number {i} is here.\n\n" for i in range(40))
CONTEXT = 16


def module(folder: Path, **changes) -> LanguageDataModule:
    (folder / "text.txt").write_text(TEXT)
    arguments = {"name": "made up", "seed": 0, "batch_size": 4, "eval_batch_size": 3, "masked": 0.15}
    source = {"_target_": "attelbo.data.text.TextFile", "path": "text.txt", "separator": "\n\n"}
    tokenizer = {"_target_": "attelbo.data.text.Characters"}
    return LanguageDataModule(
        source=source, tokenizer=tokenizer, root=str(folder), context=CONTEXT, **(arguments | changes)
    )


def everything(data: LanguageDataModule, split):
    return data.materialize(torch.arange(data.n_rows(split)), split)


@pytest.mark.parametrize("pads", [False, True])
def test_of_each_row_the_share_is_hidden_as_bert_has_it(pads: bool) -> None:
    n_tokens, n, length = 30, 4000, 40
    torch.manual_seed(0)
    x = torch.randint(4 if pads else 0, n_tokens, (n, length))
    if pads:
        x[:, 0], x[:, 19] = BOS, EOS
        x[: n // 2, 20:] = PAD
    seen, y = hide(x, 0.15, n_tokens, pads)
    told = y != IGNORE
    assert torch.equal(y[told], x[told])
    assert torch.equal(seen[~told], x[~told])
    assert told.sum(1).unique(return_counts=True)[0].tolist() == ([3, 6] if pads else [6])
    if pads:
        assert (told[: n // 2].sum(1) == 3).all(), "0.15 of the 18 that are no padding, rounded"
        assert (y[told] > EOS).all()
    total, changed = int(told.sum()), seen[told]
    is_mask, is_same = changed == n_tokens, changed == x[told]
    others = changed[~is_mask & ~is_same]
    assert others.min() == (4 if pads else 0)
    assert others.max() == n_tokens - 1
    same_by_chance = 0.1 / (n_tokens - (4 if pads else 0))
    for found, share in ((is_mask, 0.8), (is_same, 0.1 + same_by_chance)):
        assert abs(found.float().mean().item() - share) < 4 * (share * (1 - share) / total) ** 0.5
    places = told[n // 2 :].float().mean(0)[1:19]
    assert (places - 0.15).abs().max() < 0.04, "all places alike"


def test_a_short_row_hides_one() -> None:
    _, y = hide(torch.tensor([[BOS, 7, PAD], [5, 6, 7]]), 0.15, 10, pads=True)
    assert (y != IGNORE).sum(1).tolist() == [1, 1]
    assert y[0].tolist() == [IGNORE, 7, IGNORE]


@pytest.mark.parametrize("documents", ["stream", "packed", "padded", "bucketed"])
def test_evaluation_hides_the_same_however_rows_are_asked_for_and_training_does_not(
    tmp_path: Path, documents: str
) -> None:
    data = module(tmp_path, documents=documents)
    whole = everything(data, "validation")
    again = everything(module(tmp_path, documents=documents), "validation")
    assert torch.equal(whole.x, again.x)
    assert torch.equal(whole.y, again.y)
    index = torch.tensor([3, 1])
    part = data.materialize(index, "validation")
    length = part.x.shape[1]
    assert torch.equal(part.x, whole.x[index, :length])
    assert torch.equal(part.y, whole.y[index, :length])
    assert (whole.y[index, length:] == IGNORE).all()
    torch.manual_seed(1)
    first, second = everything(data, "train"), everything(data, "train")
    torch.manual_seed(1)
    third = everything(data, "train")
    assert not torch.equal(first.y, second.y)
    assert torch.equal(first.x, third.x)
    assert torch.equal(first.y, third.y)


@pytest.mark.parametrize("documents", ["stream", "padded"])
def test_what_is_hidden_stands_in_the_text(tmp_path: Path, documents: str) -> None:
    data, plain = module(tmp_path, documents=documents), module(tmp_path, documents=documents, masked=0.0)
    hidden, text = everything(data, "validation"), everything(plain, "validation")
    rows = len(hidden.x)
    assert torch.equal(torch.where(hidden.y == IGNORE, hidden.x, hidden.y), text.x[:rows])
    left_out = len(text.x) - rows
    assert left_out == (1 if documents == "stream" else 0), "a row of a stream that is not full"
    assert data.spec.n_tokens == plain.spec.n_tokens + 1
    assert (hidden.x == plain.spec.n_tokens).any(), "MASK is the token behind the last one"
    assert data.spec.n_hidden == 3 >= (hidden.y != IGNORE).sum(1).max()
    assert data.spec.token_lengths is None
    assert (data.spec.next_tokens, plain.spec.next_tokens) == (False, True)


def test_bad_shares_and_short_texts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"masked must be in \[0, 1\), got 1.0"):
        module(tmp_path, masked=1.0)
    data = module(tmp_path, documents="stream")
    data.context = 2000
    with pytest.raises(ConfigError, match=r"data\.context=2,000 needs 2,001 tokens"):
        data.setup()
