"""Tables of numbers, written by pandas' and NumPy's rules, against what they were made of."""

from pathlib import Path

import numpy as np
import pytest
import torch

from attelbo.cli import main
from attelbo.data import ArrayDataModule
from attelbo.data.sources import Arrays
from attelbo.errors import ConfigError, DataError
from attelbo.models import VariationalAutoencoder, load_run
from attelbo.models.conditional import check_labels

X = np.random.default_rng(0).normal(size=(40, 3))
CITIES = np.array(["Rome", "Bonn", "Oslo"])[np.arange(40) % 3]


def table(folder: Path, content: str) -> Path:
    (folder / "table.csv").write_text(content, encoding="utf-8")
    return folder


def rows_of(labels: list[str] | None) -> str:
    head = "a,b,c" + ("" if labels is None else ",city")
    ends = ["" for _ in X] if labels is None else [f',"{label}"' for label in labels]
    lines = [",".join(map(repr, row.tolist())) + end for row, end in zip(X, ends, strict=True)]
    return "\n".join([head, *lines]) + "\n"


def module(folder: Path, **source: object) -> ArrayDataModule:
    given = {"_target_": "attelbo.data.sources.Arrays", "path": "table.csv", **source}
    return ArrayDataModule(name="mine", root=str(folder), seed=0, batch_size=8, eval_batch_size=8, source=given)


def test_numbers_and_labels_are_those_of_the_file(tmp_path: Path):
    data = module(table(tmp_path, "\ufeff" + rows_of(list(CITIES))), y="city")
    assert (data.spec.shape, data.spec.kind, data.spec.n_classes) == ((3,), "real", 3)
    assert data.class_names == ("Bonn", "Oslo", "Rome")
    data.setup()
    found = {}
    for split in ("train", "validation", "test"):
        batch = data.materialize(torch.arange(data.n_rows(split)), split)
        assert batch.y is not None
        found |= {tuple(x): data.class_names[y] for x, y in zip(batch.x.tolist(), batch.y.tolist(), strict=True)}
    assert found == {tuple(x): city for x, city in zip(torch.tensor(X).float().tolist(), CITIES, strict=True)}


def test_a_table_without_labels_and_one_of_numpy(tmp_path: Path):
    assert module(table(tmp_path, rows_of(None))).spec.n_classes is None
    y = np.arange(40) % 2 * 10 + 2.0
    np.savetxt(tmp_path / "table.csv", np.c_[X, y], delimiter=",", header="0,1,2,y", comments="")
    data = module(tmp_path)
    assert (data.spec.shape, data.class_names) == ((3,), ("2", "12"))  # in the order of the numbers
    np.savetxt(tmp_path / "table.csv", X, delimiter=",", header="0,1,2", comments="")  # as pandas calls them
    assert module(tmp_path).spec.shape == (3,)


@pytest.mark.parametrize(
    ("content", "y", "said"),
    [
        (
            rows_of(list(CITIES)),
            "y",
            r"row 1: 'Rome' in column 'city' is no number; if it is the label, data.source.y=",
        ),
        (rows_of(list(CITIES)), "town", r"has no column 'town', data.source.y; it has a, b, c, city"),
        (rows_of(list(CITIES)), "City", r"has no column 'City', data.source.y; did you mean city\?"),
        ("a,b\n1,2\n3\n", "y", r"row 2: 1 cells, and 2 columns are named"),
        ("a,b\n1,x y\n", "y", r"row 1: 'x y' in column 'b' is no number; .*, else leave the column out"),
        ("1.5,2.5\n3.5,4.5\n", "y", r"its first line is to name the columns, and holds numbers: 1.5, 2.5"),
        (",a\n0,1.5\n", "y", r"column 1 has no name; where it is an index, to_csv\(index=False\) leaves it out"),
        ("a,a\n0,1\n", "y", r"has two columns 'a'"),
        ("a;b\n0;1\n", "y", r"commas are to stand between columns; its first line is 'a;b'"),
        ("a,b\n", "y", r"has no row but the first, which names the columns"),
        ("y\n1\n", "y", r"has no column but 'y'"),
        ('a,"b\n1,2\n', "y", r"is no CSV file \(unexpected end of data\)"),
        ("", "y", r"table.csv is empty"),
    ],
)
def test_what_is_wrong_is_told_in_a_line(content: str, y: str, said: str, tmp_path: Path):
    with pytest.raises(DataError, match=said):
        Arrays("table.csv", y=y).look(table(tmp_path, content))


