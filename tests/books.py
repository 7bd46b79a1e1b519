"""Tiny books for the tests of publishing: a few cells, no training, no heavy import."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nbformat
from threefactors.experiments.provenance import versions
from threefactors.inference import VERDICT_MIME
from threefactors.publishing.chapters import Chapter, find, library_sha256, source_sha256
from threefactors.publishing.execute import inputs_sha256
from threefactors.publishing.gate import sign

REPOSITORY = Path(__file__).resolve().parents[1]

HEAD = """# %% [markdown]
# # A law

# %% tags=["parameters"]
scale = "laptop"  # smoke | laptop | paper
seeds = 8
"""


def verdict(**changes):
    """A verdict's dictionary as inference writes it."""
    entry = {
        "id": "C3", "statement": "wider", "source": "arXiv 1711.04623", "protocol": "equal epochs",
        "arm": "plain", "verdict": "SUPPORTED", "estimate": -0.8, "interval": [-0.9, -0.7], "n": 8,
        "reason": "the whole interval lies below 0",
    }  # fmt: skip
    return entry | changes


def showing(*entries):
    """Source of a cell that shows verdicts."""
    data = json.dumps({VERDICT_MIME: list(entries), "text/plain": "a verdict"})
    return f"import json\nfrom IPython.display import display\ndisplay(json.loads({data!r}), raw=True)"


def chapter(*cells, head=HEAD):
    """Source of a chapter: the head, then each text as a code cell."""
    return head + "".join(f"\n# %%\n{cell}\n" for cell in cells)


def write_book(root, **sources):
    """A repository at ``root`` with the given chapters: ``write_book(root, c10_law=chapter("1 + 1"))``."""
    (root / "book").mkdir(parents=True)
    names = [name.removeprefix("c") for name in sources]
    for name, source in zip(names, sources.values(), strict=True):
        (root / "book" / f"{name}.py").write_text(source, encoding="utf-8")
    listed = "".join(f"  - file: book/{name}\n" for name in names)
    (root / "_toc.yml").write_text(f"format: jb-book\nroot: book/intro\nchapters:\n{listed}")
    (root / "book" / "intro.md").write_text("# A book\n")
    (root / "book" / "references.bib").write_text("")
    shutil.copy(REPOSITORY / "_config.yml", root)
    return root


def notebook(*outputs_of_cells, **own):
    """An executed notebook that passes the gate: a parameters cell, then a cell for each list of outputs."""
    sources = ['scale = "laptop"'] + [f"cell_{i}()" for i in range(len(outputs_of_cells))]
    done = {"status": "completed", "exception": False, "start_time": "now", "end_time": "now"}
    cells = [
        nbformat.v4.new_code_cell(
            source, execution_count=i, outputs=list(outputs), metadata={"papermill": dict(done), "tags": []}
        )
        for i, (source, outputs) in enumerate(zip(sources, [[], *outputs_of_cells], strict=True), start=1)
    ]
    cells[0].metadata.tags.append("parameters")
    record = {
        "fingerprint": "f", "parameters": {"scale": "laptop"}, "scale": "laptop", "device": "cpu",
        "seconds": 1.5, "peak_memory": 1, "versions": versions(), "commit": None,
    }  # fmt: skip
    metadata = {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "papermill": {"end_time": "now", "exception": None},
        "threefactors": record | own,
    }
    executed = nbformat.v4.new_notebook(cells=cells, metadata=metadata)
    sign(executed)
    return executed


def publish(root, name, executed):
    """Put an executed notebook into the book at ``root`` as `threefactors book` would, a source beside it."""
    one = Chapter(root / "book" / f"{name}.py")
    if not one.source.exists():
        one.source.parent.mkdir(parents=True, exist_ok=True)
        one.source.write_text(HEAD, encoding="utf-8")
    own = {"source": source_sha256(one.source), "library": library_sha256(), "data": None}
    own["inputs"] = inputs_sha256(one, [other for other in find(root) if other.name < name])
    executed.metadata["threefactors"] |= own
    sign(executed)
    nbformat.write(executed, one.published)
    return one


def shown(*entries):
    """The output of a cell that showed verdicts: one as itself, several as a list."""
    data = {VERDICT_MIME: entries[0] if len(entries) == 1 else list(entries), "text/plain": "a verdict"}
    return nbformat.v4.new_output("display_data", data=data)
