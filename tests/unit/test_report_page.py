"""The pages: one file, one script of their own, no request, sound structure, nothing injected."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from markupsafe import escape
from PIL import Image
from pydantic import ValidationError

from neurodeploy.errors import InternalError
from neurodeploy.report import numbers, page, svg
from neurodeploy.report.compare_page import compare_html, energy_bars, withheld
from neurodeploy.report.energy import energy_words
from neurodeploy.report.markdown import deploy_markdown
from neurodeploy.report.page import DeployReport, Picture, deploy_html, energy_html
from neurodeploy.report.png import difference_uri, png_uri
from tests.report_samples import sample_comparison, sample_deploy, sample_energy

VOID = {"meta", "img", "input", "br", "link", "rect", "line", "circle"}


class Page(HTMLParser):
    """Tags with their attributes, and whether they nest."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if "style" not in self.open and "script" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return {
        "deploy": deploy_html(sample_deploy()),
        "energy": energy_html(sample_energy()),
        "compare": compare_html(sample_comparison()),
    }


@pytest.mark.parametrize("name", ["deploy", "energy", "compare"])
def test_a_page_is_one_sound_file(pages, name):
    page = Page(pages[name])
    assert page.open == []
    assert pages[name].startswith("<!doctype html>")
    assert page.all("html") == [{"lang": "en"}]
    assert len(page.all("h1")) == 1
    assert pages[name].split("</head>")[0].count("<title>") == 1
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for attributes in page.all("a"):
        assert attributes["href"].removeprefix("#") in ids
    for attributes in page.all("label"):
        assert attributes["for"] in ids
    for _, attributes in page.tags:
        if "aria-labelledby" in attributes:
            assert attributes["aria-labelledby"] in ids


@pytest.mark.parametrize("name", ["deploy", "energy", "compare"])
def test_a_page_asks_the_network_for_nothing(pages, name):
    page = Page(pages[name])
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"link", "iframe", "object", "embed", "base", "form", "use"}
    for _, attributes in page.tags:
        assert not any(key.startswith("on") for key in attributes)
        for key in ("src", "href", "srcset", "action", "xlink:href", "style"):
            value = attributes.get(key, "")
            assert value.startswith(("#", "data:image/png;base64,")) or not value
    style = pages[name].split("<style>")[1].split("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style
    policy = next(one["content"] for one in page.all("meta") if one.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy


@pytest.mark.parametrize("name", ["deploy", "energy", "compare"])
def test_the_one_script_is_the_one_that_the_policy_names(pages, name):
    assert Page(pages[name]).all("script") == [{}]
    script = pages[name].split("<script>")[1].split("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in pages[name]
    assert len(script) < 4096
    for word in (
        "fetch",
        "XMLHttp",
        "WebSocket",
        "import",
        "eval",
        "sendBeacon",
        "innerHTML",
        "document.write",
        "http",
    ):
        assert word not in script


@pytest.mark.parametrize("name", ["deploy", "energy", "compare"])
def test_a_page_serves_readers_of_every_kind(pages, name):
    page = Page(pages[name])
    assert all(one.get("alt") for one in page.all("img"))
    assert all(one.get("scope") for one in page.all("th"))
    regions = [one for one in page.all("div") if one.get("class") == "scroll"]
    assert len(regions) == len(page.all("table"))
    assert all(one["tabindex"] == "0" and one["aria-label"] for one in regions)
    for one in page.all("svg"):
        assert one.get("aria-hidden") == "true" or (one["role"] == "img" and one["aria-label"])
    style = pages[name]
    assert "prefers-color-scheme: dark" in style
    assert "@media print" in style
    assert 'content="width=device-width, initial-scale=1"' in style


def test_the_comparison_works_without_a_script(pages):
    page = Page(pages["deploy"])
    radios = page.all("input")
    assert [one["type"] for one in radios] == ["radio"] * 4
    assert len({one["name"] for one in radios}) == 1
    assert [one["id"] for one in radios if "checked" in one] == ["set0-2"]  # the chip's integers
    figures = [one["class"] for one in page.all("figure") if "class" in one]
    assert [style for style in figures if style != "wide"] == ["before"] + ["after"] * 4
    style = pages["deploy"].split("<style>")[1].split("</style>")[0]
    for place in range(1, 5):
        assert f"input:nth-of-type({place}):checked ~ .stage .after:nth-of-type({place + 1})" in style


def test_the_deploy_page_says_everything(pages):
    text = Page(pages["deploy"]).text
    report = sample_deploy()
    for words in (
        "29.04 dB", "20.17", "not run", "equal in 1 of 2 readers", "lif1, step 0, neuron 7", "not installed",
        "manifest.json", "ab" * 32, "That a chip did this.", "a note", report.reproduce.command, "width = 4",
        report.energy["verdict"]["sentences"][0], "The total is withheld.", "16.05 of 16.2 W", "second-hand",
        "conv0.weight", numbers.count(report.parameters.repeated), "training",
    ):  # fmt: skip
        assert words.lower() in text.lower(), words


def test_kinds_and_counts_stand_beside_prices(pages):
    text = Page(pages["energy"]).text
    report = sample_energy()
    assert "measured" in text and "simulated" in text
    assert numbers.count(report["counts"]["mean_per_image"]["sop"]) in text
    assert numbers.energy(report["prices"]["cmos45-int8"]["total_pj"]) in text
    assert "image-1.png" not in text  # of the images, only the one that is looked at is named


def test_nothing_given_becomes_markup():
    evil = '"><script>alert(1)</script><img src=x onerror=alert(1)>'
    report = sample_deploy(title=evil, model=evil, recipe=evil, findings=[evil], degradation=evil)
    report.images[0].name = evil
    report.readers[1].first_difference = evil
    report.energy["counts"]["layers"][0]["name"] = evil
    html = deploy_html(report)
    assert html.count("<script") == 1
    assert "<script>alert" not in html
    assert "<img src=x" not in html
    assert Page(html).open == []
    energy = sample_energy(model=evil, reproduce={"command": evil})
    assert "<script>alert" not in energy_html(energy)


@pytest.mark.parametrize("uri", ["http://example.org/a.png", "data:text/html;base64,AAAA", "javascript:alert(1)", ""])
def test_only_png_data_is_a_picture(uri):
    with pytest.raises(ValidationError):
        Picture(stage="clean", label="clean", png=uri)


def test_the_report_is_json_and_back():
    report = sample_deploy()
    assert DeployReport.model_validate_json(report.model_dump_json()) == report
    with pytest.raises(ValidationError):
        DeployReport.model_validate({**report.model_dump(), "extra": 1})


def test_a_bare_report_still_makes_a_page():
    report = sample_deploy(images=[], scores=[], readers=[], findings=[], recipe="", verified=False)
    text = Page(deploy_html(report)).text
    assert "No reader was run." in text
    assert "not verified" in text
    assert "Pictures" not in text


def test_deploy_markdown_holds_the_tables():
    text = deploy_markdown(sample_deploy())
    assert "| chip integers | 29.04 | 0.8300 |  |" in text
    assert "| read back | – | – |  |" in text
    assert "| norse |  | differs | lif1, step 0, neuron 7 |" in text
    assert "neurodeploy deploy toy --target loihi2 --out out" in text
    assert "data:image" not in text


# --- pictures and charts -------------------------------------------------------------------------------------------


def _pixels(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))))


