"""A folder of pictures of one's own, made by the test."""

import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torchvision.transforms.functional import center_crop

from attelbo.cli import main
from attelbo.data import ImageDataModule, kept, pictures
from attelbo.data.pictures import decode_pictures
from attelbo.data.sources import ImageFolder
from attelbo.errors import DataError
from attelbo.training.callbacks import confusion

EMPTY = np.zeros((8, 8, 3), np.uint8)


def write(path: Path, level: int, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, level).convert(mode).save(path)


def levels(x: torch.Tensor) -> list[int]:
    assert (x == x[:, :1, :1, :1]).all()
    return x[:, 0, 0, 0].tolist()


def test_every_tenth_by_name_is_for_testing_wherever_it_lies(tmp_path: Path):
    for i in range(20):
        write(tmp_path / "images" / "ab"[i // 10] / f"{i:02}.PNG", 10 * i, mode="LA" if i % 2 else "P")
    (tmp_path / "images" / "._19.png").write_bytes(b"what macOS leaves behind")
    (tmp_path / "images" / "notes.txt").write_text("no picture")
    write(tmp_path / "images" / "a" / ".thumbnails" / "00.png", 7)
    train, test = ImageFolder("images", size=4).load(tmp_path)
    assert levels(test.x) == [90, 190]
    assert levels(train.x) == [10 * i for i in range(20) if i not in (9, 19)]
    assert train.x.shape == (18, 3, 4, 4)
    assert train.x.dtype == torch.uint8
    assert train.y is None


def test_links_to_folders_elsewhere_are_followed(tmp_path: Path):
    for i in range(10):
        write(tmp_path / "images" / "b" / f"{i}.png", i)
        write(tmp_path / "elsewhere" / "deep" / f"{i}.png", 10 + i)
    write(tmp_path / "beside.png", 99)
    images = tmp_path / "images"
    for name, target in {"a": "../elsewhere", "c": "../elsewhere/deep", "d": "b", "loop": ".", "up": ".."}.items():
        (images / name).symlink_to(target)
    (tmp_path / "elsewhere" / "back").symlink_to(images)
    (tmp_path / "elsewhere" / "on").symlink_to(tmp_path / "elsewhere" / "on")
    train, test = ImageFolder("images", size=4).load(tmp_path)
    assert sorted(levels(train.x) + levels(test.x)) == list(range(20))


@pytest.mark.parametrize("n_classes", [None, 2])
def test_a_folder_that_cannot_be_read_is_told(n_classes: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in "ab":
        for i in range(10):
            write(tmp_path / "images" / name / f"{i}.png", i)
    secret = tmp_path / "images" / ("b" if n_classes is None else "")

    def refusing(listed: Any) -> Any:  # the tests may run as a user who may read everything
        def call(path: Any) -> Any:
            if Path(path) == secret:
                raise PermissionError(13, "Permission denied", str(path))
            return listed(path)

        return call

    for name in ("scandir", "listdir"):
        monkeypatch.setattr(os, name, refusing(getattr(os, name)))
    told = rf"^{secret} cannot be read \(Permission denied\): its pictures would be left out$"
    with pytest.raises(DataError, match=told):
        ImageFolder("images", size=4, n_classes=n_classes).load(tmp_path)


def test_what_takes_long_to_decode_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for i in range(10):
        write(tmp_path / "images" / f"{i}.png", 10 * i)
    source = ImageFolder("images", size=4)
    folder = tmp_path / ".prepared"
    source.load(tmp_path)
    assert not folder.exists()  # it took no time
    monkeypatch.setattr(kept, "LONG", 0.0)
    first = source.load(tmp_path)
    assert len(list(folder.iterdir())) == 2

    with monkeypatch.context() as patched:
        patched.setattr(pictures, "_decode", None)
        again = source.load(tmp_path)
        assert all(torch.equal(one.x, other.x) for one, other in zip(first, again, strict=True))
    assert ImageFolder("images", size=3).load(tmp_path).train.x.shape == (9, 3, 3, 3)
    assert levels(ImageFolder("images", size=4, crop=2).load(tmp_path).test.x) == [90]
    write(tmp_path / "images" / "3.png", 33)
    assert levels(source.load(tmp_path).train.x) == [0, 10, 20, 33, 40, 50, 60, 70, 80]
    for file in folder.iterdir():
        file.write_bytes(file.read_bytes()[:-1])
    assert levels(source.load(tmp_path).test.x) == [90]


def test_pictures_are_decoded_where_nothing_can_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kept, "LONG", 0.0)
    for i in range(10):
        write(tmp_path / "images" / f"{i}.png", 10 * i)
    (tmp_path / ".prepared").write_text("no folder")
    assert levels(ImageFolder("images", size=4).load(tmp_path).test.x) == [90]
    (tmp_path / "images" / "3.png").unlink()
    (tmp_path / "images" / "3.png").symlink_to("gone")
    with pytest.raises(DataError, match=r"3\.png is no picture"):
        ImageFolder("images", size=4).load(tmp_path)


def test_folders_are_classes_and_each_is_tested(tmp_path: Path):
    for label, name in enumerate(("cats", "dogs")):
        for i in range(10):
            write(tmp_path / name / f"{i}.png", 100 * label + i)
    train, test = ImageFolder(str(tmp_path), size=2, channels=1, n_classes=2).load(Path("unused"))
    assert (levels(test.x), test.y.tolist()) == ([9, 109], [0, 1])
    assert train.y.tolist() == [0] * 9 + [1] * 9
    assert train.x.shape == (18, 1, 2, 2)


def test_a_class_is_called_as_its_folder_is_wherever_the_splits_are(tmp_path: Path):
    for place in ("plain/car", "plain/train", "split/train/cats", "split/train/dogs", "split/test/cats"):
        write(tmp_path / place / "0.png", 0)
    assert ImageFolder("plain", n_classes=2).class_names(tmp_path) == ("car", "train")  # no test beside it: a class
    assert ImageFolder("split", n_classes=2).class_names(tmp_path) == ("cats", "dogs")
    assert ImageFolder("split").class_names(tmp_path) == ()
    assert ImageFolder("gone", n_classes=2).class_names(tmp_path) == ()


def test_a_run_keeps_the_names_of_classes_and_shows_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    for label, name in enumerate(("cats", "dogs")):
        for i in range(20):
            write(tmp_path / "pictures" / name / f"{i}.png", 200 * label + i)
    shown: list[Any] = []
    monkeypatch.setattr(confusion, "attention_map", lambda weights, *names, **_: shown.append(names[:2]) or EMPTY)
    words = ["~experiment", "data=image_folder", "data.source.path=pictures", "data.source.size=8"]
    words += ["data.source.n_classes=2", "data.validation_size=4", "paths.data_dir=."]
    words += ["model=conv_classifier", "model/encoder=conv", "trainer.max_epochs=1"]
    assert main(["train", *words]) == 0
    assert shown == [(("cats", "dogs"), ("cats", "dogs"))]
    (tmp_path / "pictures").rename(tmp_path / "elsewhere")
    capsys.readouterr()
    picture = "path=elsewhere/dogs/3.png"
    assert main(["predict", "run=outputs", picture, "output=a.csv", "accelerator=cpu"]) == 0
    assert capsys.readouterr().out.split()[::2][:2] in (["cats", "dogs"], ["dogs", "cats"])
    head, row = (tmp_path / "a.csv").read_text().splitlines()
    assert head == "picture,prediction,p(cats),p(dogs)"
    assert row.split(",")[1] in ("cats", "dogs")


def test_the_middle_of_an_upright_picture_is_resized(tmp_path: Path):
    """A camera's picture lies on its side and says so: rows are columns. 2 x 6, of which 2 x 2 are kept."""
    across = np.repeat(np.array([[0, 0, 40, 80, 255, 255]], np.uint8), 2, axis=0)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    for i in range(10):
        Image.fromarray(across).save(tmp_path / f"{i}.png", exif=exif)
    _, test = ImageFolder(str(tmp_path), size=2, channels=1).load(tmp_path)
    assert test.x[0, 0].tolist() == [[40, 40], [80, 80]]


@pytest.mark.parametrize("orientation", range(1, 10))
@pytest.mark.parametrize("resolution", [0x011A, 0x0100])
def test_pictures_are_upright_as_pillow_has_them(orientation: int, resolution: int, tmp_path: Path):
    """Also where other Exif data have types that there are not, of which Pillow cannot write some again."""
    pixels = np.random.default_rng(0).integers(0, 256, size=(8, 8, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112], exif[0x011A] = orientation, 72.0
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, "JPEG", exif=exif)
    with Image.open(written) as image:
        expected = np.asarray(ImageOps.exif_transpose(image)).transpose(2, 0, 1)
    content = written.getvalue().replace(b"\x01\x1a\x00\x05", resolution.to_bytes(2, "big") + b"\x00\x05")
    (tmp_path / "0.jpg").write_bytes(content)
    assert np.array_equal(pictures.decode_pictures([tmp_path / "0.jpg"], (3, 8, 8))[0], expected)


@pytest.mark.parametrize("validation", ["val", "valid", "validation", None])
def test_ready_made_splits_are_kept(validation: str | None, tmp_path: Path):
    sizes = {"train": 6, "test": 3} | ({validation: 2} if validation else {})
    for level, (part, n) in enumerate(sizes.items()):
        for i in range(n):
            write(tmp_path / "images" / part / "ab"[i % 2] / f"{i}.png", 100 * level + i)
    given: dict[str, Any] = {"root": str(tmp_path), "seed": 0, "batch_size": 4, "eval_batch_size": 4}
    source = ImageFolder("images", size=2, channels=1, n_classes=2)
    data = ImageDataModule("mine", source, validation_size=None, **given)
    rows = {
        split: data.materialize(torch.arange(data.n_rows(split)), split) for split in ("train", "validation", "test")
    }
    found = {split: sorted((255 * batch.x[:, 0, 0, 0]).round().int().tolist()) for split, batch in rows.items()}
    assert found["test"] == [100, 101, 102]
    again = ImageDataModule(
        "mine", ImageFolder("images", size=2, channels=1, n_classes=2), validation_size=None, **given
    )
    again.share({data._key: data._splits})
    assert again._split("train") is data._split("train")  # by another job of a sweep, too
    if validation:
        assert (found["train"], found["validation"]) == ([0, 1, 2, 3, 4, 5], [200, 201])
    else:
        assert sorted(found["train"] + found["validation"]) == [0, 1, 2, 3, 4, 5]
    for batch in rows.values():
        assert batch.y is not None
        assert torch.equal(batch.y, (255 * batch.x[:, 0, 0, 0]).round().long() % 2)


@pytest.mark.parametrize(
    ("parts", "n_classes", "said"),
    [
        (("train/a", "val/a"), None, "images holds train and val, and no test; test is what is"),
        (("train/a", "test/a", "val/a", "valid/a"), None, "images holds val and valid: one is enough to validate on"),
        (("train/a", "train/b", "test/a", "test/c"), 2, "images: test has other folders, one for each class, than"),
        (("train/a", "train/b", "test/a"), 2, "images/test holds 1 folders, one for each class, but"),
    ],
)  # fmt: skip
def test_splits_that_do_not_fit_are_told_in_a_line(parts, n_classes, said: str, tmp_path: Path):
    for part in parts:
        write(tmp_path / "images" / part / "0.png", 0)
    with pytest.raises(DataError) as error:
        ImageFolder("images", n_classes=n_classes).load(tmp_path)
    assert said in str(error.value)


@pytest.mark.parametrize(("width", "height", "crop"), [(178, 218, 148), (9, 6, 4), (7, 6, 4), (5, 5, 5)])
def test_the_crop_is_that_of_torchvision(width: int, height: int, crop: int, tmp_path: Path):
    pixels = np.random.default_rng(0).integers(0, 256, size=(height, width, 3), dtype=np.uint8)
    for i in range(10):
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    _, test = ImageFolder(str(tmp_path), size=crop, crop=crop).load(tmp_path)
    assert torch.equal(test.x[0], center_crop(torch.from_numpy(pixels).permute(2, 0, 1), [crop, crop]))
    _, smaller = ImageFolder(str(tmp_path), size=2, crop=crop).load(tmp_path)
    _, whole = ImageFolder(str(tmp_path), size=2).load(tmp_path)
    assert crop == width or not torch.equal(smaller.x, whole.x)
    with pytest.raises(DataError, match=rf"{width} x {height} pixels, fewer than data.source.crop={height + 4}$"):
        ImageFolder(str(tmp_path), crop=height + 4).load(tmp_path)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "images: no such folder of pictures; data.source.path says which, from paths.data_dir or"),
        (("few",), "few holds 3 pictures (.bmp, .gif, .jpeg, .jpg, .png, .tif, .tiff, .webp): too few to keep every"),
        (("few", 8, 3, 2), "few holds 0 folders, one for each class, but data.source.n_classes is 2; null is for"),
        (("damaged",), "damaged/9.png is no picture (cannot identify image file "),
        (("broken",), "broken/0.png is no picture (broken PNG file (chunk b'IDA!')); leave it out"),
        (("deep",), "deep/0.png has more than 8 bits per channel; attelbo's images have 8: save it with as many"),
    ],
)
def test_what_is_no_folder_of_pictures_is_told_in_a_line(words, said: str, tmp_path: Path):
    for i in range(10):
        write(tmp_path / "damaged" / f"{i}.png", i)
        write(tmp_path / "deep" / f"{i}.png", i, mode="I;16" if i == 0 else "L")
        write(tmp_path / "broken" / f"{i}.png", i)
    for i in range(3):
        write(tmp_path / "few" / f"{i}.png", i)
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "broken" / "0.png")  # of several chunks
    first, _, rest = (tmp_path / "broken" / "0.png").read_bytes().rpartition(b"IDAT")
    (tmp_path / "broken" / "0.png").write_bytes(first + b"IDA!" + rest)
    (tmp_path / "damaged" / "9.png").write_bytes(b"GIF?")
    with pytest.raises(DataError) as error:
        ImageFolder(*(words or ("images",))).load(tmp_path)
    assert said in str(error.value)


