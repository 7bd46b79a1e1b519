"""Is this executed notebook fit to publish?

jupyter-book renders a notebook that never ran, or ran into an error half-way, without a word. So
each notebook passes here before it is put beside its source, and again before the site is built.
"""

from __future__ import annotations

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


def check(
    notebook: Path | NotebookNode, *, fingerprint: str | None = None, version: str | None = None
) -> list[Problem]:
    """All reasons not to publish an executed notebook; an empty list lets it pass.

    ``fingerprint``: the one it must carry (None: any, but one). ``version``: the version of the library
    it must have run with (None: the one installed). A cell tagged ``remove-stderr`` may write to stderr,
    since that is not published.
    """
    if isinstance(notebook, Path):
        if not notebook.is_file():
            return [Problem(None, f"{notebook.name} does not exist: the chapter was never executed")]
        try:
            read = nbformat.read(notebook, as_version=4)
        except (ValueError, AttributeError, KeyError, nbformat.ValidationError) as error:
            return [Problem(None, f"not a readable notebook ({type(error).__name__})")]
        return check(read, fingerprint=fingerprint, version=version)
    version = version or versions()["threefactors"]
    return [
        *_outputs(notebook),
        *_counts(notebook),
        *_finished(notebook),
        *_parameters(notebook),
        *_provenance(notebook, fingerprint, version),
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


def _code(notebook: NotebookNode) -> list[tuple[int, Any]]:
    """Nonempty code cells with their number in the notebook, counted from 1."""
    numbered = enumerate(notebook.cells, start=1)
    return [(i, cell) for i, cell in numbered if cell.cell_type == "code" and cell["source"].strip()]


def _text(output: Any) -> list[str]:
    data = output.get("data", {})
    whole = [output.get("text", ""), data.get("text/plain", ""), data.get("text/html", "")]
    return [line for text in whole for line in text.splitlines()]
