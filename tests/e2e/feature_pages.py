"""Features as they were written: the lines of latents.jsonl, and pages as a browser takes them."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

from orchestrator.features.marked import plain


def records(folder: Path, id: str) -> list[dict]:
    lines = (folder / id / "latents.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def seen(context: dict) -> str:
    """A context's text with white space as the page shows it."""
    text, at, shown = context["text"], 0, ""
    for begin, end, _ in context["spans"]:
        token = plain(text[begin:end]).unescape()
        shown += plain(text[at:begin]).unescape()
        shown += token.replace(" ", "␣") if not token.strip() else token
        at = end
    return shown + plain(text[at:]).unescape()


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
