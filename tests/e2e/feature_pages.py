"""A page of features as a browser takes it: links, anchors, scripts, contexts by latent."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path


class Page(HTMLParser):
    """What a browser would make of a page: text by the innermost interesting element."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.scripts = 0
        self.contexts: dict[str, list[str]] = {}
        self._latent, self._in_span, self._in_contexts = "", False, False
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.scripts += tag == "script"
        if tag == "a":
            self.links.append(given["href"])
        if "id" in given:
            self.anchors.add(given["id"])
        if tag == "section":
            self._latent = given["id"]
        if tag == "div":
            self._in_contexts = given.get("class") == "t"
        if tag == "span" and self._in_contexts:
            self._in_span = True
            self.contexts.setdefault(self._latent, []).append("")

    def handle_endtag(self, tag):
        if tag == "span":
            self._in_span = False

    def handle_data(self, data):
        if self._in_span:
            self.contexts[self._latent][-1] += data
