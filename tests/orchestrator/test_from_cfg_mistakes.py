"""What is wrong with a config of the guide is told all at once, by line and key, as whole texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.orchestrator.test_from_cfg import SMALL, init


def refused(folder: Path, text: str) -> list[str]:
    """The lines of the message, without the folder."""
    (folder / "cfg.json").write_text(text)
    ended = init(folder / "cfg.json", "--out", str(folder / "m.yaml"))
    assert (ended.exit_code, ended.stdout) == (2, ""), ended.output
    assert not (folder / "m.yaml").exists()
    return ended.stderr.replace(f"{folder}/", "").splitlines()


def told(folder: Path, **changes: Any) -> list[str]:
    """What is refused of the small config with changes, each key on a line of its own."""
    cfg = {key: value for key, value in {**SMALL, **changes}.items() if value != "left out"}
    lines = (f"{json.dumps(key)}: {json.dumps(value)}" for key, value in cfg.items())
    return refused(folder, "{\n" + ",\n".join(lines) + "\n}")


SAME_TENSOR = (
    "cfg.json:9: target_site: 8.resid_post and 9.resid_pre are the same tensor: the stream after "
    "layer 8 is the one before layer 9, so nothing could be learned between them. For what layer 9 "
    'does, write "target_layer": 9 with "target_site": "resid_mid" (after its attention) or '
    '"resid_post" (after its MLP)'
)
ENDS = (
    "dict_size: 6912 is not the sum of the groups [768, 1536, 3072, 6912], which is 12288: they "
    "are sizes of groups, and the guide's code makes 12288 latents of them. If they are where "
    "prefixes end, write [768, 768, 1536, 3840]"
)
WRONG: list[tuple[dict[str, Any], list[str]]] = [
    (
        {"source_layer": 8, "source_site": "resid_post", "target_layer": 9,
         "target_site": "resid_pre"},
        [SAME_TENSOR],
    ),
    (
        {"source_site": "mlp_out"},
        ["cfg.json:9: target_site: 3.mlp_out is the source, too: that is an autoencoder, and a "
         "transcoder predicts another site from it"],
    ),
    (
        {"group_sizes": [768, 1536, 3072, 6912], "dict_size": 6912},
        [f"cfg.json:10: {ENDS}"],
    ),
    (
        {"dict_size": 4608},
        ["cfg.json:10: dict_size: 4608 is not the sum of the groups [768, 1536], which is 2304: "
         "they are sizes of groups, not where prefixes end"],
    ),
    ({"topk": 3, "top_k": "left out"}, ['cfg.json:9: topk: unknown key; did you mean "top_k"?']),
    (
        {"zzz": 1},
        ["cfg.json:10: zzz: unknown key; the guide has none like it: remove it"],
    ),
    ({"top_k": -3}, ['cfg.json:4: top_k: must be at least 1, found "-3"']),
    ({"top_k": 9999}, ["cfg.json:4: top_k: 9999 is more than all 2304 latents"]),
    ({"lr": "-3e-4"}, ['cfg.json:10: lr: must be more than 0, found "-3e-4"']),
    (
        {"lr": float("nan")},
        ['cfg.json:10: lr: must be a number such as 0.001 or 1e-3, found "NaN"'],
    ),
    (
        {"batch_size": 12.5, "num_tokens": True},
        ["cfg.json:5: num_tokens: must be a whole number such as 8192, 1e8 or 100M, found true",
         'cfg.json:10: batch_size: must be a whole number such as 8192, 1e8 or 100M, found "12.5"'],
    ),
    (
        {"num_tokens": 1000},
        ["cfg.json:5: num_tokens: 1000 is less than one batch of 4096"],
    ),
    (
        {"group_sizes": {"a": 1}},
        ["cfg.json:3: group_sizes: must be a list such as [576, 1152], found a mapping"],
    ),
    (
        {"group_sizes": "[768, "},
        ['cfg.json:3: group_sizes: must be a list such as [768, 1536], found "[768, "'],
    ),
    (
        {"model_dtype": "int8", "dtype": "float16"},
        ['cfg.json:10: model_dtype: must be float32 or bfloat16 or float16, found "int8"',
         'cfg.json:11: dtype: must be float32 or bfloat16, found "float16"'],
    ),
    (
        {"dtype": "float32", "enc_dtype": "bf16"},
        ['cfg.json:11: enc_dtype: "bf16" differs from dtype; they are one setting'],
    ),
    (
        {"l1_coeff": 0.01},
        ["cfg.json:10: l1_coeff: must be 0: k alone makes latents sparse here, found "
         '"0.01"'],
    ),
    (
        {"sae_type": "jumprelu"},
        ['cfg.json:10: sae_type: "jumprelu" is not trained here, only TopK and BatchTopK'],
    ),
    (
        {"scheduler_type": "warmup_dekay"},
        ['cfg.json:10: scheduler_type: unknown value "warmup_dekay"; did you mean '
         '"warmup_decay"?'],
    ),
    ({"device": "mps"}, ['cfg.json:10: device: must be auto, cpu, cuda or cuda:N, found "mps"']),
    (
        {"source_site": "mlp_inn"},
        ['cfg.json:7: source_site: unknown site "mlp_inn"; did you mean "mlp_in"?; or a hook name '
         "such as mlp.hook_post"],
    ),
    (
        {"source_site": "z"},
        ['cfg.json:7: source_site: "z" is per head; a site needs [batch, position, width]: '
         "attn_out"],
    ),
    (
        {"source_site": "blocks.4.hook_resid_mid"},
        ['cfg.json:7: source_site: "blocks.4.hook_resid_mid" is in layer 4, and source_layer is 3'],
    ),
    (
        {"source_layer": "left out"},
        ['cfg.json:6: source_site: "resid_mid" has no layer; add source_layer'],
    ),
    (
        {"source_layer": 12},
        ["cfg.json:6: source_layer: 12.resid_mid: layer 12 is out of range; this model (gpt2) has "
         "layers 0 to 11"],
    ),
    (
        {"source_layer": -1},
        ['cfg.json:6: source_layer: must be at least 0, found "-1"'],
    ),
    (
        {"source_hook_point": "blocks.3.hook_resid_pre"},
        ["cfg.json:10: source_hook_point: is 3.resid_pre, and source_site says 3.resid_mid; remove "
         "one of them"],
    ),
    (
        {"source_layer": "left out", "source_site": "left out", "target_layer": "left out",
         "target_site": "left out", "site": "resid_pre", "layer": 8},
        [f"cfg.json: {end}_site: is missing; site is that of an autoencoder. A transcoder reads "
         f"one site and predicts another: add {end}_layer and {end}_site"
         for end in ("source", "target")],
    ),
    (
        {"model_name": "pythia-70m"},
        ["cfg.json:7: source_site: 3.resid_mid: gpt_neox adds attention and MLP to the residual "
         "stream in parallel, so it has no resid_mid; the MLP reads the same stream as attention: "
         "use 3.resid_pre"],
    ),
    (
        {key: "left out" for key in SMALL},
        ['cfg.json: model_name: is missing; add it, such as "model_name": "gpt2-small"',
         'cfg.json: group_sizes: is missing; add it, such as "group_sizes": [768, 1536, 3072, '
         "6912]",
         'cfg.json: top_k: is missing; add it, such as "top_k": 64',
         'cfg.json: num_tokens: is missing; add it, such as "num_tokens": 1e8',
         "cfg.json: source_site: is missing; add source_layer and source_site",
         "cfg.json: target_site: is missing; add target_layer and target_site"],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "lines"), WRONG, ids=[" ".join(w[0]) for w in WRONG])
def test_what_is_wrong_is_told(changes: dict[str, Any], lines: list[str], tmp_path: Path) -> None:
    assert told(tmp_path, **changes) == lines


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    assert len(told(tmp_path, top_k=-1, lr="x", seed=-1, sauce=2, target_site="resid_mid")) == 5


NOT_A_CONFIG = [
    ("", "cfg.json:1: is not JSON (Expecting value, column 1)"),
    ("{'top_k': 64}", "cfg.json:1: is not JSON (Expecting property name enclosed in double "
     "quotes, column 2)"),
    ("[1, 2]", 'cfg.json: must be a JSON object such as {"top_k": 64}'),
    ('"cfg"', 'cfg.json: must be a JSON object such as {"top_k": 64}'),
    ("[" * 100_000, "cfg.json: is nested too deep for a flat config"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), NOT_A_CONFIG, ids=range(len(NOT_A_CONFIG)))
def test_what_is_no_config_is_told(text: str, message: str, tmp_path: Path) -> None:
    how = "; json.dump(cfg, file, default=str) writes one"
    assert refused(tmp_path, text) == [message + how]


def test_a_key_given_twice_is_told_with_both_lines(tmp_path: Path) -> None:
    text = '{"name": "\\"top_k\\": {",\n"top_k": 64, "x": {"top_k": 1},\n"top_k": 32}'
    assert refused(tmp_path, text) == ["cfg.json:3: top_k: is given on line 2, too"]


def test_files_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    how = "json.dump(cfg, file, default=str) writes one"
    missing, folder, huge, odd = (tmp_path / name for name in ("no.json", "f", "huge", "odd"))
    folder.mkdir()
    huge.write_text("{" + " " * 300_000 + "}")
    odd.write_bytes(b'{\n"a": "\xff"}')
    for path, message in (
        (missing, f"{missing}: there is no such file; {how}"),
        (folder, f"{folder}: cannot be read: Is a directory"),
        (huge, f"{huge}: a config has at most 300,000 bytes, this has more"),
        (odd, f"{odd}:2: not UTF-8: byte 0xff"),
    ):
        ended = init(path)
        assert (ended.exit_code, ended.stdout, ended.stderr) == (2, "", message + "\n")


def test_options_that_the_config_decides_are_refused(tmp_path: Path) -> None:
    ended = init(tmp_path / "cfg.json", "--model", "gpt2", "--data", "x")
    assert (ended.exit_code, ended.stderr) == (
        2,
        "--model and --data beside --from-cfg: the config says it; change that, or the manifest "
        "made of it\n",
    )


def test_a_missing_text_is_told(tmp_path: Path) -> None:
    missing = tmp_path / "no.txt"
    (line,) = told(tmp_path, dataset_path=str(missing))
    assert line == "cfg.json:10: dataset_path: no.txt does not exist (looked at no.txt)"


def test_nothing_of_a_config_can_end_a_comment(tmp_path: Path) -> None:
    path = tmp_path / "a\nname: b.json"
    path.write_text(json.dumps({**SMALL, "act_size": "\nseed: 7"}))
    text = init(path, "--out", "-").stdout
    assert text.startswith("# Made of a?name: b.json. Every key")
    assert '#   act_size: "\\nseed: 7" is not the width of gpt2, 768\n' in text


def test_what_only_the_whole_manifest_shows_is_told(tmp_path: Path) -> None:
    """A text too short for a holdout."""
    (tmp_path / "short.txt").write_text("A word.")
    (line,) = told(tmp_path, dataset_path=str(tmp_path / "short.txt"))
    assert line.startswith("cfg.json, as a manifest:") and ": data.path: " in line
