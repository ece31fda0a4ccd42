"""YAML as text: every scalar stays the characters that were written, every value keeps its line.

PyYAML alone turns `off` into False, `1e8` into a string and `010` into eight, and lets the second
of two equal keys win in silence. Here the schema converts, and only plain mappings, lists and
scalars exist: no anchors, no tags, no second document.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

import yaml

from orchestrator.messages import KeyPath, ManifestError, Mark, Problem, dotted

MAX_DEPTH = 20
_EMPTY = "is empty; `mtc-orchestrate init` writes a manifest to start from"
NO_VALUE = "has no value; give one, or remove the key to use its default"
NO_ITEM = "has no value; give one, or remove it"
_NO_VALUE = {"", "~", "null", "Null", "NULL"}

Plain: TypeAlias = "str | list[Plain] | dict[str, Plain]"


@dataclass(slots=True)
class Node:
    """A value and where it stands; None is an empty value or `null`, already told as a problem."""

    mark: Mark
    value: str | list[Node] | dict[str, Node] | None
    key_marks: dict[str, Mark] = field(default_factory=dict)

    def plain(self) -> Plain:
        """The value without marks, as the schema reads it; keys without a value are left out."""
        if isinstance(self.value, dict):
            items = self.value.items()
            return {key: node.plain() for key, node in items if node.value is not None}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value or ""

    def is_void(self, path: KeyPath) -> bool:
        """Whether a key or an item stands at `path`, and has no value that could be read."""
        node = self
        for part in path:
            if isinstance(node.value, dict) and part in node.value:
                node = node.value[str(part)]
            elif isinstance(node.value, list) and isinstance(part, int) and part < len(node.value):
                node = node.value[part]
            else:
                return False
        return node.value is None

    def mark_of(self, path: KeyPath) -> Mark:
        """Where `path` is written, or where its nearest existing parent is."""
        node, mark = self, self.mark
        for part in path:
            if isinstance(node.value, dict) and part in node.value:
                mark = node.key_marks[str(part)]
                node = node.value[str(part)]
            elif isinstance(node.value, list) and isinstance(part, int) and part < len(node.value):
                node = node.value[part]
                mark = node.mark
            else:
                break
        return mark


def read_yaml(text: str, source: str) -> tuple[Node, list[Problem]]:
    """The marked tree of a document whose top is a mapping, and what is wrong with single keys.

    Raises ManifestError where nothing sensible can be read."""
    node, problems = _Reader(source).read(text)
    if not isinstance(node.value, dict):
        raise _unreadable(node.mark, "a manifest is a mapping of keys such as name: and model:")
    return node, problems


def read_value(text: str, source: str) -> tuple[Node, list[Problem]]:
    """Like `read_yaml` for one value of any kind, such as that of `--set KEY=VALUE`."""
    return _Reader(source, lines=False).read(text)


class _Reader:
    """Builds nodes from PyYAML's events, which still know marks, anchors and tags."""

    def __init__(self, source: str, lines: bool = True) -> None:
        self.source = source
        self.lines = lines
        self.problems: list[Problem] = []

    def read(self, text: str) -> tuple[Node, list[Problem]]:
        self._refuse_tabs(text)
        try:
            return self._document(yaml.parse(text, Loader=yaml.SafeLoader)), self.problems
        except yaml.MarkedYAMLError as error:
            raise self._syntax_error(error) from None
        except yaml.reader.ReaderError as error:
            line = text.count("\n", 0, error.position)
            raise _unreadable(
                self._mark(line), "not text: a control character; remove it"
            ) from None

    def _document(self, events: Iterator[yaml.Event]) -> Node:
        next(events)  # the start of the stream
        if isinstance(next(events), yaml.StreamEndEvent):
            raise _unreadable(Mark(self.source), _EMPTY)
        node = self._node(next(events), events, ())
        next(events)  # the end of the document
        after = next(events)
        if not isinstance(after, yaml.StreamEndEvent):
            text = "a second document; one file is one manifest"
            raise _unreadable(self._mark_of(after), text)
        return node

    def _node(self, event: yaml.Event, events: Iterator[yaml.Event], path: KeyPath) -> Node:
        mark = self._mark_of(event)
        if len(path) > MAX_DEPTH:
            raise _unreadable(mark, f"nested more than {MAX_DEPTH} deep; a manifest needs 4")
        self._refuse_extras(event, mark, path)
        if isinstance(event, yaml.AliasEvent):
            return Node(mark, None)
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(mark, events, path)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(mark, events, path)
        assert isinstance(event, yaml.ScalarEvent)
        if any("\ud800" <= character <= "\udfff" for character in event.value):
            text = "not text: half of a character (\\ud800 to \\udfff)"
            self.problems.append(Problem(mark, path, text))
            return Node(mark, None)
        if event.style is None and event.value in _NO_VALUE:
            text = NO_ITEM if path and isinstance(path[-1], int) else NO_VALUE
            self.problems.append(Problem(mark, path, text))
            return Node(mark, None)
        return Node(mark, event.value)

    def _sequence(self, mark: Mark, events: Iterator[yaml.Event], path: KeyPath) -> Node:
        items: list[Node] = []
        while not isinstance(event := next(events), yaml.SequenceEndEvent):
            items.append(self._node(event, events, (*path, len(items))))
        return Node(mark, items)

    def _mapping(self, mark: Mark, events: Iterator[yaml.Event], path: KeyPath) -> Node:
        node = Node(mark, entries := {})
        while not isinstance(event := next(events), yaml.MappingEndEvent):
            key_mark = self._mark_of(event)
            if not isinstance(event, yaml.ScalarEvent):
                self.problems.append(Problem(key_mark, path, "a key must be a plain word"))
                self._node(event, events, path)  # only to get past it
                self._node(next(events), events, path)
                continue
            self._refuse_extras(event, key_mark, path)
            key = event.value.encode("utf-8", "backslashreplace").decode()
            value = self._node(next(events), events, (*path, key))
            if key == "<<":
                text = "merge keys (<<) are not used in manifests; write the keys out"
                self.problems.append(Problem(key_mark, path, text))
                continue
            if key in entries:
                where = f", first on line {node.key_marks[key].line}" if self.lines else ""
                text = f"given twice{where}; remove one"
                self.problems.append(Problem(key_mark, (*path, key), text))
                continue
            entries[key] = value
            node.key_marks[key] = key_mark
        return node

    def _refuse_extras(self, event: yaml.Event, mark: Mark, path: KeyPath) -> None:
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            text = "anchors and aliases (& and *) are not used in manifests; write the value out"
            self.problems.append(Problem(mark, path, text))
        if tag := getattr(event, "tag", None):
            text = f"tags ({tag}) are not used in manifests; remove the tag"
            self.problems.append(Problem(mark, path, text))

    def _refuse_tabs(self, text: str) -> None:
        for number, line in enumerate(text.split("\n")):
            if "\t" in line[: len(line) - len(line.lstrip())] and line.strip():
                raise _unreadable(self._mark(number), "a tab; indent with spaces instead")

    def _syntax_error(self, error: yaml.MarkedYAMLError) -> ManifestError:
        # What was never closed is told where it was opened.
        open_end = "stream end" in (error.problem or "") or "end of stream" in (error.problem or "")
        marks = (error.problem_mark, error.context_mark)
        where = next((mark for mark in (marks[::-1] if open_end else marks) if mark), None)
        what = " ".join(part for part in (error.context, error.problem) if part)
        hint = ""
        if "mapping values are not allowed" in what:
            hint = " (a colon too many, or wrong indentation)"
        return _unreadable(self._mark(where.line if where else 0), f"not valid YAML: {what}{hint}")

    def _mark_of(self, event: yaml.Event) -> Mark:
        return self._mark(event.start_mark.line if event.start_mark else 0)

    def _mark(self, line: int) -> Mark:
        return Mark(self.source, line + 1) if self.lines else Mark(self.source)


def _unreadable(mark: Mark, text: str) -> ManifestError:
    return ManifestError(str(Problem(mark, (), text)))


def set_value(root: Node, path: KeyPath, value: Node) -> None:
    """Put `value` at `path`, making mappings on the way. Raises ManifestError where there is
    no such item of a list, or where a parent is not a mapping."""
    node = root
    for depth, part in enumerate(path):
        last = depth + 1 == len(path)
        if isinstance(part, int):
            if not isinstance(node.value, list) or part >= len(node.value):
                raise _unreadable(value.mark, f"there is no {dotted(path[: depth + 1])}")
            if last:
                node.value[part] = value
            else:
                node = node.value[part]
            continue
        if node.value is None:
            node.value = {}
        if not isinstance(node.value, dict):
            raise _unreadable(value.mark, f"{dotted(path[:depth])} has no keys")
        node.key_marks[part] = value.mark if last else node.key_marks.get(part, value.mark)
        if last:
            node.value[part] = value
        else:
            node = node.value.setdefault(part, Node(value.mark, {}))
