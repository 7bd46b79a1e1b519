"""What decides the numbers of a record: the fingerprint of its run definition, part by part.

A record was dear, so it should not be called stale for a comment, a figure or a sentence; and it must be called
stale for anything that would change it. Hence the parts: the *code* of the chapter, as far as it can reach what is
recorded and at the record's scale; the *claims* that were judged; the *protocol* number of the store, which
stands for what the library does with a run; and the *data*.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import os
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from threefactors._identity import canonical
from threefactors.experiments import store
from threefactors.inference import CLAIMS
from threefactors.publishing.chapters import SCALES, Chapter, ChapterError
from threefactors.training import data, load

RECORDED = {"judge", "judge_family", "keep"}  # what these calls show is what a record holds
_SILENT = {"ctx", "kind", "type_comment", "type_params"}  # fields that say nothing, or that some Pythons lack
_RULE = ("measures", "axes", "each", "needs", "level", "min_seeds", "max_lost", "rule")


@dataclass(frozen=True)
class Definition:
    """Fingerprints of the parts: ``code``, ``claims`` by id, ``protocol``, ``data`` by name (None: not at hand)."""

    code: str
    claims: dict[str, str | None] = field(default_factory=dict)
    protocol: int = 0
    data: dict[str, str | None] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def changes(self, now: Definition) -> list[str]:
        """What differs between this one and the one ``now``, in words; data only where both are known."""
        found = []
        if self.code != now.code:
            found.append("the chapter's definition of its runs has changed")
        if changed := [name for name, mark in self.claims.items() if now.claims.get(name) != mark]:
            found.append(f"the declaration of {', '.join(changed)} has changed")
        if self.protocol != now.protocol:
            found.append(f"the protocol of runs and probes has changed ({self.protocol} then, {now.protocol} now)")
        known = {name: mark for name, mark in now.data.items() if mark is not None}
        if changed := [name for name in known if self.data.get(name) not in (None, known[name])]:
            found.append(f"the data set {', '.join(changed)} has changed")
        return found


def define(
    chapter: Chapter, values: Mapping[str, Any], claims: Iterable[str], names: Iterable[str], root: Path | None
) -> Definition:
    """The definition as it stands: ``values`` of all parameters, ids of ``claims``, ``names`` of data sets.

    Data that do not lie under ``root`` are neither downloaded nor missed. Errors: ChapterError for code that
    cannot be parsed.
    """
    return Definition(
        code(chapter, values),
        {name: _claim(name) for name in sorted(set(claims))},
        store.PROTOCOL,
        {name: checksum(name, root) for name in sorted(set(names))},
    )


def code(chapter: Chapter, values: Mapping[str, Any]) -> str:
    """SHA-256 of what the chapter computes under these parameters, up to the last thing that is recorded."""
    trees = _trees(chapter, values)
    used = {node.id for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Name)}
    imports = sorted({text for tree in trees for name, text in _imports(tree) if name in used})
    parameters = {name: value for name, value in values.items() if name != "scale"}
    return _sha256([imports, [_skeleton(tree) for tree in trees], parameters, values["scale"]])


def keeps_something(chapter: Chapter) -> bool:
    """Whether the source judges a claim or keeps runs, as far as can be seen without running it."""
    source = chapter.source.read_text(encoding="utf-8")
    return "application/vnd.threefactors." in source or any(
        _calls(ast.parse(cell.source)) for cell in chapter.notebook({}).cells if cell.cell_type == "code"
    )


def data_sets(chapter: Chapter, values: Mapping[str, Any]) -> list[str]:
    """Names of the data sets in the code, at the scale of ``values``."""
    nodes = [node for tree in _trees(chapter, values) for node in ast.walk(tree)]
    constants = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    used = {node.id for node in nodes if isinstance(node, ast.Name)}
    constants |= {value for name, value in values.items() if name in used and isinstance(value, str)}
    return sorted(name for name in constants if name in data.NAMES or name.endswith(".npz"))


def checksum(name: str, root: str | os.PathLike[str] | None) -> str | None:
    """Checksum of a data set that is at hand, else None: nothing is downloaded in order to compare."""
    here = name == "digits" or Path(name).is_file() or (root is not None and name in data.found(root))
    try:
        return load(name, root).checksum if here else None
    except (OSError, ValueError):  # incomplete or damaged: whoever trains on it is told
        return None


def _trees(chapter: Chapter, values: Mapping[str, Any]) -> list[ast.Module]:
    """Code cells at the scale: no parameters, no figures unless a later cell needs a name of theirs."""
    cells: list[tuple[bool, ast.Module]] = []
    for number, cell in enumerate(chapter.notebook({}).cells, start=1):
        tags = set(cell.metadata.get("tags", []))
        if cell.cell_type == "code" and "parameters" not in tags:
            try:
                tree = _AtScale(values["scale"]).visit(ast.parse(cell.source))
            except SyntaxError as error:
                raise ChapterError(f"{chapter.name}: cell {number} is not Python ({error.msg})") from None
            cells.append(("hide-input" in tags, tree))
    last = max((i for i, (_, tree) in enumerate(cells) if _calls(tree)), default=len(cells) - 1)
    cells = cells[: last + 1]
    taken = {i for i, (hidden, _) in enumerate(cells) if not hidden}
    while True:
        needed = set().union(*(_names(cells[i][1], ast.Load) for i in taken)) if taken else set()
        bound = set().union(*(_names(cells[i][1], ast.Store) for i in taken)) if taken else set()
        more = {i for i, (_, tree) in enumerate(cells) if _names(tree, ast.Store) & (needed - bound)} - taken
        if not more:
            return [cells[i][1] for i in sorted(taken)]
        taken |= more


def _calls(tree: ast.AST) -> bool:
    called = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    return any(isinstance(function, ast.Name) and function.id in RECORDED for function in called)


def _names(tree: ast.AST, context: type[ast.expr_context]) -> set[str]:
    found = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, context)}
    defined = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    return found | defined if context is ast.Store else found


class _AtScale(ast.NodeTransformer):
    """Leaves of a table of sizes the one entry, and of a choice by scale the one branch."""

    def __init__(self, scale: str) -> None:
        self.scale = scale

    def visit_Name(self, node: ast.Name) -> ast.expr:
        here = node.id == "scale" and isinstance(node.ctx, ast.Load)
        return ast.Constant(self.scale) if here else node

    def visit_Dict(self, node: ast.Dict) -> ast.expr:
        self.generic_visit(node)
        keys = [key.value if isinstance(key, ast.Constant) else None for key in node.keys]
        if self.scale in keys and set(keys) <= set(SCALES):
            return node.values[keys.index(self.scale)]
        return node

    def visit_Compare(self, node: ast.Compare) -> ast.expr:
        self.generic_visit(node)
        first, second = node.left, node.comparators[0]
        if isinstance(first, ast.Constant) and isinstance(second, ast.Constant) and len(node.ops) == 1:
            if isinstance(node.ops[0], ast.Eq):
                return ast.Constant(first.value == second.value)
            if isinstance(node.ops[0], ast.NotEq):
                return ast.Constant(first.value != second.value)
        return node

    def visit_If(self, node: ast.If) -> Any:
        self.generic_visit(node)
        return (node.body if node.test.value else node.orelse) if isinstance(node.test, ast.Constant) else node

    def visit_IfExp(self, node: ast.IfExp) -> ast.expr:
        self.generic_visit(node)
        return (node.body if node.test.value else node.orelse) if isinstance(node.test, ast.Constant) else node


def _imports(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Names that imports bind, each with where it comes from."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                source = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
                yield (alias.asname or alias.name).partition(".")[0], f"{source}{alias.name} as {alias.asname}"


def _skeleton(node: Any) -> Any:
    """A tree without formatting, comments, docstrings and imports; alike under every version of Python."""
    if isinstance(node, ast.Constant):
        return repr(node.value)
    if isinstance(node, ast.AST):
        fields = ((name, value) for name, value in ast.iter_fields(node) if name not in _SILENT)
        return [type(node).__name__, *([name, _skeleton(value)] for name, value in fields if value not in (None, []))]
    if isinstance(node, list):
        return [_skeleton(part) for part in node if not _idle(part)]
    return repr(node)


def _idle(node: Any) -> bool:
    text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return text or isinstance(node, ast.Import | ast.ImportFrom)


def _claim(identifier: str) -> str | None:
    """SHA-256 of how a claim is judged: its statistic, its rule and its conditions, and no word of its wording."""
    claim = CLAIMS.get(identifier)
    if claim is None:
        return None
    statistic = claim.statistic
    kind = statistic if inspect.isfunction(statistic) else type(statistic)
    own = None if inspect.isfunction(statistic) else canonical({"statistic": statistic})
    source = _skeleton(ast.parse(textwrap.dedent(inspect.getsource(kind))))
    return _sha256([canonical({name: getattr(claim, name) for name in _RULE}), own, source])


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=repr).encode()).hexdigest()
