"""Text with a latent's activations in it, as compact markup: only tokens on which it is on are
marked, by a shade of nine, and carry the number; the peak is underlined too.

White space that a reader could not see is shown: ⏎ ⇥ and, where there is nothing else, ␣.
"""

from __future__ import annotations

import unicodedata

from markupsafe import Markup, escape

from orchestrator.features.records import Record

SHADES = 9
AROUND = 24  # characters before a peak in a row of the table, and after it
_SEEN = {"\n": "⏎", "\t": "⇥", "\r": "␍"}


def marked(context: Record, largest: float) -> Markup:
    """A context of a latent whose largest activation anywhere is `largest`."""
    text, at = context["text"], 0
    parts: list[str] = []  # joined at the end: Markup's own methods take most of the time else
    for i, (begin, end, value) in enumerate(context["spans"]):
        parts.append(plain(text[at:begin]))
        shade = max(1, min(SHADES, round(SHADES * value / largest)))
        parts.append(_mark("u" if i == context["peak"] else "i", shade, value, text[begin:end]))
        at = end
    parts.append(plain(text[at:]))
    return Markup("".join(parts))


def snippet(context: Record) -> tuple[str, str, str]:
    """What is before a peak, the peak, and what is after it."""
    text = context["text"]
    begin, end, _ = context["spans"][context["peak"]]
    around = text[max(0, begin - AROUND) : begin], text[begin:end], text[end : end + AROUND]
    return tuple(map(_visible, around))  # type: ignore[return-value]


def token(text: str) -> str:
    """A token by itself, with its spaces visible."""
    return _visible(text).replace(" ", "␣")


def plain(text: str) -> Markup:
    """Escaped, with what is invisible made visible."""
    return escape(_visible(text))


def _mark(tag: str, shade: int, value: float, text: str) -> str:
    shown = _visible(text)
    shown = shown.replace(" ", "␣") if not shown.strip() else shown
    return f"<{tag} class=a{shade} title={value}>{escape(shown)}</{tag}>"


def _visible(text: str) -> str:
    return text if text.isprintable() else "".join(map(_seen, text))


def _seen(character: str) -> str:
    if character in _SEEN:
        return _SEEN[character]
    # Controls, and what turns the direction of the text around: it would scramble the page.
    if unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp"):
        return f"<{ord(character):04X}>"
    return character
