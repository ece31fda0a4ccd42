"""Reports in a real browser: every figure is drawn, nothing complains, nothing is too wide."""

import json
import shutil

import pytest

from orchestrator.reporting.at_the_end import write_comparison, write_report
from orchestrator.reporting.gather import gather
from tests.browser.pages import DESKTOP, PHONE
from tests.orchestrator.registry.runs import make_run
from tests.orchestrator.reporting.pages import fabricated_progress, figures_of

pytestmark = pytest.mark.browser
SIZES = pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])


@pytest.fixture(scope="module")
def pages(reference, tmp_path_factory):
    """Of a finished run; of one in every state, with an evil name and made-up progress of several
    processes; and both beside each other."""
    folder = tmp_path_factory.mktemp("pages")
    finished, mixed = folder / "small", make_run(folder)
    shutil.copytree(reference[1], finished, ignore=shutil.ignore_patterns("tokens", "checkpoints"))
    resolved = json.loads((mixed / "resolved.json").read_text())
    resolved["name"] = evil = "</script><script>window.harmed = 1</script>"
    (mixed / "resolved.json").write_text(json.dumps(resolved))
    fabricated_progress(mixed, 1, ["producer-0", f"trainer-{evil}", "trainer-1"], lines=40, seed=0)
    write_report(finished, folder / "finished.html")
    write_report(mixed, folder / "mixed.html")
    write_comparison([finished, mixed], folder / "comparison.html")
    return folder


def scroll_through(page):
    """As a reader does: figures are drawn as they come near."""
    height = page.evaluate("document.documentElement.scrollHeight")
    for y in range(0, height, 400):
        page.evaluate(f"window.scrollTo(0, {y})")
        page.wait_for_timeout(60)
    page.wait_for_function("!document.querySelector('.plot:not([data-drawn])')", timeout=20_000)


@SIZES
@pytest.mark.parametrize("name", ["finished", "mixed", "comparison"])
def test_all_figures_are_drawn_and_nothing_complains(browser, pages, name, size):
    path = pages / f"{name}.html"
    expected = figures_of(path.read_text())
    with browser.open(path, size) as opened:
        scroll_through(opened.page)
        drawn = opened.page.locator(".plot .main-svg").first
        assert drawn.is_visible()
        keys = opened.page.evaluate("[...document.querySelectorAll('.plot')].map(p => p.id)")
        assert keys == list(expected) and len(keys) >= 4
        traces = opened.page.evaluate(
            "[...document.querySelectorAll('.plot')].map(p => [p.data.length, p.offsetWidth])"
        )
        assert [n for n, _ in traces] == [len(figure["data"]) for figure in expected.values()]
        assert all(150 < width <= size[0] for _, width in traces)
        assert opened.complaints == [] and opened.requests == []
        assert opened.overflow <= 0
        assert opened.page.evaluate("window.harmed") is None
        assert opened.page.locator("#undrawn").count() == 0


def test_the_first_screen_tells_whether_the_suite_is_good(browser, pages):
    with browser.open(pages / "finished.html") as opened:
        run = gather(pages / "small")
        banner = opened.page.locator(".banner strong")
        assert "of 4 good" in banner.inner_text()
        for what in (banner, opened.page.locator("#glance")):
            box = what.bounding_box()
            assert box and box["y"] < DESKTOP[1] / 2
        bars = opened.page.evaluate(
            "document.getElementById('glance').data.filter(t => t.type === 'bar' && "
            "t.yaxis === 'y').flatMap(t => t.y)"
        )
        assert sorted(bars) == sorted(o["ordinary"]["fvu"] for o in run.evaluated.values())
        row = opened.page.locator("tbody tr").first.inner_text()
        id, one = next(iter(run.evaluated.items()))
        assert row.startswith(id) and f"{one['ordinary']['fvu']:.3f}" in row


def test_far_figures_wait_until_they_are_near(browser, pages):
    with browser.open(pages / "finished.html") as opened:
        plots, drawn = opened.page.evaluate(
            "[document.querySelectorAll('.plot').length, "
            "document.querySelectorAll('.plot[data-drawn]').length]"
        )
        assert 1 <= drawn < plots / 2


def test_a_finger_on_a_figure_scrolls_the_page_and_zooms_nothing(browser, pages):
    with browser.open(pages / "finished.html", PHONE) as opened:
        plot = opened.page.locator("#glance .nsewdrag").first
        plot.scroll_into_view_if_needed()
        before = opened.page.evaluate("window.scrollY")
        box = plot.bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        assert 0 < y < PHONE[1]
        finger = opened.page.context.new_cdp_session(opened.page)
        for step in range(16):
            kind = "touchMove" if step else "touchStart"
            point = {"x": x, "y": y - 20 * step}
            finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [point]})
        finger.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        opened.page.wait_for_timeout(300)
        assert opened.page.evaluate("window.scrollY") > before + 200
        low, _ = opened.page.evaluate("document.getElementById('glance')._fullLayout.yaxis.range")
        assert low == 0


def test_without_scripts_all_words_and_tables_are_there(browser, pages):
    with browser.open(pages / "finished.html", scripts=False) as opened:
        assert "of 4 good" in opened.page.locator(".banner").inner_text()
        assert opened.page.locator("tbody tr").count() >= 9
        assert opened.page.locator("#undrawn").is_visible()
