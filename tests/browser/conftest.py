"""A headless Chromium, as Debian's package `chromium` installs it, or any other: MTC_CHROMIUM."""

import os
import shutil

import pytest

from tests.browser.pages import Browser

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


@pytest.fixture(scope="session")
def browser():
    program = os.environ.get("MTC_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    assert program, "no Chromium here: apt-get install chromium, or set MTC_CHROMIUM to one"
    with Browser.start(program) as started:
        yield started
