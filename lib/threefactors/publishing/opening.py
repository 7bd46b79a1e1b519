"""The cells that a notebook opened away from its book begins with: what it is, its library, where it computes.

The code of these cells is that of the functions below, as it stands: what is tested here is what readers run.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

import nbformat
from nbformat import NotebookNode

from threefactors.publishing.crossrefs import Crossrefs
from threefactors.publishing.recorded import duration
from threefactors.publishing.repository import Repository

CORES, MEMORY = 2, 12  # of Colab's free machine: processor cores, GiB


def install(source: str | None, remedy: str) -> None:
    """Installs the library where it is missing, and packages that it lacks; replaces nothing that is there."""
    import importlib
    import re
    import subprocess
    import sys
    import tempfile
    from importlib import metadata, util
    from pathlib import Path

    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    if util.find_spec("threefactors") is not None:
        print("The library is here already; nothing was installed.")
        return
    if source is None:
        raise ImportError(f"this notebook needs the library threefactors, which is not installed; {remedy}")

    def pip(*words: str) -> None:
        done = subprocess.run([sys.executable, "-m", "pip", *words], capture_output=True, text=True)
        importlib.invalidate_caches()
        if done.returncode:
            raise ImportError(f"pip {' '.join(words)} failed:\n{done.stderr}")

    def versions() -> dict[str, str]:
        found = [(canonicalize_name(each.metadata["Name"] or "?"), each.version) for each in metadata.distributions()]
        return dict(reversed(found))  # of two with one name the first counts

    before = versions()
    pip("install", "--quiet", "--no-deps", source)  # pip would else set right what other packages ask for
    asked = [Requirement(text) for text in metadata.requires("threefactors") or []]
    wanted = {canonicalize_name(one.name): one for one in asked if not one.marker or one.marker.evaluate({"extra": ""})}
    here = {name: before[name] for name in wanted if name in before}
    if unfit := [name for name in here if not wanted[name].specifier.contains(here[name], prereleases=True)]:
        pip("uninstall", "--quiet", "--yes", "threefactors")
        told = ", ".join(f"{wanted[name]}, and {here[name]} is here" for name in unfit)
        raise ImportError(f"the library needs {told}; nothing was replaced. Use a runtime that has it")
    if lacking := [str(one) for name, one in wanted.items() if name not in here]:
        with tempfile.TemporaryDirectory() as folder:
            release = re.compile(r"\d+(\.\d+)*((a|b|rc|\.post|\.dev)\d+)*(\+[\w.]+)?")  # others pip cannot read
            held = Path(folder) / "held.txt"
            held.write_text("".join(f"{name}=={v}\n" for name, v in before.items() if release.fullmatch(v)))
            try:
                pip("install", "--quiet", "--constraint", str(held), *lacking)
            except ImportError:
                pip("uninstall", "--quiet", "--yes", "threefactors")
                raise
    after = versions()
    if changed := {name: (v, after.get(name)) for name, v in before.items() if after.get(name) != v}:
        raise RuntimeError(f"pip replaced what it should not: {changed}; start from a fresh runtime")
    print(f"Installed threefactors {after['threefactors']}; added: {', '.join(lacking) or 'nothing else'}.")
    print(f"As before: torch {after['torch']}, numpy {after['numpy']} and all other packages.")


def fetch(url: str, branch: str, chapter: str) -> None:
    """Brings the executed notebooks of the book, which this chapter reads, and works beside them."""
    import os
    import subprocess
    from pathlib import Path

    if any(path.stem != chapter for path in Path().glob("[0-9][0-9]_*.ipynb")):
        print("The other chapters are here already.")
        return
    folder = Path("threefactors-book")
    if not folder.is_dir():
        clone = ["git", "clone", "--quiet", "--depth", "1", "--branch", branch, url, str(folder)]
        done = subprocess.run(clone, capture_output=True, text=True)
        if done.returncode:
            raise FileNotFoundError(f"the other chapters could not be fetched from {url}:\n{done.stderr}")
    os.chdir(folder / "book")
    print(f"Reading the other chapters in {Path.cwd()}.")


def choose(scale: str, keep_on_drive: bool, compute_on: str) -> None:
    """Where results are kept and what computes; away from Colab nothing changes unless it was chosen."""
    import os
    from importlib import util
    from pathlib import Path

    on_colab = util.find_spec("google") is not None and util.find_spec("google.colab") is not None
    if keep_on_drive:
        if not on_colab:
            raise ValueError("keep_on_drive is for Colab; elsewhere set THREEFACTORS_STORE to a folder of yours")
        from google.colab import drive

        drive.mount("/content/drive")
        os.environ["THREEFACTORS_STORE"] = "/content/drive/MyDrive/threefactors/store"
    if compute_on == "automatic" and on_colab:  # only the paper's networks are large enough to gain from a GPU
        import torch

        compute_on = "cuda" if scale == "paper" and torch.cuda.is_available() else "cpu"
    if compute_on != "automatic":
        os.environ["THREEFACTORS_DEVICE"] = compute_on
    if on_colab:
        processes = (os.cpu_count() or 1) if compute_on == "cpu" else 0
        os.environ.setdefault("THREEFACTORS_JOBS", str(processes if processes > 1 else 0))
        if scale == "paper" and "THREEFACTORS_DATA" not in os.environ:  # its data sets are downloaded
            Path("data").mkdir(exist_ok=True)
            os.environ["THREEFACTORS_DATA"] = str(Path("data").absolute())
    names = ("THREEFACTORS_DEVICE", "THREEFACTORS_JOBS", "THREEFACTORS_STORE")
    print(
        ", ".join(
            f"{name.removeprefix('THREEFACTORS_').lower()}: {os.environ.get(name) or 'default'}" for name in names
        )
    )


def about(
    name: str, own: Mapping[str, Any], repository: Repository | None, refs: Crossrefs, expected: str
) -> NotebookNode:
    """The first cell: which chapter of which book this is, when it was executed, what is ``expected`` of running it."""
    commit = own.get("commit") or {}
    number, count = refs.numbers.get(name), len(refs.numbers)
    which = f"chapter {number} of {count}" if number else "a page"
    links = [refs.link("Read it as a page", name)] if refs.site else []
    if repository:
        links.append(f"[its source]({repository.blob(f'book/{name}.py')})")
    where = f" · {' · '.join(links)}" if links else ""
    executed = f"Executed {_when(own, commit)}." if own.get("date") else "Not executed yet."
    text = (
        f"> **{refs.title}**, {which} of a book that executes{where}\n>\n"
        f"> {executed} Numbers within sentences are the book's; those in outputs become yours as soon as you run the "
        "cells, from the one below on.\n>\n"
        f"> **Time and memory.** {expected}"
    )
    return nbformat.v4.new_markdown_cell(text, id="about")


def _when(own: Mapping[str, Any], commit: Mapping[str, Any]) -> str:
    at = f" at commit `{commit['id'][:10]}`" + " (with changes)" * bool(commit.get("dirty")) if commit else ""
    return f"on {own['date'][:10]}{at}"


def expect(own: Mapping[str, Any], record: str, sized: bool = True) -> str:
    """What running a chapter takes, in words, from what it took when it was executed (``own`` metadata of the notebook)
    and from its ``record`` at scale `paper`, in words or ""; ``sized`` if it computes anything that has a scale."""
    if not sized:
        return "Nothing is computed here but tables: seconds, on any machine. It reads the other chapters' notebooks."
    paper = record or "has not been measured; it wants a GPU, and data sets that are downloaded"
    larger = f"Scale `paper` {paper}. On Colab's free GPU it has not been measured."
    if "seconds" not in own:
        return larger
    memory = own["peak_memory"] / 2**30
    room = f"of the {MEMORY} GiB there" if memory < MEMORY else f"more than the {MEMORY} GiB there"
    return (
        f"At scale `{own['scale']}` about {duration(own['seconds'])} on {CORES} processor cores, as many as Colab's "
        f"free machine has, and {memory:.1f} GiB of memory {room}: so much it took for the book, on "
        f"{own.get('machine') or own['device']}; longer if the book had some of its results at hand from an earlier "
        f"build. The book computes this scale without a GPU. {larger}"
    )


def setup(name: str, repository: Repository | None, summary: bool) -> NotebookNode:
    """The first code cell: the library at the commit of the book; for a ``summary`` the other chapters as well."""
    if repository and repository.commit:
        source, remedy = f"threefactors @ git+{repository.url}@{repository.commit}", ""
    else:
        newest = f"pip install git+{repository.url} brings its newest version" if repository else ""
        source, remedy = None, newest or "run pip install . in a copy of its repository, and restart the kernel"
    cell = _folded("Run me first: installs the library, and leaves torch, NumPy and CUDA as they are", install)
    cell.source += f"\n\ninstall({source!r}, {remedy!r})"
    if summary and repository and repository.branch:
        cell.source += f"\n\n\n{_source(fetch)}\n\nfetch({repository.url!r}, {repository.branch!r}, {name!r})"
    cell["id"] = "setup"
    return cell


def choices() -> NotebookNode:
    """The code cell after the parameters: keep results on Drive, compute on a GPU."""
    cell = _folded("Optional: keep results in your Drive, compute on a GPU", choose)
    title, _, code = cell.source.partition("\n")
    fields = (
        'keep_on_drive = False  # @param {type:"boolean"}\n'
        'compute_on = "automatic"  # @param ["automatic", "cpu", "cuda"]\n'
    )
    cell.source = f"{title}\n{fields}\n\n{code.strip()}\n\n\nchoose(scale, keep_on_drive, compute_on)"
    cell["id"] = "choices"
    return cell


def form(source: str) -> str:
    """The source of a parameters cell with each value as a field of a form.

    >>> print(form('scale = "laptop"  # smoke | laptop | paper\\nseeds = 8'))
    scale = "laptop"  # @param ["smoke", "laptop", "paper"]
    seeds = 8  # @param {type:"integer"}
    """
    return "\n".join(_field(line) for line in source.split("\n"))


def _field(line: str) -> str:
    found = re.fullmatch(r"""(\w+ = )(".*?"|'.*?'|[^#"']+?)\s*(?:#\s*(.*))?""", line)
    if not found or (found[3] or "").startswith("@param"):
        return line
    value, comment = found[2], found[3] or ""
    options = re.match(r"[\w.-]+(?: \| [\w.-]+)+", comment)
    if value[0] in "\"'":
        named = [value[1:-1], *(options[0].split(" | ") if options else [])]
        named = named[1:] if value[1:-1] in named[1:] else named
        kind = "[" + ", ".join(f'"{one}"' for one in named) + "]" if options else '{type:"string"}'
    else:
        kind = "boolean" if value in ("True", "False") else "number" if "." in value or "e" in value else "integer"
        kind = f'{{type:"{kind}"}}'
    told = f"# {comment}\n" if comment and not (options and options[0] == comment and "scale" in line) else ""
    return f"{told}{found[1]}{value}  # @param {kind}"


def fold(cell: NotebookNode, title: str) -> None:
    """Folds a code cell, under a title, where a front end knows how to: Colab, and JupyterLab."""
    cell.metadata["cellView"] = "form"
    cell.metadata["jupyter"] = {"source_hidden": True}
    cell.source = f"#@title {title}\n{cell.source}"


def _folded(title: str, code: Callable[..., None]) -> NotebookNode:
    cell = nbformat.v4.new_code_cell(_source(code))
    fold(cell, title)
    return cell


def _source(code: Callable[..., None]) -> str:
    return inspect.getsource(code).strip()
