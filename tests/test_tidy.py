"""The style is a test: what the house agreed on, checked over the tree."""

from __future__ import annotations

import ast
import functools
import graphlib
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parent.parent
FILE_MAX_BYTES = 400_000
SOURCES = sorted(p for d in ("src", "lab", "benchmarks", "tests") for p in (ROOT / d).rglob("*.py"))
PRODUCT = [p for p in SOURCES if "src" in p.relative_to(ROOT).parts]
LINES_MAX, LINES_MAX_WITH_REASON, FUNCTION_LINES_MAX = 400, 700, 60
NAMES_THAT_SAY_NOTHING = {
    "util",
    "utils",
    "common",
    "helper",
    "helpers",
    "base",
    "manager",
    "managers",
    "objects",
    "misc",
}
# The runner and the request handler quarantine; the writer thread hands every error to whoever asked for the write.
# So does the simulated database. A periodic task that has failed has its next turn.
MAY_CATCH_EVERYTHING = {
    "control/engine/runner.py",
    "api/app.py",
    "store/engine/writer.py",
    "simulation/database.py",
    "periodic/tasks.py",
    "periodic/worker.py",
}


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@functools.cache
def _text(path: Path) -> str:
    return path.read_text()


@functools.cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(_text(path))


def _of_each(paths: Sequence[Path]) -> Callable[[Callable[[Path], None]], Callable[[], None]]:
    """One test for a rule, which names every file that breaks it. One for each file and rule would be five thousand,
    and to collect them would cost each process of a test run more than to run them."""

    def of(rule: Callable[[Path], None]) -> Callable[[], None]:
        def test() -> None:
            broken = list[str]()
            for path in paths:
                try:
                    rule(path)
                except AssertionError as error:
                    broken.append(str(error).splitlines()[0])
            assert not broken, "\n".join(broken)

        test.__name__, test.__doc__ = rule.__name__, rule.__doc__
        return test

    return of


@_of_each(SOURCES)
def test_file_is_short(path: Path) -> None:
    lines = _text(path).splitlines()
    limit = LINES_MAX_WITH_REASON if any("lines because" in line.lower() for line in lines[:12]) else LINES_MAX
    assert len(lines) <= limit, f"{_name(path)} has {len(lines)} lines; move a wall, or say why at its top"


@_of_each(PRODUCT)
def test_functions_are_short(path: Path) -> None:
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and "versions" not in path.parts:
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= FUNCTION_LINES_MAX, f"{_name(path)}:{node.lineno} {node.name} has {length} lines"


@_of_each(PRODUCT)
def test_module_says_what_it_is(path: Path) -> None:
    text = _text(path)
    assert not text.strip() or ast.get_docstring(_tree(path)), f"{_name(path)} has no docstring"


@_of_each(SOURCES)
def test_names_say_something(path: Path) -> None:
    parts = {part.removesuffix(".py") for part in path.relative_to(ROOT).parts}
    assert not parts & NAMES_THAT_SAY_NOTHING, f"{_name(path)}: a name that describes nothing"


def _catches_everything(tree: ast.AST) -> Iterator[int]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            caught = node.type
            if caught is None or (isinstance(caught, ast.Name) and caught.id in {"Exception", "BaseException"}):
                yield node.lineno


@_of_each(PRODUCT)
def test_untyped_rows_stay_in_the_store(path: Path) -> None:
    """What leaves it has a type of store/rows.py, so that mypy knows a column that is none."""
    if path.relative_to(ROOT / "src" / "droveway").parts[0] != "store":
        found = re.search(r"RowMapping|\.mappings\(", _text(path))
        assert found is None, f"{_name(path)} holds {found and found[0]}: see store/engine/results.py"


# SQL stands in store/. The simulation looks at the rows beside the program's own queries, whose mistakes it would make
# too; the `db` membership driver (the one that is control's) tells a database's failure from others.
MAY_KNOW_SQL = ("store/", "simulation/", "drivers/membership/db.py")


@_of_each(PRODUCT)
def test_sql_stands_in_the_store(path: Path) -> None:
    if str(path.relative_to(ROOT / "src" / "droveway")).startswith(MAY_KNOW_SQL):
        return
    found = re.search(r"\bsqlalchemy\b|droveway\.store\.schema|store import schema|\btx\.execute\(", _text(path))
    assert found is None, f"{_name(path)} holds {found and found[0]}: what asks the database is a function of store/"