def png_of_16_bits(kind: int, channels: int) -> bytes:
    """2 x 2 pixels; kind: PNG's own number of gray (0), color (2) and either with opacity (4, 6)."""
    header = struct.pack(">IIBBBBB", 2, 2, 16, kind, 0, 0, 0)
    rows = zlib.compress(bytes(2 * (1 + 2 * 2 * channels)))
    chunks = [(b"IHDR", header), (b"IDAT", rows), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )


def tiff_of_16_bits(order: Literal["little", "big"]) -> bytes:
    """One pixel of three colors."""
    mark = {"little": "<", "big": ">"}[order]
    # Width, height, bits, compression, colors, where the pixel is, samples, rows, bytes; what is long lies behind.
    tags = [(256, 3, 1, 1), (257, 3, 1, 1), (258, 3, 3, 122), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 128)]
    tags += [(277, 3, 1, 3), (278, 3, 1, 1), (279, 4, 1, 6)]
    content = {"little": b"II*\0", "big": b"MM\0*"}[order] + struct.pack(f"{mark}IH", 8, len(tags))
    for tag, kind, count, value in tags:
        inside = struct.pack(f"{mark}HH", value, 0) if kind == 3 and count == 1 else struct.pack(f"{mark}I", value)
        content += struct.pack(f"{mark}HHI", tag, kind, count) + inside
    return content + bytes(4) + struct.pack(f"{mark}HHH", 16, 16, 16) + bytes(6)


