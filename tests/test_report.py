"""The report: complete, closed to the network, and safe against what file names may hold."""

from __future__ import annotations

import html.parser
import math
import re

import numpy as np
import pytest

from nearfar.evaluation import Picture, evaluate_features, thumbnail, write_report
from nearfar.evaluation.charts import apart

NASTY = [
    "<img src=x onerror=alert(1)>.png",
    "</script><script>alert(2)</script>",
    '" onload="alert(3)',
    "caf\udce9\n.png",
]
PNG = thumbnail(np.zeros((1, 8, 8), np.uint8))
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(html.parser.HTMLParser):
    """Tags and attributes of a page; every tag must be closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def page(tmp_path, **parts) -> Page:
    settings = {"run": {"method": "simclr", "data": "digits"}} | parts
    return Page(write_report(tmp_path / "report.html", **settings).read_text(encoding="utf-8"))


def rows(n: int) -> list[dict[str, float]]:
    made = [{"step": i, "epoch": i / 10, "loss": 5 - i / n, "chance": 5.5, "std": 0.9, "rank": 30.0} for i in range(n)]
    made[3]["loss"] = math.nan
    return made


@pytest.fixture(scope="module")
def evaluation():
    random = np.random.default_rng(0)
    y = np.arange(60) % 3
    good = np.eye(3)[y] * 3 + random.normal(size=(60, 3))
    named = {NASTY[0]: (random.normal(size=(60, 4)), random.normal(size=(60, 4))), "trained encoder": (good, good)}
    return evaluate_features(named, y, y, per_class=(1, 5), repeats=3, structure=True)


def test_report_of_hardly_anything(tmp_path):
    empty = page(tmp_path, run={})
    assert "Accuracy was not measured here" in empty.text and "What made this" in empty.text
    assert not [tag for tag, _ in empty.tags if tag == "svg"]


def test_report_holds_scores_meanings_and_protocols(tmp_path, evaluation):
    made = page(tmp_path, evaluation=evaluation, curves=rows(40), next_commands=["nearfar embed runs/x photos/"])
    for measure, score in evaluation.scores["trained encoder"].items():
        assert measure in made.text and score.protocol in made.text and f"{100 * score.value:.1f}" in made.text
    assert evaluation.scores["trained encoder"]["all labels"].chosen in made.text
    assert "nearfar embed runs/x photos/" in made.text
    charts = [attributes["aria-label"] for tag, attributes in made.tags if tag == "svg"]
    assert charts[1:] == ["loss over epochs", "std over epochs", "rank over epochs"] and "Accuracy" in charts[0]
    ids = [attributes["id"] for _, attributes in made.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_report_of_the_stored_json_is_the_same(tmp_path, evaluation):
    once = write_report(tmp_path / "a.html", run={"method": "m"}, evaluation=evaluation).read_bytes()
    again = write_report(tmp_path / "b.html", run={"method": "m"}, evaluation=evaluation.as_dict()).read_bytes()
    assert once == again


def test_S5_names_labels_settings_and_warnings_are_escaped(tmp_path, evaluation):
    examples = [[Picture(PNG, name, label) for name, label in zip(NASTY, reversed(NASTY), strict=True)], [PNG, PNG]]
    run = {"method": NASTY[0], "data": NASTY[1], "versions": {NASTY[2]: NASTY[3]}, "seed": -1}
    made = page(
        tmp_path,
        run=run,
        evaluation=evaluation,
        examples=examples,
        warnings=NASTY,
        next_commands=NASTY,
        curves=rows(9),
    )
    allowed = "html head meta title style body main header div h1 h2 h3 p ul li small b span svg defs g path use"
    allowed += (
        " clippath rect text figure figcaption img table thead tbody tr th td details summary dl dt dd pre footer"
    )
    assert {tag for tag, _ in made.tags} <= set(allowed.split())
    assert not [a for _, attributes in made.tags for a in attributes if a.startswith("on")]
    assert made.text.count(NASTY[0]) >= 3 and "caf\\udce9 .png" in made.text and "seed -1" in made.text


def test_report_loads_nothing_and_runs_nothing(tmp_path, evaluation):
    made = page(tmp_path, evaluation=evaluation, curves=rows(30), examples=[[PNG] * 3])
    policy = next(a["content"] for tag, a in made.tags if tag == "meta" and "http-equiv" in a)
    assert policy.startswith("default-src 'none'") and "script" not in policy
    addresses = [v for _, a in made.tags for k, v in a.items() if k in ("src", "href", "xlink:href") and v]
    assert len(addresses) > 5 and all(v.startswith(("data:image/png;base64,", "#")) for v in addresses)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"@import|url\((?!#)", text)


def test_charts_take_the_colours_of_the_page(tmp_path, evaluation):
    page(tmp_path, evaluation=evaluation, curves=rows(30))
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    drawings = " ".join(re.findall(r"<svg.*?</svg>", text, re.DOTALL))
    assert "var(--series-0)" in drawings and "var(--ink)" in drawings
    assert not re.search(r"(fill|stroke): #(?!ffffff)", drawings)
    assert text.count("prefers-color-scheme: dark") == 1


def test_long_runs_make_no_long_reports(tmp_path):
    long = [{"step": i, "loss": math.sin(i)} for i in range(50_000)]
    page(tmp_path, curves=long)
    assert (tmp_path / "report.html").stat().st_size < 60_000


def test_names_at_the_ends_of_lines_do_not_overlap():
    places = apart([1.0, 1.5, 1.6, 9.0], 1.0)
    assert all(b - a >= 1 - 1e-9 for a, b in zip(places, places[1:], strict=False)) and places[3] == 9.0
    assert sum(places[:3]) / 3 == pytest.approx(4.1 / 3)
    assert apart([3.0, 8.0], 1.0) == [3.0, 8.0]