def test_no_two_classes_of_one_name_are_terms_of_the_domain() -> None:
    """`Subject` was two: what work is about, and whose certificate it is."""
    terms = [
        node.name
        for path in PRODUCT
        if {"domain", "ports"} & set(path.relative_to(ROOT).parts)
        for node in _tree(path).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    ]
    assert [name for name in terms if terms.count(name) > 1] == []


@_of_each(PRODUCT)
def test_only_quarantine_catches_everything(path: Path) -> None:
    if "/".join(path.relative_to(ROOT / "src" / "droveway").parts) in MAY_CATCH_EVERYTHING:
        return
    for line in _catches_everything(_tree(path)):
        raise AssertionError(f"{_name(path)}:{line} catches everything; name what it expects")


@_of_each(SOURCES)
def test_nothing_is_left_for_later(path: Path) -> None:
    if path.name == "test_tidy.py":
        return
    for number, line in enumerate(_text(path).splitlines(), 1):
        assert not re.search(r"\b(TODO|FIXME|HACK)\b", line), f"{_name(path)}:{number} leaves something for later"
        assert "mock.patch" not in line, f"{_name(path)}:{number} patches; use the simulated driver"


def test_every_decision_is_numbered() -> None:
    for path in (ROOT / "docs" / "decisions").glob("*.md"):
        assert re.match(r"\d{3}-[a-z0-9-]+\.md$", path.name), f"{path.name} is not NNN-what-it-decides.md"


def test_no_circle_of_imports_between_files() -> None:
    graph = grimp.build_graph("droveway", exclude_type_checking_imports=True, cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    graphlib.TopologicalSorter(imports).prepare()  # CycleError names the files of a circle


@_of_each(SOURCES)
def test_the_formatter_is_obeyed(path: Path) -> None:
    if path.name in {"test_tidy.py", "routes.py"}:  # the whole API on one page is a table that is read by its columns
        return
    text = _text(path)
    assert "fmt: skip" not in text and "fmt: off" not in text, f"{_name(path)} keeps the formatter out"


# Words of a conversation, which no operator searches for; docs/glossary.md has the terms of the field.
NO_NAMES = {
    "said",
    "telling",
    "wanting",
    "room",
    "among",
    "far",
    "owed",
    "went",
    "ear",
    "debt",
    "Sight",
    "Sighting",
    "Wanted",
    "told",
    "tell",
    "hear",
    "heard",
    "obey",
    "fate",
    "wish",
    "whom",
    "somebody",
    "nobody",
    "stranger",
    "Belongings",
    "Garbled",
}
NO_PHRASES = re.compile(
    r"\b(?:the ear|ears|pays? the debt|judges? (?:no more|nobody)|hears (?:nobody|from)|deaf|robbed"
    r"|whoever|somebody|nobody(?:'s)?|(?:is|are|was|were) (?:not )?believed|knows (?:nothing|not)|has said nothing)\b"
)
# Comments and docstrings likewise: they are read more often than messages.
NO_WORDS = re.compile(r"\b(?:whoever|somebody)\b", re.IGNORECASE)


def _names(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


def _messages(tree: ast.AST) -> Iterator[str]:
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    docs = {id(node.body[0].value) for node in ast.walk(tree) if isinstance(node, documented) and _has_doc(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield node.value


@_of_each(PRODUCT)
def test_comments_name_who_acts(path: Path) -> None:
    for number, line in enumerate(_text(path).splitlines(), 1):
        found = NO_WORDS.search(line)
        assert not found, (
            f"{_name(path)}:{number} says {found and found[0]!r}: name the process, the caller or the user"
        )


def _has_doc(node: ast.AST) -> bool:
    body = getattr(node, "body", [])
    return bool(body) and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant)


@_of_each(PRODUCT)
def test_words_are_those_of_the_field(path: Path) -> None:
    tree = _tree(path)
    found = {name for name in _names(tree) if name.strip("_") in NO_NAMES}
    assert not found, f"{_name(path)} names {', '.join(sorted(found))}: docs/glossary.md has the field's terms"
    if "simulation" not in path.parts:
        for text in _messages(tree):
            assert not NO_PHRASES.search(text), f"{_name(path)}: {text!r} is no message that one searches for"


def test_nothing_large_is_in_the_clone() -> None:
    """What a trial or a run has left does not belong there: an image, a database."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    paths = [ROOT / name for name in listed.decode().split("\0") if name]
    assert [str(path) for path in paths if path.is_file() and path.stat().st_size > FILE_MAX_BYTES] == []
