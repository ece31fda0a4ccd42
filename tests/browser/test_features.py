"""The pages of features in a real browser: quiet, offline, usable on a phone."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.evaluating.listener import QUIET
from orchestrator.features.features import Wanted, find_features
from orchestrator.run_folder.folder import RunFolder
from tests.browser.pages import DESKTOP, PHONE
from tests.core.tiny_models import save_tiny_model
from tests.e2e.runs import run_here, write_manifest

pytestmark = pytest.mark.browser

PAIR = "  - {layers: 0, source: resid_mid, target: mlp_out}"
LONG = "W" * 300


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The folder of the only transcoder."""
    root = tmp_path_factory.mktemp("pages")
    model = save_tiny_model(root / "model", family="llama", n_layers=1)
    manifest = write_manifest(root, model, transcoders=PAIR, tokens=256 * 12)
    groups = "defaults.group_sizes=[20, 30, 70]"
    code, printed = run_here(manifest, root, "eval.spliced_tokens=0", groups)
    assert code == 0, printed
    (root / "text.txt").write_text(f"</td><script>document.title = 1</script>{LONG} é 🦊\n" * 40)
    wanted = Wanted(text=str(root / "text.txt"), tokens=6000, contexts=3, window=16)
    found = find_features(RunFolder(root, "small"), wanted, QUIET)
    return found.folder / found.written[0]


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_every_page_is_quiet_offline_and_no_wider_than_the_window(browser, folder, size):
    pages = [folder.parent / "index.html", *folder.glob("*.html")]
    assert len(pages) >= 3
    for path in pages:
        with browser.open(path, size) as opened:
            assert opened.complaints == [] and opened.requests == []
            assert opened.overflow <= 0, path
            assert opened.page.title() != "1"


def test_the_table_is_filtered_and_sorted(browser, folder):
    with browser.open(folder / "index.html") as opened:
        page = opened.page
        rows = page.locator("#latents tbody tr")
        shown = page.locator("#latents tbody tr:visible")
        count = rows.count()
        assert count > 20 and shown.count() == count
        page.select_option("#group", "2")
        in_group = shown.count()
        assert 0 < in_group < count
        assert set(shown.locator("td:nth-child(2)").all_inner_texts()) == {"2"}
        assert page.inner_text("#count") == f"{in_group} of {count}"
        page.select_option("#group", "")
        page.fill("#find", "a fox that is not there")
        assert shown.count() == 0
        page.fill("#find", "")
        assert shown.count() == count

        def column(number):
            return [
                float(text.replace("%", "").replace(",", ""))
                for text in page.locator(f"#latents td:nth-child({number})").all_inner_texts()
            ]

        for number in (1, 3, 4):
            down = number > 2  # figures first come largest first
            for falling in (down, not down):
                page.click(f"#latents th:nth-child({number}) button")
                assert column(number) == sorted(column(number), reverse=falling)


def test_a_link_leads_to_its_latent(browser, folder):
    with browser.open(folder / "index.html") as opened:
        page = opened.page
        link = page.locator("#latents tbody tr a").last
        number = link.inner_text()
        link.click()
        page.wait_for_load_state()
        assert page.url.endswith(f"#l{number}")
        assert page.locator(f"#l{number} h2").inner_text() == number
        page.click("text=all latents")
        page.wait_for_load_state()
        page.click("text=all transcoders")
        assert page.locator("td a").inner_text() == folder.name