DEEP = {
    "color.png": png_of_16_bits(2, 3),
    "gray_and_opacity.png": png_of_16_bits(4, 2),
    "color_and_opacity.png": png_of_16_bits(6, 4),
    "little.tif": tiff_of_16_bits("little"),
    "big.tif": tiff_of_16_bits("big"),
}


@pytest.mark.parametrize("name", DEEP)
def test_colors_of_16_bits_are_refused_as_grays_are(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(DEEP[name])
    with Image.open(tmp_path / name) as image:
        assert image.mode in {"RGB", "RGBA"}  # it is read, with 8 bits
        image.load()
    with pytest.raises(DataError, match=f"{name} has more than 8 bits per channel"):
        decode_pictures([tmp_path / name], (3, 2, 2))


def test_a_bitmap_of_16_bits_a_pixel_has_fewer_than_8_for_a_color(tmp_path: Path) -> None:
    masks = struct.pack("<III", 0xF800, 0x7E0, 0x1F)
    header = struct.pack("<IiiHHIIiiII", 40, 1, 1, 1, 16, 3, 4, 0, 0, 0, 0) + masks
    pixel = struct.pack("<HH", 0xF800, 0)
    start = struct.pack("<2sIHHI", b"BM", 14 + len(header) + 4, 0, 0, 14 + len(header))
    (tmp_path / "red.bmp").write_bytes(start + header + pixel)
    assert decode_pictures([tmp_path / "red.bmp"], (3, 1, 1)).flatten().tolist() == [255, 0, 0]


def test_a_vae_is_trained_on_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for i in range(40):
        write(tmp_path / "data" / "images" / f"{i}.jpg", 6 * i)
    words = ["~experiment", "data=image_folder", "data.source.size=8", "data.validation_size=4", "callbacks=none"]
    words += ["model/encoder=mlp", "model/decoder=mlp", "model/likelihood=discretized_logistic", "trainer.max_epochs=1"]
    assert (
        main(["train", *words, "evaluation.n_samples=2", "data.name=mine", f"paths.data_dir={tmp_path / 'data'}"]) == 0
    )
    assert len(list((tmp_path / "outputs" / "mine").glob("*/result.json"))) == 1
