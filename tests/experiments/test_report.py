import base64
import json
import math
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from attelbo.experiments.curves import HEIGHT, WIDTH, Curve, line_chart, nice_ticks, short_number, thin_out
from attelbo.experiments.exhibits import earlier, final
from attelbo.experiments.report import _facts, write_report
from attelbo.experiments.tables import print_result
from attelbo.training.loggers import CsvLogger, RunInfo
from attelbo.training.media import save_png

RESULT = {
    "metrics": {
        "test/loss": 26.5, "test/elbo": -26.514, "test/nll": 25.1268, "test/nll_std_error": 0.3141,
        "test/reconstruction": 12.345, "test/kl": 14.169, "test/bits_per_dim": 0.59771, "test/active_units": 13.0,
        "test/mutual_information": 5.678, "test/aggregate_kl": 8.491, "test/total_correlation": -0.0044,
    },
    "measures": [
        ["nll", "NLL", "nats", 2, "1,000 importance samples, 360 images", ""], ["elbo", "ELBO", "nats", 2, "", ""],
        ["reconstruction", "reconstruction", "nats", 2, "", ""], ["kl", "KL", "nats", 2, "", ""],
        ["bits_per_dim", "bits/dim", "bits, from the ELBO", 4, "", ""],
        ["active_units", "active units", "of 16 latent dimensions", 0, "", ""],
        ["perplexity", "perplexity", "", 1, "", ""],
        ["mutual_information", "mutual information", "nats, I(x; z)", 2, "", ""],
        ["total_correlation", "total correlation", "nats", 2, "", ""],
    ],
    "nll_samples": 1000, "nll_images": 360, "seconds": {"train": 83.4, "evaluate": 4.25}, "checkpoint": "best",
    "epochs": 20, "steps": 1234, "parameters": 56789, "samples_per_second": 12345.6,
}  # fmt: skip
CONFIG = {"name": "digits/conv <attention>", "seed": 0, "model": {"latent_dim": 16}}
PICTURE = np.random.Generator(np.random.PCG64(2)).integers(0, 256, (12, 34, 3), dtype=np.uint8)


