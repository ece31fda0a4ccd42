"""`manifests/schema.json` tells an editor what the keys themselves say, no more and no less."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from pydantic import ValidationError

from orchestrator.manifest.json_schema import json_schema, written
from orchestrator.manifest.schema import Manifest
from orchestrator.manifest.text import read_yaml
from orchestrator.messages import ManifestError
from tests.orchestrator.manifests import manifest_text
from tests.orchestrator.test_changed_keys import CHECKS_ONLY, CONTINUES, REFUSED
from tests.orchestrator.test_manifest_mistakes import MISTAKES

MANIFESTS = Path(__file__).parents[2] / "manifests"
SCHEMA = json_schema()
# What no schema of single values can say.
BEYOND = {"layer twice", "backward range", "value swept twice"}
BEYOND |= {"nan", "infinite lr"}  # JSON has neither


class Yaml12(yaml.SafeLoader):
    """Scalars as editors read them: the core schema of YAML 1.2."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (PyYAML's own name for it)


for tag, regex in (
    ("null", r"~|null|Null|NULL|"),
    ("bool", r"true|True|TRUE|false|False|FALSE"),
    ("int", r"[-+]?\d+"),
    ("float", r"[-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?|[-+]?\.(inf|Inf)|\.(nan|NaN)"),
):
    Yaml12.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(f"(?:{regex})$"), None)
Yaml12.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(node.value))


def errors(text: str) -> list[str]:
    """What an editor would underline."""
    value = yaml.load(text, Loader=Yaml12)
    validator = jsonschema.Draft7Validator(SCHEMA)
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(value)]


def test_the_file_is_the_one_made_from_the_keys() -> None:
    assert (MANIFESTS / "schema.json").read_text(encoding="utf-8") == written()
    jsonschema.Draft7Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("path", sorted(MANIFESTS.glob("*.yaml")), ids=lambda path: path.name)
def test_shipped_manifests_name_it_and_pass(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# yaml-language-server: $schema=schema.json\n")
    assert errors(text) == []


def of_values() -> Iterator[tuple[str, bool]]:
    """The mistakes that lie in values, not in the YAML, and whether single values show them."""
    for name, (spoilt, message) in MISTAKES.items():
        try:
            tree, problems = read_yaml(manifest_text(spoilt), "m.yaml")
        except ManifestError:
            continue
        if problems or name in BEYOND:
            continue
        try:
            Manifest.model_validate(tree.plain())
            # Sites are read later, with their layers; an editor completes them.
            yield name, bool(re.search("unknown site|is a module", "\n".join(message)))
        except ValidationError:
            yield name, True


@pytest.mark.parametrize(("name", "shown"), list(of_values()))
def test_a_mistake_of_a_single_key_is_underlined_and_nothing_else_is(
    name: str, shown: bool
) -> None:
    assert bool(errors(manifest_text(MISTAKES[name][0]))) == shown


def test_most_mistakes_lie_in_values_and_many_between_keys() -> None:
    shown = [shown for _, shown in of_values()]
    assert sum(shown) > 60 and len(shown) - sum(shown) > 20


SPELLINGS = [
    "train.tokens=1e8", "train.tokens=100_000_000", "train.tokens=100M", "train.tokens=1.5M",
    "train.batch_tokens=010", "train.lr=auto", "train.lr=.5e-3", "train.lr=1", "name=010",
    "data.streaming=off", "data.streaming=True", "data.subset=20231101.en", "data.revision=1e8",
    "transcoders[0].layers=3", "transcoders[0].layers=0-5", "transcoders[0].layers=[0, 2-3, 11]",
    "transcoders[0].layers=odd", "transcoders[0].k=[8, 1_6]", "transcoders[0].lr=[auto, 1e-3]",
]  # fmt: skip


@pytest.mark.parametrize(
    "option",
    [*SPELLINGS, *(f"{k}={v[0]}" for table in (REFUSED, CONTINUES) for k, v in table.items())],
)
def test_every_key_and_every_way_to_write_a_value_pass(option: str) -> None:
    document = yaml.load(manifest_text(), Loader=Yaml12)
    key, _, value = option.partition("=")
    *parents, last = key.replace("[0]", ".0").split(".")
    node = document
    for part in parents:
        node = node[int(part)] if part == "0" else node.setdefault(part, {})
    node[last] = yaml.load(value, Loader=Yaml12)
    found = list(jsonschema.Draft7Validator(SCHEMA).iter_errors(document))
    assert not found, found[0].message


def test_every_key_has_a_meaning_and_sections_are_closed() -> None:
    closed: list[str] = []

    def visit(node: dict[str, Any], path: str) -> None:
        if node.get("type") == "object":
            assert node["additionalProperties"] is False
            closed.append(path)
            for name, child in node["properties"].items():
                assert child.get("description") or name == "transcoders", f"{path}.{name}"
                visit(child, f"{path}.{name}")
        visit(node["items"], f"{path}[]") if "properties" in node.get("items", {}) else None

    visit(SCHEMA, "")
    assert closed == [
        "", ".model", ".data", ".train", ".defaults", ".transcoders[]", ".resources", ".eval",
        ".tracking",
    ]  # fmt: skip
    keys = {f"transcoders[0].{name}" for name in SCHEMA["properties"]["transcoders"]["items"]
            ["properties"]}  # fmt: skip
    assert keys == {k for k in (*REFUSED, *CHECKS_ONLY) if k.startswith("transcoders")}
    assert json.loads(written()) == json.loads(json.dumps(SCHEMA))
