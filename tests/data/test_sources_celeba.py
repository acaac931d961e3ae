"""CelebA from small files in torchvision's layout, made by the test, and against torchvision's own class."""

import hashlib
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets
from torchvision.transforms import v2

from attelbo.data import ImageDataModule
from attelbo.data.sources import CelebA, celeba
from attelbo.errors import DataError

NAMES = [f"{i:06}.jpg" for i in range(1, 13)]
PARTS = [0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 2]
SMILES = [i % 3 == 0 for i in range(12)]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("PARTITION", "ATTRIBUTES"):  # the sums are those of the published lists
        monkeypatch.setattr(celeba, name, getattr(celeba, name)._replace(md5=None))
    folder = tmp_path / "celeba"
    (folder / "img_align_celeba").mkdir(parents=True)
    random = np.random.default_rng(0)
    for name in NAMES:
        coarse = random.integers(0, 256, size=(11, 9, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((178, 218)).save(folder / "img_align_celeba" / name)
    (folder / "list_eval_partition.txt").write_text("".join(f"{n} {p}\n" for n, p in zip(NAMES, PARTS, strict=True)))
    rows = "".join(f"{n}  1 {1 if s else -1} -1\n" for n, s in zip(NAMES, SMILES, strict=True))
    (folder / "list_attr_celeba.txt").write_text(f"{len(NAMES)}\nYoung Smiling Male\n{rows}")
    for other in ("identity_CelebA", "list_bbox_celeba", "list_landmarks_align_celeba"):  # what torchvision reads too
        head = "" if other.startswith("identity") else f"{len(NAMES)}\na b c d\n"
        (folder / f"{other}.txt").write_text(
            head + "".join(f"{n} 1\n" if not head else f"{n} 1 1 1 1\n" for n in NAMES)
        )
    return tmp_path


@pytest.mark.parametrize(("part", "split"), [("train", 0), ("valid", 1), ("test", 2)])
def test_pictures_and_attributes_are_those_of_torchvision(part, split, root, monkeypatch):
    monkeypatch.setattr(datasets.CelebA, "_check_integrity", lambda self: True)  # of the real files
    transform = v2.Compose([v2.CenterCrop(148), v2.PILToTensor()])
    published = datasets.CelebA(str(root), split=part, transform=transform)
    train, test = CelebA(size=148, attribute="Smiling").load(root)
    ours = test if part == "test" else train
    rows = [i for i, own in enumerate(p for p in PARTS if (p == 2) == (split == 2)) if split == 2 or PARTS[i] == split]
    assert len(rows) == len(published) > 0
    smiling = published.attr_names.index("Smiling")
    for row, (picture, attributes) in zip(rows, published, strict=True):
        assert torch.equal(ours.x[row], picture)
        assert int(ours.y[row]) == int(attributes[smiling])


def test_the_published_rows_are_validated_on(root):
    data = ImageDataModule("celeba", CelebA(size=8), root=str(root), seed=0, batch_size=4, eval_batch_size=4)
    assert [data.n_rows(split) for split in ("train", "validation", "test")] == [6, 3, 3]
    batch = data.materialize(torch.arange(3), "test")
    assert batch.y is None
    box = (15, 35, 163, 183)
    expected = [Image.open(root / "celeba/img_align_celeba" / name).crop(box).resize((8, 8), Image.Resampling.BILINEAR)
                for name in NAMES[9:]]  # fmt: skip
    torch.testing.assert_close(
        255 * batch.x.permute(0, 2, 3, 1), torch.from_numpy(np.stack(expected)).float(), atol=0.01, rtol=0
    )


def test_an_archive_beside_is_unpacked_and_left(root, monkeypatch):
    folder = root / "celeba"
    with zipfile.ZipFile(folder / "img_align_celeba.zip", "w") as archive:
        for name in NAMES:
            archive.write(folder / "img_align_celeba" / name, f"img_align_celeba/{name}")
            (folder / "img_align_celeba" / name).unlink()
    (folder / "img_align_celeba").rmdir()
    source = CelebA(size=8)
    with pytest.raises(DataError, match=r"img_align_celeba.zip has another MD5 sum than the published 00d2"):
        source.prepare(root)
    monkeypatch.setattr("torchvision.datasets.utils.check_integrity", lambda path, md5=None: True)
    source.prepare(root)
    assert sorted(path.name for path in (folder / "img_align_celeba").iterdir()) == NAMES
    assert (folder / "img_align_celeba.zip").is_file()
    assert len(source.load(root).test.x) == 3


def test_what_is_missing_or_wrong_is_told_in_a_line(root, tmp_path):
    folder = root / "celeba"
    with pytest.raises(DataError, match="attribute=smiling: CelebA has no such attribute; did you mean Smiling"):
        CelebA(attribute="smiling").load(root)
    lines = (folder / "list_attr_celeba.txt").read_text().splitlines()
    (folder / "list_attr_celeba.txt").write_text("\n".join(lines[:-1]))
    with pytest.raises(DataError, match=r"list_attr_celeba.txt is damaged: it has no line for 1 pictures, 000012.jpg"):
        CelebA(attribute="Smiling").load(root)
    (folder / "img_align_celeba" / NAMES[4]).unlink()
    with pytest.raises(DataError, match=r"1 of 12 pictures are not in it, 000005.jpg"):
        CelebA().load(root)
    (folder / "list_eval_partition.txt").write_text("000001.jpg 0 0\n")
    with pytest.raises(DataError, match=r"list_eval_partition.txt is damaged: no list of names and splits"):
        CelebA().load(root)
    (folder / "list_eval_partition.txt").write_text("000001.jpg 0\n000002.jpg 1\n")
    with pytest.raises(DataError, match=r"is damaged: it has no rows of the test split"):
        CelebA().load(root)
    with pytest.raises(DataError, match=r"CelebA: missing in .*: celeba/img_align_celeba, celeba/list_eval_partition"):
        CelebA().load(root / "elsewhere")


@pytest.mark.parametrize(("name", "attribute"), [("PARTITION", None), ("ATTRIBUTES", "Smiling")])
def test_a_list_that_is_cut_off_is_told(root, name, attribute, monkeypatch):
    """Its rows are fewer, and those that are left could be read."""
    file = getattr(celeba, name)
    path = root / file.path
    monkeypatch.setattr(celeba, name, file._replace(md5=hashlib.md5(path.read_bytes()).hexdigest()))
    CelebA(size=8, attribute=attribute).load(root)
    path.write_bytes(path.read_bytes()[:-13])
    with pytest.raises(DataError, match=rf"{path.name} is damaged: its MD5 sum is"):
        CelebA(size=8, attribute=attribute).load(root)
