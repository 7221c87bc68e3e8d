"""The pages in a real browser: nothing on the console, no request, no sideways scrolling, the switch, print, dark."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from neurodeploy.report.compare_page import compare_html
from neurodeploy.report.page import deploy_html, energy_html
from tests.browser import Browser
from tests.report_samples import sample_comparison, sample_deploy, sample_energy, sample_pictures

pytestmark = pytest.mark.slow

WIDTHS = (360, 1600)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    found = Browser(tmp_path_factory.mktemp("chromium"))
    yield found
    found.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    texts = {
        "deploy": deploy_html(sample_deploy()),
        "energy": energy_html(sample_energy(), sample_pictures()),
        "compare": compare_html(sample_comparison()),
    }
    for name, text in texts.items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in texts}


@pytest.mark.parametrize("name", ["deploy", "energy", "compare"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dark", [False, True])
def test_a_page_is_quiet_and_fits(browser, pages, name, width, dark):
    browser.errors.clear()
    browser.requests.clear()
    browser.open(pages[name], width, dark=dark)
    assert browser.errors == []
    assert [url for url in browser.requests if not url.startswith("data:")] == [pages[name].as_uri()]
    assert browser.value("document.documentElement.scrollWidth") <= width
    wide = browser.value(
        "[...document.querySelectorAll('main *')].filter(e => !e.closest('.scroll') && !e.closest('svg')"
        " && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.tagName + '.' + e.className)"
    )
    assert wide == []
    shade = browser.value("getComputedStyle(document.body).backgroundColor")
    light = sum(int(part) for part in shade[4:-1].split(",")[:3]) > 384
    assert light is not dark


def test_text_stands_out_in_light_and_dark(browser, pages):
    """Contrast of the body's text, by WCAG 2: at least 7."""
    script = (
        "(() => { const lum = c => { const v = c.match(/[0-9.]+/g).slice(0, 3).map(x => { x /= 255;"
        " return x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4; });"
        " return 0.2126 * v[0] + 0.7152 * v[1] + 0.0722 * v[2]; };"
        " const s = getComputedStyle(document.body); const a = lum(s.color), b = lum(s.backgroundColor);"
        " return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); })()"
    )
    for dark in (False, True):
        browser.open(pages["energy"], 1600, dark=dark)
        assert browser.value(script) >= 7


@pytest.mark.parametrize("name", ["energy", "compare"])
def test_one_profile_can_be_shown_and_all_are_printed(browser, pages, name):
    browser.open(pages[name], 1600)
    shown = "[...document.querySelectorAll('article.profile')].filter(e => e.offsetHeight > 0).map(e => e.id)"
    every = browser.value(shown)
    assert len(every) == 6
    choose = "(() => {{ const s = document.getElementById('profile-choice'); s.value = '{}';" \
             " s.dispatchEvent(new Event('change')); }})()"  # fmt: skip
    browser.value(choose.format("price-cmos45-int8"))
    assert browser.value(shown) == ["price-cmos45-int8"]
    browser.call("Emulation.setEmulatedMedia", media="print")
    assert browser.value(shown) == every
    browser.call("Emulation.setEmulatedMedia", media="")
    browser.value(choose.format(""))
    assert browser.value(shown) == every
    browser.value("location.hash = 'price-loihi2'")
    assert browser.value("new Promise(r => setTimeout(() => r(document.getElementById('profile-choice').value), 50))")
    assert browser.value(shown) == ["price-loihi2"]


def test_values_show_under_the_pointer(browser, pages):
    browser.open(pages["energy"], 1600)
    words = browser.value(
        "(() => { const r = document.querySelector('svg.hist rect'); const p = r.closest('svg').nextElementSibling;"
        " r.dispatchEvent(new PointerEvent('pointerover', {bubbles: true})); return p.textContent; })()"
    )
    assert words.endswith("neurons and steps")


def test_values_of_every_network_show_under_the_pointer(browser, pages):
    browser.open(pages["compare"], 1600)
    words = browser.value(
        "(() => { const r = document.querySelector('svg.chart circle.point.part-1');"
        " const p = r.closest('svg').nextElementSibling;"
        " r.dispatchEvent(new PointerEvent('pointerover', {bubbles: true})); return p.textContent; })()"
    )
    assert words.startswith("other: ") and words.endswith("×")
    colours = browser.value(
        "[...document.querySelector('svg.chart').querySelectorAll('line.snn')].map(e => getComputedStyle(e).stroke)"
    )
    assert len(colours) == 2 == len(set(colours))


@pytest.mark.parametrize("name", ["energy", "compare"])
def test_numbers_can_be_selected_and_tables_reached_by_keyboard(browser, pages, name):
    browser.open(pages[name], 360)
    assert browser.value("getComputedStyle(document.querySelector('td.n')).userSelect") != "none"
    reached = browser.value("[...document.querySelectorAll('.scroll')].every(e => e.tabIndex === 0 && e.ariaLabel)")
    assert reached
    first = browser.value("(() => { document.querySelector('.skip').focus(); return document.activeElement.hash; })()")
    assert first == "#main"


@pytest.mark.parametrize("name", ["energy", "compare"])
def test_a_page_prints(browser, pages, name):
    browser.open(pages[name], 1600)
    assert browser.pdf().startswith(b"%PDF-")
