"""Each rule breaks on what it is about and on nothing else, and says what to change."""

import copy

import pytest

from orchestrator.verdict import broken_rules, passes_the_guide, verdict_lines

GOOD = {
    "k": 32,
    "dead_share": 0.05,
    "ordinary": {
        "fvu": 0.2, "fvu_ridge": 0.4, "l0": 32.5, "fvu_by_prefix": [0.4, 0.3, 0.2],
        "relative_l2": 0.05,
    },
}  # fmt: skip


def but(**changes):
    one = copy.deepcopy(GOOD)
    for name, value in changes.items():
        (one if name in one else one["ordinary"])[name] = value
    return one


BROKEN = {
    "ridge": (but(fvu_ridge=0.19), "train longer (train.tokens), or raise k or group_sizes"),
    "l0": (but(l0=28.0), "raise data.holdout_tokens"),
    "dead": (but(dead_share=0.10), "raise aux_weight or k"),
    "groups": (but(fvu_by_prefix=[0.4, 0.399, 0.2]), "adjust the ratios of group_sizes"),
    "behind": (but(fvu_ridge=0.25), "raise k or group_sizes there"),
}


@pytest.mark.parametrize(("name", "one", "advice"), [(n, *rest) for n, rest in BROKEN.items()])
def test_each_rule_is_told_with_what_to_change(name, one, advice):
    suite = {"a": GOOD, "b": GOOD, "c": one}
    broken = broken_rules(suite)
    assert broken["a"] == broken["b"] == []
    assert broken["c"] == ([name] if name != "ridge" else ["ridge", "behind"])
    lines = list(verdict_lines(suite))
    assert any(": c; " in line and advice in line for line in lines)
    assert any(line.startswith("verdict: 2 of 3 good") for line in lines)


def test_more_held_out_text_is_no_advice_where_no_threshold_is_read_off_it():
    """TopK has none, and where it is 0 all that is positive is kept already."""
    line = next(iter(verdict_lines({"a": but(l0=20.0)})))
    assert "with selection: topk or a threshold of 0" in line and "lower k or train longer" in line


def test_a_good_suite_has_nothing_but_its_verdict():
    lines = list(verdict_lines({"a": GOOD, "b": GOOD}))
    assert len(lines) == 2 and lines[0].startswith("verdict: 2 of 2 good")
    assert lines[1].endswith("2 pass")
    assert list(verdict_lines({})) == []


@pytest.mark.parametrize(
    "one",
    [but(relative_l2=0.1), but(l0=20.0), but(dead_share=0.2), but(fvu_by_prefix=[0.2, 0.2, 0.2])],
)
def test_the_guides_rule_is_its_own(one):
    assert passes_the_guide(GOOD) and not passes_the_guide(one)
    assert passes_the_guide(but(fvu_ridge=0.1)), "the guide knows no linear map"


def test_many_are_summed_up():
    lines = list(verdict_lines({f"t{i}": but(dead_share=0.5) for i in range(9)}))
    assert lines[0].startswith("10 % dead latents or more: t0, t1, t2 and 6 more; raise aux_weight")