def test_pictures_keep_every_pixel():
    gray = np.arange(12).reshape(1, 3, 4) / 255
    assert np.array_equal(_pixels(png_uri(gray)), np.arange(12).reshape(3, 4))
    colour = np.random.default_rng(0).integers(0, 256, (3, 5, 6)) / 255
    assert np.array_equal(_pixels(png_uri(colour)), np.rint(colour * 255).astype(np.uint8).transpose(1, 2, 0))
    assert _pixels(png_uri(np.array([[[-1.0, 2.0]]]))).tolist() == [[0, 255]]
    assert _pixels(difference_uri(np.full((3, 1, 1), 0.5), np.full((3, 1, 1), 0.4))).tolist() == [[102]]
    with pytest.raises(InternalError):
        png_uri(np.zeros((2, 4, 4)))
    with pytest.raises(InternalError):
        difference_uri(np.zeros((1, 2, 2)), np.zeros((1, 2, 3)))


def test_bars_fill_their_share():
    assert 'class="fill" width="25.00"' in svg.bar(0.25)
    assert 'class="fill" width="100.00"' in svg.bar(7.0)
    widths = [
        float(width) for width in re.findall(r'class="part-\d" x="[\d.]+" width="([\d.]+)"', svg.stack([0.5, 0.3, 0.2]))
    ]
    assert widths == [50.0, 30.0, 20.0]


def test_the_chart_crosses_where_both_cost_the_same():
    """A network of 100 pJ + 400 pJ at a rate of 0.2, an ANN of 300 pJ: they meet at a rate of 0.1."""
    lines = [
        {
            "snn_pj": 500.0,
            "fixed_pj": 100.0,
            "baseline_pj": 300.0,
            "break_even_rate": 0.1,
            "baseline": "ann_dense",
            "words": "It costs more.",
        }
    ]
    chart = svg.break_even(lines, {"ann_dense": "the ANN"}, 0.2)
    shapes = re.findall(r'<line class="(\w+)" x1="([\d.]+)" y1="([\d.]+)" x2="([\d.]+)" y2="([\d.]+)"', chart)
    named = {shape[0]: [float(value) for value in shape[1:]] for shape in shapes if shape[0] in ("snn", "ann")}
    x, y = (float(value) for value in re.search(r'cx="([\d.]+)" cy="([\d.]+)"', chart).groups())
    x1, y1, x2, y2 = named["snn"]
    along = lambda at: y1 + (y2 - y1) * (at - x1) / (x2 - x1)  # noqa: E731
    assert along(x) == pytest.approx(y, abs=0.3)
    zero = x1
    assert along(zero + (x - zero) / 2) == pytest.approx(named["ann"][1], abs=0.3)
    assert "It costs more" in chart
    assert svg.break_even([], {}, 0.2) == ""
    assert svg.break_even(lines, {"ann_dense": "the ANN"}, 0.0) == ""


