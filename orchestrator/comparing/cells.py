"""Flat rows (registry/query.py) as cells of tables."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
FORMS = {  # column -> head, form
    "fvu": ("FVU", ".3f"),
    "fvu_all": ("all rows", ".3f"),
    "l0": ("L0", ".1f"),
    "dead_share": ("dead %", "%"),
    "ce_increase": ("CE +", ".3f"),
    "kl": ("KL", ".3f"),
    "fvu_over_ridge": ("FVU / ridge", ".3f"),
    "never_fired_share": ("never fired %", "%"),
    "ce_recovered_zero": ("recovered (zero)", ".3f"),
    "ce_recovered_mean": ("recovered (mean)", ".3f"),
    "top1_agreement": ("top-1 %", "%"),
    "tokens_per_second": ("tokens/s", ",.0f"),
    "batch_fvu": ("batch FVU", ".3f"),
    "batch_l0": ("batch L0", ".1f"),
    "batch_dead_share": ("batch dead %", "%"),
}
LISTS = ("group_sizes", "prefix_weights")  # JSON, in a row
USUAL = ("fvu", "fvu_all", "l0", "dead_share", "ce_increase", "kl")


def head(column: str) -> str:
    return FORMS[column][0]


def cell(column: str, value: float | None) -> str:
    """Empty where it is not known."""
    form = FORMS[column][1]
    if value is None:
        return ""
    return f"{100 * value:.1f}" if form == "%" else format(value, form)


def known(rows: Sequence[Row]) -> list[str]:
    """The usual columns, as far as they say something."""
    return [name for name in USUAL if any(row[name] is not None for row in rows)]


def verdict_cell(row: Row) -> str:
    """The rules that it breaks, or how far it is."""
    return row["verdict"] or ("" if row["state"] == "done" else row["state"])


def in_words(column: str, value: Any) -> str:
    """A setting, as people read it."""
    if column in LISTS and isinstance(value, str):
        return "+".join(map(str, json.loads(value)))
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def as_spec(row: Row) -> dict[str, Any]:
    """As `differing` takes it."""
    lists = {name: json.loads(row[name] or "null") for name in LISTS}
    return {**row, **lists}