def complete_run(folder: Path) -> Path:
    run_dir = folder / "digits" / "20260101-000000-abcd1234"
    (run_dir / ".hydra").mkdir(parents=True)
    (run_dir / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    (run_dir / ".hydra" / "choices.yaml").write_text("data: digits\nmodel/likelihood: bernoulli\ndebug: null\n")
    (run_dir / "result.json").write_text(json.dumps(RESULT))
    status = {"state": "done", "started": "2026-01-01T10:00:00.5+00:00", "ended": "2026-01-01T10:01:30+00:00"}
    (run_dir / "status.json").write_text(json.dumps(status))
    provenance = {
        "argv": ["/somewhere/bin/attelbo", "train", "name=a b"],
        "seed": 0,
        "git": {"sha": "0123abcd", "diff": "--- a\n+++ <script>alert(1)</script>"},
        "versions": {"torch": "2.15.0"},
        "hardware": {"cpu": "EPYC", "cores": 2, "gpus": []},
        "data": {"checksums": {"train": "feed" * 16}},
    }
    (run_dir / "provenance.json").write_text(json.dumps(provenance))
    logger = CsvLogger(RunInfo(run_dir, "n", "i", "g", "train", (), {}))
    for step in range(50, 1251, 50):
        value = 20 + 100 / step
        terms = {"loss": value, "elbo": -value, "reconstruction": value / 2, "kl": value / 2}
        terms |= {"discriminator_loss": 3 / value, "bits_per_dim": value / 64, "active_units": 9.0, "extra": 1.0}
        logger.log_metrics({f"train/{name}": term for name, term in terms.items()}, step)
        if step % 250 == 0:
            logger.log_metrics({f"val/{name}": 1.01 * term for name, term in terms.items()}, step)
    logger.finalize("success")
    save_png(PICTURE, run_dir / "media" / "samples.png")
    save_png(PICTURE, run_dir / "media" / "latent_map.png")
    (run_dir / "media" / "samples.txt").write_text("<b>to be</b>\n  & not\n", encoding="utf-8")
    save_png(PICTURE, run_dir / "media" / "attention_layer_1.png")
    save_png(PICTURE, run_dir / "media" / "unheard_of.png")
    for epoch in range(1, 41):
        save_png(PICTURE, run_dir / "media" / f"samples-epoch{epoch:04d}.png")
    return run_dir


class Page(HTMLParser):
    """The visible text, the addresses that a browser would open, and whether every tag is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.images: list[dict[str, Any]] = []
        self.addresses: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        attributes = {name: value or "" for name, value in attrs}
        self.addresses += [attributes[name] for name in ("src", "href", "data", "action") if name in attributes]
        if tag == "img":
            self.images.append(attributes)
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Closed at once, as in SVG."""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style" and data.strip():
            self.text.append(data.strip())


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = complete_run(tmp_path_factory.mktemp("outputs"))
    assert write_report(run_dir) == run_dir / "report.html"
    return run_dir


@pytest.fixture(scope="module")
def page(run_dir: Path) -> Page:
    page = Page((run_dir / "report.html").read_text(encoding="utf-8"))
    assert page.open == []
    return page


def test_headline_numbers_have_their_units(page):
    text = "|".join(page.text)
    assert "NLL|25.13|± 0.31 nats|1,000 importance samples, 360 images; ± standard error|" in text
    assert "|ELBO|−26.51|nats|test split|" in text  # noqa: RUF001
    assert "|Reconstruction|12.35|nats|" in text or "|Reconstruction|12.34|nats|" in text
    assert "Discriminator loss" in text
    assert "|KL|14.17|nats|" in text
    assert "|Bits/dim|0.5977|bits, from the ELBO|" in text
    assert "|Active units|13|of 16 latent dimensions|" in text
    assert "|Mutual information|5.68|nats, I(x; z)|" in text
    assert "|Total correlation|0.00|nats|" in text  # without a sign
    assert "Aggregate KL" not in text  # it is no measure of this result
    assert "Perplexity" not in text  # there is none in it
    for label, value in (
        ("training", "1:23"),
        ("evaluation", "4.2 s"),
        ("throughput", "12,346 samples/s"),
        ("epochs", "20"),
        ("steps", "1,234"),
        ("started", "2026-01-01 10:00:00 UTC"),
    ):
        assert f"|{label}|{value}|" in text


def test_the_throughput_of_a_text_is_in_tokens_too():
    facts = dict(_facts({}, {"samples_per_second": 12.5, "tokens_per_second": 3200.0}))
    assert facts["throughput"] == "12 samples/s, 3,200 tokens/s"


def test_a_table_has_no_negative_zero(run_dir, capsys):
    print_result(RESULT, run_dir)
    assert re.search(r"total correlation +0\.00 ", capsys.readouterr().out)


def test_everything_written_by_others_is_escaped(run_dir, page):
    source = (run_dir / "report.html").read_text()
    assert "script" not in page.tags
    assert "<script" not in source
    assert "+++ &lt;script&gt;alert(1)&lt;/script&gt;" in source
    assert page.text.count("digits/conv <attention>") == 1  # the heading; the parser has undone the escaping


def test_nothing_is_fetched(run_dir, page):
    assert page.addresses
    assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
    style = re.search(r"<style>(.*)</style>", (run_dir / "report.html").read_text(), re.DOTALL)
    assert style is not None
    assert "url(" not in style[1]
    assert "@import" not in style[1]
    assert not page.tags & {"link", "script", "iframe", "object"}


def test_pictures_are_embedded_whole_and_in_order(run_dir, page):
    titles = [image["alt"] for image in page.images]
    assert titles[:4] == ["Samples", "Latent map", "Attention layer 1", "Unheard of"]
    # Of 40 earlier epochs a dozen, first and last among them.
    assert (len(titles[4:]), titles[4], titles[-1]) == (12, "Samples, epoch 1", "Samples, epoch 40")
    first = base64.b64decode(page.images[0]["src"].partition(",")[2])
    assert first == (run_dir / "media" / "samples.png").read_bytes()
    assert (page.images[0]["width"], page.images[0]["height"]) == ("34", "12")
    assert [image.get("class") for image in page.images[:2]] == ["pixelated", None]
    assert any("the green cell" in text for text in page.text)


def test_a_picture_whose_name_only_looks_like_that_of_an_epoch_is_one_of_the_end(tmp_path):
    """``attelbo sample checkpoint=epoch5`` of a DRAW writes such a name; the report of the run ended in an error."""
    path = save_png(PICTURE, tmp_path / "media" / "samples-n4-seed0-epoch5-strokes.png")
    assert (final([path]), earlier([path])) == ([path], [])
    assert "Samples-n4-seed0-epoch5-strokes" in write_report(tmp_path).read_text()


def test_every_kind_of_picture_and_its_moving_form_are_told(tmp_path, capsys):
    """What the rows of ``segments`` are was said nowhere, and a GIF was in the report only."""
    for name in ("segments.png", "strokes.png", "strokes.gif"):
        save_png(PICTURE, tmp_path / "media" / name)
    print_result(RESULT, tmp_path)
    assert [line.split("/")[-1] for line in capsys.readouterr().out.splitlines() if "/media/" in line] == [
        "segments.png", "strokes.gif", "strokes.png",
    ]  # fmt: skip
    assert "the color of the slot" in write_report(tmp_path).read_text()


def test_texts_stand_as_they_were_written(run_dir):
    source = (run_dir / "report.html").read_text()
    assert '<pre class="written">&lt;b&gt;to be&lt;/b&gt;\n  &amp; not\n</pre>' in source


def test_curves_configuration_and_provenance_are_there(page):
    text = "|".join(page.text)
    assert "ELBO|nats|training −20.08|validation −20.28|" in text  # noqa: RUF001
    assert "|KL(q || p)|nats|training 10.04|validation 10.14|" in text
    assert "|Loss|" not in text  # it is the negative ELBO
    assert "|Active units|of 16 latent dimensions|training 9.00|validation 9.09|" in text
    for unheard in ("bits, from the ELBO|training", "Extra"):  # nothing new, and no measure
        assert unheard not in text
    assert "validation, step 1,250: -20.28" in text
    assert "|attelbo train 'name=a b'|" in text
    assert "|model/likelihood|bernoulli|" in text
    assert "debug" not in text
    assert "latent_dim: 16" in text
    for label, value in (("git sha", "0123abcd"), ("torch", "2.15.0"), ("gpus", "none"), ("seed", "0")):
        assert f"|{label}|{value}|" in text


def test_a_failed_run_says_why_and_then_where(tmp_path):
    """The reason was the last line of a traceback, and cut off at the edge of the page."""
    error = "Traceback\n  a & b\nValueError: 1 < 2 & 3\n"
    (tmp_path / "status.json").write_text(json.dumps({"state": "failed", "error": error}))
    page = Page(write_report(tmp_path).read_text(encoding="utf-8"))
    assert "failed" in page.text
    assert "ValueError: 1 < 2 & 3|Where|Traceback\n  a & b" in "|".join(text.strip() for text in page.text)
    assert not page.images


def test_a_run_of_an_installed_attelbo_has_no_git(tmp_path):
    recorded = {
        "seed": 7,
        "git": None,
        "versions": {"torch": "2.15.0"},
        "data": {"checksums": {}},
        "hardware": {"cpu": "", "gpus": []},
    }
    (tmp_path / "provenance.json").write_text(json.dumps(recorded))
    page = Page(write_report(tmp_path).read_text(encoding="utf-8"))
    assert "|seed|7|" in "|".join(page.text)
    assert not any("git" in part for part in page.text)


def test_an_empty_directory_has_a_report_too(tmp_path):
    page = Page(write_report(tmp_path).read_text(encoding="utf-8"))
    assert tmp_path.name in page.text
    assert not any(part in page.text for part in ("Learning curves", "Pictures", "Provenance"))


# -- curves --------------------------------------------------------------------------------------------


def drawn(svg: str, kind: str) -> list[list[tuple[float, float]]]:
    tree = ElementTree.fromstring(svg)
    lines = [node for node in tree.iter("polyline") if node.get("class") == f"curve {kind}"]
    return [[tuple(map(float, p.split(","))) for p in (node.get("points") or "").split()] for node in lines]  # pyright: ignore


def test_points_are_drawn_to_scale():
    svg = line_chart("KL", [Curve("train", "training", [(0, 0.0), (50, 10.0), (100, 40.0)])])
    ((x0, y0), (x1, y1), (x2, y2)) = drawn(svg, "train")[0]
    assert x0 < x2 <= WIDTH
    assert 0 <= y2 < y0 <= HEIGHT
    assert x1 - x0 == pytest.approx((x2 - x0) / 2, abs=0.1)
    assert y0 - y1 == pytest.approx((y0 - y2) / 4, abs=0.1)
    # The tick labels stand at the heights of their values.
    labels = [node for node in ElementTree.fromstring(svg).iter("text") if node.get("text-anchor") == "end"]
    ticks = {node.text: float(node.get("y") or 0) for node in labels}
    assert ticks["40"] - 3.5 == pytest.approx(y2, abs=0.1)
    assert ticks["10"] - 3.5 == pytest.approx(y1, abs=0.1)


def test_the_first_steps_do_not_flatten_the_rest():
    points = [(0, 1e6), *[(step, 100.0 - step / 100) for step in range(10, 1001, 10)]]
    line = drawn(line_chart("loss", [Curve("train", "training", points)]), "train")[0]
    late = [y for _, y in line[10:]]
    assert max(late) - min(late) > HEIGHT / 2


def test_nan_is_left_out_and_nothing_gives_nothing():
    points = [(1, 1.0), (2, math.nan), (3, 3.0), (4, math.inf)]
    assert len(drawn(line_chart("loss", [Curve("val", "validation", points)]), "val")[0]) == 2
    assert line_chart("loss", [Curve("train", "t", []), Curve("val", "v", [(1, math.nan)])]) == ""


def test_first_steps_that_are_not_out_of_scale_are_seen():
    """The active units of the first epochs, 0 and 8, were below an axis that began at 5."""
    units = [0.0, 8.0, *[16.0] * 20, *[7.0] * 20]
    (line,) = drawn(line_chart("active units", [Curve("val", "validation", [*enumerate(units, 1)])]), "val")
    assert all(0 <= y <= HEIGHT - 26 for _, y in line)


@pytest.mark.parametrize("points", [[(7, 2.0)], [(0, 5.0), (10, 5.0)], [(0, 1e-12), (1, 2e-12)], [(0, -1e9), (1, 1e9)]])
def test_strange_ranges_can_be_drawn(points):
    for x, y in drawn(line_chart("loss", [Curve("train", "training", points)]), "train")[0]:
        assert 0 <= x <= WIDTH
        assert 0 <= y <= HEIGHT


def test_one_validation_is_a_dot_between_labels_that_fit():
    """A run of one epoch: 7.10979 does not fit beside the axis, and there is no step 32.2."""
    for kind in ("train", "val"):
        tree = ElementTree.fromstring(line_chart("perplexity", [Curve(kind, "one", [(32, 7.10979)])]))
        assert [node.text for node in tree.iter("text")] == ["7.11", "32"]
        (dot,) = tree.iter("circle")
        assert WIDTH / 3 < float(dot.get("cx") or 0) < 2 * WIDTH / 3


@pytest.mark.parametrize("value", [0.0, 7.1, -7e16, 3e38])
def test_one_value_is_in_the_middle_however_large(value):
    """The loss of a run that diverged: half a unit on either side of -7e16 is no range, and the report failed."""
    (dot,) = ElementTree.fromstring(line_chart("loss", [Curve("val", "one", [(32, value)])])).iter("circle")
    assert HEIGHT / 3 < float(dot.get("cy") or 0) < 2 * HEIGHT / 3


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 10, [0, 5, 10]),
        (0.1, 0.9, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (-143, -101, [-160, -140, -120, -100]),
        (3, 3, [3]),
    ],
)
def test_ticks_are_round_numbers_around_the_range(low, high, ticks):
    assert nice_ticks(low, high) == ticks


@pytest.mark.parametrize(("number", "text"), [(0, "0"), (950, "950"), (1500, "1.5k"), (-2e6, "−2M"), (0.25, "0.25")])  # noqa: RUF001
def test_short_numbers(number, text):
    assert short_number(number) == text


def test_long_curves_are_averaged_down_and_end_where_they_end():
    points = [(step, float(step % 2)) for step in range(10_000)]
    few = thin_out(points, 100)
    assert len(few) <= 100
    assert few[-1] == points[-1]
    assert all(abs(value - 0.5) < 0.01 for _, value in few[:-2])