def test_the_comparison_says_everything(pages):
    text = pages["compare"]
    answer = sample_comparison()
    for row in answer["rows"]:
        assert row["model"] in text and row["sentence"].split(" Priced")[0] in text
    for name, report in answer["reports"].items():
        assert f"{report['counts']['mean_per_image']['sop']:,.0f}" in text
        assert "state, largest image" in text and name in text
        for profile, price in report["prices"].items():
            assert f'id="price-{profile}"' in text and price["profile_sha256"] in text
            assert escape(energy_words(price)) in text
            for kind in price["kinds"]:
                assert f'<span class="badge {kind}">' in text
        for base in report["baselines"].values():
            assert base["label"] in text
    assert "Not all were run on the same" in text and "more noise" in text
    assert "weight_bit_read" in text.split("Unpublished")[1]
    assert "holds" in text and "psnr_db&gt;20" in text


def test_bars_of_a_profile_have_one_scale_and_colours_of_their_own():
    reports = sample_comparison()["reports"]
    for bars in energy_bars(reports):
        partial = [report["prices"][bars["profile"]]["partial_pj"] for report in reports.values()]
        shares = [sum(model["shares"]) for model in bars["models"]]
        assert shares == pytest.approx([part / max(partial) if max(partial) else 0.0 for part in partial])
        assert len(bars["groups"]) <= 8 and len(set(bars["groups"])) == len(bars["groups"])
        assert all(len(model["shares"]) == len(bars["groups"]) for model in bars["models"])


def test_the_reasons_of_all_models_are_told_once():
    reports = sample_comparison()["reports"]
    for reason in withheld(reports, "loihi2"):
        for line in reason["lines"]:
            for model, count in line["counts"]:
                own = reports[model]["prices"]["loihi2"]["not_priced"]
                assert (line["label"], count) in [(one["label"], one["count"]) for one in own]
    assert withheld(reports, "cmos45-int8") == []


def test_points_of_several_networks_lie_on_their_lines():
    """At the height of 1 a network costs what it is compared with; its line passes through its point."""
    courses = [
        {"model": "a", "style": 0, "rate": 0.2, "ratio": 2.0, "fixed": 0.5, "break_even": 0.2 / 3, "images": []},
        {"model": "<b>", "style": 1, "rate": 0.1, "ratio": 0.5, "fixed": 0.1, "break_even": 0.225,
         "images": [(0.08, 0.4), (0.12, 0.6)]},
    ]  # fmt: skip
    chart = svg.break_even_of_several(courses, "the ANN")
    lines = re.findall(r'<line class="([\w -]+)" x1="([\d.]+)" y1="([\d.]+)" x2="([\d.]+)" y2="([\d.]+)"', chart)
    named = {style: [float(value) for value in rest] for style, *rest in lines if style != "axis"}
    dots = re.findall(r'<circle class="point part-(\d)" cx="([\d.]+)" cy="([\d.]+)"', chart)
    assert len(dots) == 2 and chart.count('class="spread part-1"') == 2
    for course, (style, x, y) in zip(courses, dots, strict=True):
        x1, y1, x2, y2 = named[f"snn line-{style}"]
        along = y1 + (y2 - y1) * (float(x) - x1) / (x2 - x1)
        assert along == pytest.approx(float(y), abs=0.3)
        even = x1 + (float(x) - x1) * course["break_even"] / course["rate"]
        assert y1 + (y2 - y1) * (even - x1) / (x2 - x1) == pytest.approx(named["ann"][1], abs=0.3)
    assert "<b>" not in chart and "&lt;b&gt;" in chart


def test_nothing_given_to_a_comparison_becomes_markup():
    answer = sample_comparison()
    evil = '<script>alert("x")</script>'
    answer["data"] = answer["rows"][2]["model"] = answer["rows"][2]["sentence"] = evil
    answer["rows"][0]["data"] = evil
    text = compare_html(answer)
    assert text.count("<script>") == 1 and "alert(" in text


def test_pages_are_made_without_torch():
    modules = ", ".join(f"neurodeploy.report.{name}" for name in ("page", "compare_page", "markdown"))
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_part_has_a_colour_of_its_own_in_light_and_in_dark() -> None:
    style = (Path(page.__file__).parent / "templates" / "style.css").read_text(encoding="utf-8")
    for theme in style.split("@media (prefers-color-scheme: dark)", 1):
        found = dict(re.findall(r"--p(\d+): (#[0-9a-f]{6});", theme[:2000]))
        assert len(found) == len(set(found.values())) == svg.COLOURS
    for part in range(svg.COLOURS):
        for selector in (f"svg .part-{part}, .key-{part} ", f"svg.chart line.snn.line-{part} "):
            assert style.count(selector) == 1
