"""OMNIGLOT's folders and zip files: drawings made by the test, in the layout of the real ones."""

import hashlib
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from attelbo.data.files import DataFile
from attelbo.data.sources import Omniglot, omniglot
from attelbo.errors import DataError


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def drawing(character: int, drawer: int) -> bytes:
    """A 1-bit PNG of 105 x 105, white paper with one black rectangle that tells character and drawer."""
    pixels = np.ones((105, 105), bool)
    pixels[10 + character : 40 + character, 5 : 5 + 4 * drawer] = False
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def write_omniglot(folder: Path, characters: list[str]) -> None:
    for number, character in enumerate(characters):
        (folder / character).mkdir(parents=True)
        for drawer in range(1, 21):
            (folder / character / f"{number:04}_{drawer:02}.png").write_bytes(drawing(number, drawer))


def zip_folder(folder: Path) -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for drawing_file in sorted(folder.rglob("*.png")):
            archive.write(drawing_file, drawing_file.relative_to(folder.parent))
    return path


@pytest.fixture
def small_omniglot(tmp_path, monkeypatch):
    """Two small sets that share an alphabet, as the published ones do: 3 characters in all."""
    monkeypatch.setitem(omniglot.N_CHARACTERS, "small", 3)
    folder = tmp_path / "omniglot_small"
    write_omniglot(folder / "images_background_small1", ["Greek/character01", "Korean/character01"])
    write_omniglot(folder / "images_background_small2", ["Greek/character01", "Latin/character01"])
    return tmp_path


def test_omniglot_small_has_no_duplicates_and_splits_by_drawer(small_omniglot):
    train, test = Omniglot(size=21, variant="small").load(small_omniglot)
    assert (train.x.shape, test.x.shape) == ((48, 1, 21, 21), (12, 1, 21, 21))
    assert train.y.bincount().tolist() == [16, 16, 16]
    assert test.y.bincount().tolist() == [4, 4, 4]
    # 105 / 21 is whole, but antialiased bilinear is a triangle filter, so sums of ink agree and pixels need not.
    ink = train.x[0].float().sum() / 255 * 25
    assert abs(float(ink) - 30 * 4) < 3  # character 0 of drawer 1: 30 x 4 pixels of ink
    assert int(train.x.max()) == 255
    assert int(train.x[:, :, -1].max()) == 0  # paper is 0


def test_omniglot_full_has_new_characters_to_test(tmp_path, monkeypatch):
    monkeypatch.setitem(omniglot.N_CHARACTERS, "full", 3)
    write_omniglot(tmp_path / "omniglot-py/images_background", ["Greek/character01", "Greek/character02"])
    write_omniglot(tmp_path / "omniglot-py/images_evaluation", ["Angelic/character01"])
    train, test = Omniglot(size=105).load(tmp_path)
    assert train.y.bincount().tolist() == [20, 20]
    assert test.y.unique().tolist() == [2]
    original = np.asarray(Image.open(io.BytesIO(drawing(0, 1))))
    assert np.array_equal(train.x[0, 0].numpy(), np.where(original, 0, 255))


def test_omniglot_zip_equals_folder_and_is_verified(small_omniglot, monkeypatch):
    source = Omniglot(variant="small")
    expected = source.load(small_omniglot)
    folders = sorted((small_omniglot / "omniglot_small").iterdir())
    sets = []
    for folder in folders:
        path = zip_folder(folder)
        sets.append(DataFile(f"omniglot_small/{path.name}", md5(path.read_bytes())))
        for drawing_file in list(folder.rglob("*.png")):
            drawing_file.unlink()
    monkeypatch.setattr(omniglot, "SMALL_SETS", tuple(sets))
    for ours, theirs in zip(source.load(small_omniglot), expected, strict=True):
        assert torch.equal(ours.x, theirs.x)
        assert torch.equal(ours.y, theirs.y)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(DataError, match=r"images_background_small2\.zip is damaged: its MD5 sum"):
        source.load(small_omniglot)


def test_omniglot_damage(small_omniglot):
    source = Omniglot(variant="small")
    path = small_omniglot / "omniglot_small/images_background_small2/Latin/character01/0001_07.png"
    content = path.read_bytes()
    path.write_bytes(content[:60])
    with pytest.raises(DataError, match=r"Latin/character01/0001_07\.png is no picture"):
        source.load(small_omniglot)
    Image.new("1", (50, 60)).save(path)
    with pytest.raises(DataError, match=r"Latin/character01/0001_07\.png has 50 x 60 pixels, not 105 x 105"):
        source.load(small_omniglot)
    copy = path.rename(path.with_name("0001_07 copy.png"))
    with pytest.raises(DataError, match=r"Latin/character01/0001_07 copy\.png has no number of a drawer"):
        source.load(small_omniglot)
    copy.rename(path).unlink()
    with pytest.raises(DataError, match="Latin/character01 has 19 drawings, not 20"):
        source.load(small_omniglot)
    for rest in path.parent.iterdir():
        rest.unlink()
    with pytest.raises(DataError, match="2 characters, not 3"):
        source.load(small_omniglot)


def test_omniglot_missing(tmp_path, no_network):
    message = r"^Omniglot: missing in .*omniglot_small/images_background_small1\.zip \(MD5 e704a6"
    with pytest.raises(DataError, match=message):
        Omniglot(variant="small").prepare(tmp_path)
    with pytest.raises(DataError, match=r"images_evaluation\.zip \(MD5 6b91aef"):
        Omniglot().prepare(tmp_path)


def test_size_out_of_range():
    with pytest.raises(ValueError, match=r"^size must be at least 1, got 0"):
        Omniglot(size=0)
