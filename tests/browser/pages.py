"""Pages opened in a real browser, at the widths of a desktop and of a phone; whatever they ask the
network for, or complain of, is kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import Browser as Chromium
from playwright.sync_api import Page, sync_playwright

# As root, and where no network is: without these it looks for Google's hosts at every start.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
DESKTOP, PHONE = (1280, 900), (390, 844)


@dataclass
class Opened:
    """A page, with what went wrong on it: errors and warnings of its console, exceptions, and
    requests for anything but files of this machine."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    @property
    def overflow(self) -> int:
        """By how many pixels the page is wider than the window."""
        return self.page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )


class Browser:
    def __init__(self, chromium: Chromium) -> None:
        self._chromium = chromium

    @classmethod
    @contextmanager
    def start(cls, program: str) -> Iterator[Browser]:
        with sync_playwright() as playwright:
            chromium = playwright.chromium.launch(executable_path=program, args=list(FLAGS))
            yield cls(chromium)
            chromium.close()

    @contextmanager
    def open(
        self, path: Path, size: tuple[int, int] = DESKTOP, scripts: bool = True
    ) -> Iterator[Opened]:
        """A file of this machine, without a network, until it has settled."""
        phone = size == PHONE
        context = self._chromium.new_context(
            viewport={"width": size[0], "height": size[1]}, is_mobile=phone, has_touch=phone,
            offline=True, java_script_enabled=scripts,
        )  # fmt: skip
        page = context.new_page()
        opened = Opened(page)
        page.on("console", lambda said: _heard(opened, said))
        page.on("pageerror", lambda error: opened.complaints.append(str(error)))
        page.on("request", lambda request: _asked(opened, request.url))
        page.goto(path.absolute().as_uri(), wait_until="load")
        page.wait_for_timeout(200)
        yield opened
        context.close()


def _heard(opened: Opened, said) -> None:
    if said.type in ("error", "warning"):
        opened.complaints.append(said.text)


def _asked(opened: Opened, url: str) -> None:
    if not url.startswith(("file:", "data:", "blob:")):
        opened.requests.append(url)
