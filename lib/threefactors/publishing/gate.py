"""Is this executed notebook fit to publish?

jupyter-book renders a notebook that never ran, or ran into an error half-way, without a word. So
each notebook passes here before it is put beside its source, and again when the site is built: `fit` asks for
all of them together, and the Sphinx extension refuses what it does not let pass.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from threefactors.experiments.provenance import versions
from threefactors.publishing import chapters


@dataclass(frozen=True)
class Problem:
    """One reason not to publish: the number of the cell (None: the whole notebook) and what is wrong."""

    cell: int | None
    message: str

    def __str__(self) -> str:
        return self.message if self.cell is None else f"cell {self.cell}: {self.message}"


def sign(notebook: NotebookNode) -> None:
    """Write into a notebook's metadata what tells whether anything in it was changed afterwards."""
    notebook.metadata["threefactors"]["content"] = content(notebook)


def content(notebook: NotebookNode) -> str:
    """sha256 of all that a notebook holds, its signature apart: no secret, but nobody edits past it unawares."""
    own = {key: value for key, value in notebook.metadata.get("threefactors", {}).items() if key != "content"}
    whole = {**notebook, "metadata": {**notebook.metadata, "threefactors": own}}
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


def check(
    notebook: Path | NotebookNode,
    *,
    fingerprint: str | None = None,
    version: str | None = None,
    source: Path | None = None,
    inputs: str | None = None,
) -> list[Problem]:
    """All reasons not to publish an executed notebook; an empty list lets it pass.

    ``fingerprint``: the one it must carry (None: any, but one). ``version``: the version of the library
    it must have run with (None: the one installed). ``source``: the chapter's file, which like the library must be
    what it was at the execution (None: not asked). ``inputs``: digest of the records and notebooks that it read
    (None: not asked). A cell tagged ``remove-stderr`` may write to stderr, since that is not published.
    """
    if isinstance(notebook, Path):
        if not notebook.is_file():
            return [Problem(None, f"{notebook.name} does not exist: the chapter was never executed")]
        try:
            read = nbformat.read(notebook, as_version=4)
        except (ValueError, AttributeError, KeyError, nbformat.ValidationError) as error:
            return [Problem(None, f"not a readable notebook ({type(error).__name__})")]
        return check(read, fingerprint=fingerprint, version=version, source=source, inputs=inputs)
    version = version or versions()["threefactors"]
    return [
        *_outputs(notebook),
        *_counts(notebook),
        *_finished(notebook),
        *_parameters(notebook),
        *_provenance(notebook, fingerprint, version),
        *_changes(notebook, source, inputs),
    ]


def _finished(notebook: NotebookNode) -> Iterator[Problem]:
    papermill = notebook.metadata.get("papermill", {})
    if not papermill.get("end_time"):
        yield Problem(None, "papermill recorded no end: the execution was cut off")
    if papermill.get("exception"):
        yield Problem(None, "papermill recorded an exception")
    for index, cell in _code(notebook):
        status = cell.metadata.get("papermill", {}).get("status", "missing")
        if status != "completed":
            yield Problem(index, f"its status is {status}, not completed")


def _counts(notebook: NotebookNode) -> Iterator[Problem]:
    for expected, (index, cell) in enumerate(_code(notebook), start=1):
        if cell.get("execution_count") != expected:
            yield Problem(index, f"its execution count is {cell.get('execution_count')}, not {expected}")
            return  # all after it are off as well


def _outputs(notebook: NotebookNode) -> Iterator[Problem]:
    for index, cell in _code(notebook):
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                yield Problem(index, f"it ended in {output.ename}: {output.evalue}")
            elif output.get("name") == "stderr" and "remove-stderr" not in cell.metadata.get("tags", []):
                line = output.text.strip().splitlines()[0] if output.text.strip() else ""
                yield Problem(index, f"it wrote to stderr ({line[:80]}); mend that, or tag it remove-stderr")
            elif any("Traceback" in line for line in _text(output)):
                yield Problem(index, "its output shows a Traceback")


def _parameters(notebook: NotebookNode) -> Iterator[Problem]:
    tagged = [c for _, c in _code(notebook) if "parameters" in c.metadata.get("tags", [])]
    if len(tagged) != 1:
        yield Problem(None, f"{len(tagged)} cells are tagged parameters; exactly one must be")
        return
    if any("injected-parameters" in cell.metadata.get("tags", []) for _, cell in _code(notebook)):
        yield Problem(None, "it shows readers a cell of injected parameters; values belong in the parameters cell")
    declared = json.loads(json.dumps(chapters.literals(tagged[0]["source"])))  # tuples are lists in metadata
    if "scale" not in declared:
        yield Problem(None, "its parameters declare no scale")
    recorded = notebook.metadata.get("threefactors", {}).get("parameters", {})
    if recorded != declared:
        yield Problem(None, f"its parameters cell says {declared}, but it was executed with {recorded}")


def _provenance(notebook: NotebookNode, fingerprint: str | None, version: str) -> Iterator[Problem]:
    own = notebook.metadata.get("threefactors", {})
    if not own.get("fingerprint"):
        yield Problem(None, "it carries no fingerprint: `threefactors book` did not execute it")
    elif fingerprint is not None and own["fingerprint"] != fingerprint:
        yield Problem(None, "it was executed from another source, library, parameters, device or data")
    ran_with = own.get("versions", {}).get("threefactors")
    if ran_with != version:
        yield Problem(None, f"it ran with threefactors {ran_with}, but {version} is installed")
    kernel = notebook.metadata.get("kernelspec", {}).get("name")
    if kernel != "python3":
        yield Problem(None, f"its kernel is named {kernel}; readers have python3")


def _changes(notebook: NotebookNode, source: Path | None, inputs: str | None) -> Iterator[Problem]:
    own = notebook.metadata.get("threefactors", {})
    if own.get("content") != content(notebook):
        yield Problem(None, "it is not what its execution left: something in it was changed afterwards")
    if source is not None:
        if not source.is_file():
            yield Problem(None, f"there is no chapter {source.name} from which it could have come")
        elif own.get("source") != chapters.source_sha256(source):
            yield Problem(None, f"its source {source.name} has changed since it was executed")
        if own.get("library") != chapters.library_sha256():
            yield Problem(None, "the library has changed since it was executed")
    if inputs is not None and own.get("inputs") != inputs:
        yield Problem(None, "the records or notebooks that it reads have changed since it was executed")


def _code(notebook: NotebookNode) -> list[tuple[int, Any]]:
    """Nonempty code cells with their number in the notebook, counted from 1."""
    numbered = enumerate(notebook.cells, start=1)
    return [(i, cell) for i, cell in numbered if cell.cell_type == "code" and cell["source"].strip()]


def _text(output: Any) -> list[str]:
    data = output.get("data", {})
    whole = [output.get("text", ""), data.get("text/plain", ""), data.get("text/html", "")]
    return [line for text in whole for line in text.splitlines()]
