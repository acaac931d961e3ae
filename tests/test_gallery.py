"""The gallery: its commands can be typed, and the page has what the runs say and the pictures that are there."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from benchmarks import gallery
from benchmarks.exhibits import EXHIBITS, Exhibit, Work
from PIL import Image

from attelbo.cli import main
from attelbo.cli.parsing import parse
from attelbo.cli.running import plan_of
from attelbo.experiments.configuration import compose
from attelbo.training.media import save_gif, save_png

PAGE = gallery.PAGE.read_text(encoding="utf-8")
COMMANDS = list(dict.fromkeys(command for exhibit in EXHIBITS for command in exhibit.commands))
PICTURE = np.arange(300, dtype=np.uint8).repeat(3).reshape(15, 20, 3)


def trained(folder: Path, name: str, nll: float, state: str = "done", started: str = "2031-05-03T10:00:00") -> Path:
    run = folder / "outputs" / name / started[:10]
    (run / "checkpoints").mkdir(parents=True)
    (run / "media").mkdir()
    (run / "checkpoints" / "best.ckpt").touch()
    contents = {
        "config.yaml": {},
        "status.json": {"state": state, "started": started},
        "provenance.json": {"git": {"sha": "0123456789", "diff": ""}},
        "result.json": {
            "metrics": {"test/nll": nll, "test/nll_std_error": 0.25, "test/mig": 0.5},
            "measures": [["nll", "NLL", "nats", 2, "200 importance samples"], ["mig", "MIG", "", 3]],
            "seconds": {"train": 61.7},
        },
    }
    for file, content in contents.items():
        (run / file).write_text(json.dumps(content))
    return run


def exhibit(name: str, *works: Work) -> Exhibit:
    return Exhibit(name, f"The {name}", ("train model=vae", "sample run=x"), works, f"What {name} show.")


def published(page: Path, folder: Path, *exhibits: Exhibit) -> str:
    gallery.publish(exhibits, folder, page)
    return page.read_text(encoding="utf-8")


def test_a_section_has_commands_picture_caption_and_the_numbers_of_the_run(tmp_path):
    run = trained(tmp_path, "digits/vae", 18.0)
    save_png(PICTURE, run / "media" / "samples.png")
    one = exhibit("samples", Work("outputs/digits/vae", "media/samples.png", ("nll", "mig")))
    page = published(tmp_path / "page.md", tmp_path, one)
    assert page.endswith(
        "\n## The samples\n\n```bash\nattelbo train model=vae\nattelbo sample run=x\n```\n\n"
        "![The samples](page/samples.png)\n\nWhat samples show.\n\n"
        "- NLL 18.00 ± 0.25 nats (200 importance samples); MIG 0.500; 62 s of training; 2031-05-03, 0123456\n"
    )
    assert (np.asarray(Image.open(tmp_path / "page" / "samples.png").convert("RGB")) == PICTURE).all()


def test_pictures_side_by_side_and_texts(tmp_path):
    for name, nll in (("a", 18.0), ("b", 17.0)):
        trained(tmp_path, name, nll)
        save_gif([PICTURE, PICTURE.T.copy().reshape(PICTURE.shape)], tmp_path / f"{name}.gif")
    (tmp_path / "c.txt").write_text("## not a title\n\n```\nlast\n")
    works = [Work(f"outputs/{name}", f"{name}.gif", label=f"prior {name}") for name in "ab"]
    exhibits = exhibit("pair", *works), exhibit("text", Work("outputs/a", "c.txt", ()))
    page = published(tmp_path / "page.md", tmp_path, *exhibits)
    assert (
        "| prior a | prior b |\n| --- | --- |\n| ![prior a](page/pair_1.gif) | ![prior b](page/pair_2.gif) |\n" in page
    )
    assert "- prior b: NLL 17.00 ± 0.25 nats" in page
    assert "```\n\n    ## not a title\n\n    ```\n    last\n\nWhat text show.\n" in page
    assert sorted(path.name for path in (tmp_path / "page").iterdir()) == ["pair_1.gif", "pair_2.gif"]
    assert (tmp_path / "page" / "pair_2.gif").read_bytes() == (tmp_path / "b.gif").read_bytes()
    assert published(tmp_path / "page.md", tmp_path / "elsewhere", *exhibits) == page
    twice = published(tmp_path / "other.md", tmp_path, exhibit("pair", works[0], works[0]))
    assert twice.count("\n- ") == twice.count("\n- NLL 18.00") == 1  # one run, one line


def test_what_was_not_run_again_is_kept_and_what_is_no_longer_shown_is_removed(tmp_path):
    works = {name: Work(f"outputs/{name}", f"media/{name}.png") for name in ("a", "b", "c")}
    exhibits = [exhibit(name, work) for name, work in works.items()]
    for name in ("a", "b"):
        save_png(PICTURE, trained(tmp_path / "first", name, 18.0) / "media" / f"{name}.png")
    before = published(tmp_path / "page.md", tmp_path / "first", *exhibits)
    assert re.findall("^## (.*)", before, re.MULTILINE) == ["The a", "The b"]
    save_png(PICTURE, trained(tmp_path / "second", "b", 17.0) / "media" / "b.png")
    trained(tmp_path / "second", "c", 17.0, state="interrupted")
    after = published(tmp_path / "page.md", tmp_path / "second", *exhibits)
    assert after == before.replace("18.00", "17.00").replace("17.00", "18.00", 1)
    assert [path.name for path in sorted((tmp_path / "page").iterdir())] == ["a.png", "b.png"]
    assert published(tmp_path / "page.md", tmp_path / "second", exhibits[1]).count("\n## ") == 1
    assert [path.name for path in (tmp_path / "page").iterdir()] == ["b.png"]


def test_a_picture_of_many_colors_gets_a_palette(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    (tmp_path / "small.png").write_bytes(gallery.small(save_png(noise, tmp_path / "noise.png")))
    shown = Image.open(tmp_path / "small.png")
    assert shown.mode == "P"
    assert np.abs(np.asarray(shown.convert("RGB"), dtype=int) - noise).mean() < 25


def test_what_failed_is_not_shown(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        gallery.give("sample run=outputs/nothing", tmp_path)
    assert ended.value.code == 2
    assert "run: outputs/nothing: no such folder" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_composes(command: str):
    name, *words = shlex.split(command)
    if name == "train":
        assert main(["check", *words]) == 0
    else:
        plan_of(parse(name, words))


def test_what_a_command_needs_is_trained_or_written_by_one_above():
    for each in EXHIBITS:
        trained = set()
        for command in each.commands:
            name, *words = shlex.split(command)
            given = dict(word.split("=", 1) for word in words)
            if name == "train":
                trained.add(f"outputs/{compose('train', words).config['name']}")
            else:
                assert given["run"] in trained, command
            if name == "fit-prior":
                trained.add(f"{given['run']}-{given['prior']}")
        written = {Path(word.partition("=")[2]).stem for command in each.commands for word in shlex.split(command)}
        for work in each.works:
            assert work.run in trained
            assert work.file.startswith("media/") or Path(work.file).stem in written


def test_names_and_titles_are_of_one_exhibit_each():
    for values in zip(*((each.name, each.title) for each in EXHIBITS), strict=True):
        assert len(set(values)) == len(values)


# -- the page as it is ---------------------------------------------------------------------------------


def test_the_page_shows_every_exhibit_with_its_commands_and_its_caption():
    sections = {text.partition("\n")[0]: text for text in re.split("(?m)^## ", PAGE)[1:]}
    assert list(sections) == [each.title for each in EXHIBITS]
    for each in EXHIBITS:
        (block,) = re.findall("```bash\n(.*?)```", sections[each.title], re.DOTALL)
        assert block.splitlines() == [f"attelbo {command}" for command in each.commands]
        assert f"\n{each.caption}\n" in sections[each.title]


def test_every_picture_is_there_and_nothing_else_is():
    folder = gallery.PAGE.with_suffix("")
    named = re.findall(r"!\[[^]]*\]\(gallery/([^)]+)\)", PAGE)
    assert sorted(named) == sorted(path.name for path in folder.iterdir())
    assert sum(path.stat().st_size for path in folder.iterdir()) < 1_500_000
