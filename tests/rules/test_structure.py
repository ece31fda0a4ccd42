"""Rules that the whole project keeps: import direction, sizes, docstrings, public names."""

import ast
import graphlib
from pathlib import Path

import pytest

import mtc_core

ROOT = Path(__file__).parents[2]
PACKAGES = ("mtc_core", "orchestrator")
SOURCES = sorted(path for name in PACKAGES for path in (ROOT / name).rglob("*.py"))
EVERYWHERE = SOURCES + sorted(
    path for name in ("tests", "benchmarks") for path in (ROOT / name).rglob("*.py")
)
LINES, FUNCTION_LINES = 320, 60

# Who may import these at all, relative to the root; and always inside a function.
GUESTS = {
    "transformers": (
        "mtc_core/capture/",
        "mtc_core/model/",
        "mtc_core/tokens/tokenizer",
    ),
    "transformer_lens": ("mtc_core/capture/", "mtc_core/model/"),
    "gguf": ("mtc_core/model/gguf",),
    "datasets": ("mtc_core/tokens/text",),
    "wandb": ("orchestrator/tracking/wandb_run", "mtc_core/wandb_artifacts"),
}
NOT_IN_CORE = {"ray", "click", "pydantic", "rich", "orchestrator"}
RAY_FILES = "orchestrator/ray_backend/"


def module_name(path):
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in SOURCES}


def imports(path):
    """(imported name, at module level and at run time) for every import statement of a file."""

    def visit(node, top):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from ((alias.name, top) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{path}: relative import"
                yield child.module, top
                yield from ((f"{child.module}.{alias.name}", top) for alias in child.names)
            else:
                inner = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
                typing_only = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)
                yield from visit(child, top and not inner and not typing_only)

    yield from visit(tree_of(path), True)


def tree_of(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def relative(path):
    return path.relative_to(ROOT).as_posix()


def top_names(path):
    return {name.split(".")[0] for name, _ in imports(path)}


def test_there_is_something_to_check():
    assert {"mtc_core.trainer", "mtc_core.capture", "orchestrator.driver"} <= MODULES.keys()
    assert ("mtc_core.sites", True) in set(imports(ROOT / "mtc_core" / "config.py"))


def test_the_core_imports_nothing_from_above():
    for path in SOURCES:
        if relative(path).startswith("mtc_core/"):
            assert not top_names(path) & NOT_IN_CORE, relative(path)


def test_ray_stays_in_its_own_files():
    for path in SOURCES:
        if "ray" in top_names(path):
            assert relative(path).startswith(RAY_FILES), relative(path)


@pytest.mark.parametrize("library", GUESTS)
def test_heavy_libraries_are_imported_where_needed_and_inside_functions(library):
    users = 0
    for path in SOURCES:
        found = [top for name, top in imports(path) if name.split(".")[0] == library]
        users += bool(found)
        if found:
            assert relative(path).startswith(GUESTS[library]), relative(path)
            assert not any(found), f"{relative(path)} imports {library} at module level"
    assert users, f"nothing imports {library}: the rule tests nothing"


def module_graph():
    """Module -> project modules that it imports at module level."""
    graph = {}
    for name, path in MODULES.items():
        found = {imported for imported, top in imports(path) if top}
        graph[name] = (found & MODULES.keys()) - {name}
    return graph


def test_no_two_modules_import_each_other_however_far_round():
    graphlib.TopologicalSorter(module_graph()).prepare()  # raises CycleError with the cycle


def reaches(graph, start):
    seen, todo = set(), [start]
    while todo:
        for name in graph.get(todo.pop(), ()):
            if name not in seen:
                seen.add(name)
                todo.append(name)
    return seen


# A file of one stage imports, even indirectly, no stage to its right.
STAGES = (
    ("orchestrator.manifest",),
    ("orchestrator.planning",),
    ("orchestrator.cells",),
    ("orchestrator.backend", "orchestrator.failures", "orchestrator.suite"),
    ("orchestrator.audience", "orchestrator.tracking", "orchestrator.ray_backend"),
    ("orchestrator.driver",),
    ("orchestrator.cli",),
)


def test_the_orchestrator_reads_from_manifest_to_command_line():
    graph = module_graph()
    stage_of = {
        name: i
        for i, stage in enumerate(STAGES)
        for name in MODULES
        if any(name == first or name.startswith(f"{first}.") for first in stage)
    }
    assert set(stage_of.values()) == set(range(len(STAGES)))
    for name, stage in stage_of.items():
        above = {other for other in reaches(graph, name) if stage_of.get(other, stage) > stage}
        assert not above, f"{name} imports {sorted(above)}"
    imported = {other for names in graph.values() for other in names}
    assert "orchestrator.cli" not in imported


@pytest.mark.parametrize("path", EVERYWHERE, ids=relative)
def test_files_and_functions_fit_a_reader(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno < FUNCTION_LINES, node.name


@pytest.mark.parametrize("path", EVERYWHERE, ids=relative)
def test_every_module_says_what_it_is_for(path):
    tree = tree_of(path)
    if tree.body:
        assert ast.get_docstring(tree)


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_sources_hold_no_stubs_or_notes_to_self(path):
    text = path.read_text(encoding="utf-8")
    for mark in ("TODO", "FIXME", "XXX", "raise NotImplementedError"):
        assert mark not in text


def test_public_names_are_the_documented_ones():
    documented = {
        "MatryoshkaTranscoder", "Site", "TrainConfig", "TranscoderSpec", "fit", "load_suite",
        "activation_rows", "suggest_group_sizes", "suggest_k",
    }  # fmt: skip
    assert set(mtc_core.__all__) == documented
    for name in documented:
        assert getattr(mtc_core, name).__doc__, name
    with pytest.raises(AttributeError, match="no_such_name"):
        mtc_core.no_such_name  # noqa: B018