def test_an_empty_cell_is_no_number(tmp_path: Path):
    data = module(table(tmp_path, rows_of(None) + "1.0,,2.0\n"))
    with pytest.raises(DataError, match=r"1 of 123 numbers are NaN or infinite, in 1 of 41 rows"):
        data.setup()


def test_a_changed_file_is_read_again(tmp_path: Path):
    source = Arrays("table.csv")
    assert len(source.load(table(tmp_path, rows_of(None))).train.x) == 36
    assert len(source.load(table(tmp_path, rows_of(None) + "1,2,3\n" * 10)).train.x) == 45


def test_a_model_that_needs_labels_says_where_they_are_named(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"^model: M needs labels, mine has none; data.source.y=... is the name of"):
        check_labels("M", module(table(tmp_path, rows_of(None))).spec)


def test_a_classifier_of_a_table_predicts_its_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    table(tmp_path, rows_of(list(CITIES)))
    words = ["data=arrays", f"data.source.path={tmp_path}/table.csv", "data.source.y=city", "model=conv_classifier"]
    words += ["model/encoder=mlp", "trainer.max_epochs=1", "logger=none", "callbacks=checkpoint"]
    assert main(["train", *words, f"paths.output_dir={tmp_path}"]) == 0
    capsys.readouterr()
    assert main(["predict", f"run={tmp_path}", "split=test", f"output={tmp_path}/p.csv"]) == 0
    assert (tmp_path / "p.csv").read_text().startswith("row,label,prediction,p(Bonn),p(Oslo),p(Rome)\n")
    (tmp_path / "more.csv").write_text("c,b,a\n0.1,0.2,0.3\n")
    capsys.readouterr()
    assert main(["predict", f"run={tmp_path}", f"path={tmp_path}/more.csv"]) == 0
    assert capsys.readouterr().out.endswith("  0\n")  # the number of the row


def test_columns_of_another_table_are_taken_by_their_names(tmp_path: Path):
    data = module(table(tmp_path, rows_of(list(CITIES))), y="city")
    assert data.spec.shape == (3,)
    (tmp_path / "more.csv").write_text("c,a,extra,b\n3,1,9,2\n6,4,9,5\n")
    assert data.read_arrays(tmp_path / "more.csv").tolist() == [[1, 2, 3], [4, 5, 6]]
    (tmp_path / "more.csv").write_text("c,a\n3,1\n")
    with pytest.raises(DataError, match=r"more.csv has no column 'b', which the run was trained with$"):
        data.read_arrays(tmp_path / "more.csv")
    np.save(tmp_path / "more.npy", X[:2, :2])
    with pytest.raises(DataError, match=r"its rows are real numbers of shape \(2,\), those of the run .* \(3,\)$"):
        data.read_arrays(tmp_path / "more.npy")


def test_a_run_embeds_and_predicts_rows_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Standardized as the rows trained on were, without the file of these, from Python as by the command."""
    table(tmp_path, rows_of(None))
    words = ["data=arrays", f"data.source.path={tmp_path}/table.csv", "data.standardize=each", "model/encoder=mlp"]
    words += ["model/decoder=mlp", "model/likelihood=normal", "trainer.max_epochs=1", "logger=none"]
    assert main(["train", *words, "callbacks=checkpoint", f"paths.output_dir={tmp_path / 'out'}"]) == 0
    (tmp_path / "table.csv").unlink()
    np.savez(tmp_path / "more.npz", x=X[:5])
    assert main(["embed", f"run={tmp_path / 'out'}", f"path={tmp_path}/more.npz", f"output={tmp_path}/z.csv"]) == 0
    model, data = load_run(tmp_path / "out")
    assert isinstance(model, VariationalAutoencoder)
    assert isinstance(data, ArrayDataModule)
    latents = model.encode(data.standardized(torch.from_numpy(X[:5]))).numpy()
    written = np.loadtxt(tmp_path / "z.csv", delimiter=",", skiprows=1)
    np.testing.assert_allclose(written[:, 3:], latents, rtol=1e-4, atol=1e-6)
    capsys.readouterr()
    assert main(["embed", f"run={tmp_path / 'out'}", f"path={tmp_path}/gone.npz"]) == 2
    assert capsys.readouterr().err == f"error: path={tmp_path}/gone.npz: no such file or folder\n"
    assert main(["sample", f"run={tmp_path / 'out'}", "n=2", f"output={tmp_path}/s.csv"]) == 0
    assert (tmp_path / "s.csv").read_text().startswith("a,b,c\n")
