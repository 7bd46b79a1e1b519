"""``python -m tests.colab``: every published chapter as on Colab; exit status 1 when a verdict is not the book's.

``--site _build/html`` takes the notebooks of a built site as they are published, and the library at the commit that
they name; ``--book book`` executed chapters of this working tree, made clean for a repository with a made-up name.
``--published book --executed DIR`` runs nothing: it reads what was run on Colab itself.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from threefactors.publishing import colab
from threefactors.publishing.repository import Repository

from tests import colab as proof

MADE_UP = "someone/book"
_INSTALLED = re.compile(r"install\('threefactors @ git\+(?P<url>\S+)@(?P<commit>\w+)'")


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.colab", description=__doc__.partition("\n")[0])
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--site", type=Path, help="a built site, made with a repository and a branch of notebooks")
    where.add_argument("--book", type=Path, help="a folder of executed chapters")
    where.add_argument("--published", type=Path, help="a folder of notebooks as they are published")
    parser.add_argument("--executed", type=Path, help="a folder of the same, executed elsewhere")
    parser.add_argument("--only", nargs="+", default=[], metavar="NN", help="numbers or names of chapters")
    parser.add_argument("--scale", default="laptop", help="laptop (default), or smoke, which compares nothing")
    given = parser.parse_args(words)
    if bool(given.published) != bool(given.executed):
        parser.error("--published and --executed go together")
    if given.published:
        chosen = _chosen(given.published, given.only)
        return _summary(chosen, [path.stem for path in chosen if not _compare(path, given.executed / path.name)])
    with tempfile.TemporaryDirectory(prefix="colab-") as folder:
        return _prove(given, Path(folder))


def _prove(given: argparse.Namespace, folder: Path) -> int:
    repository = folder / "repository"
    if given.site:
        notebooks, url = given.site / "notebooks", _address(given.site)
        proof.clone(repository)
    else:
        notebooks, url = folder / "notebooks", f"https://github.com/{MADE_UP}"
        colab.write(given.book, notebooks, Repository(MADE_UP, proof.working_tree(repository), proof.BRANCH))
    proof.add_notebooks(repository, notebooks)
    python, environ = proof.environment(folder / "environment"), proof.variables(repository, url)
    chosen = _chosen(notebooks, given.only)
    return _summary(chosen, [path.stem for path in chosen if not _one(path, folder, python, environ, given.scale)])


def _chosen(notebooks: Path, only: list[str]) -> list[Path]:
    chosen = [path for path in sorted(notebooks.glob("*.ipynb")) if not only or {path.stem, path.stem[:2]} & set(only)]
    return chosen or sys.exit(f"{notebooks} holds no notebook of a chapter {' '.join(only)}")


def _summary(chosen: list[Path], failed: list[str]) -> int:
    print(f"{len(chosen) - len(failed)} of {len(chosen)} notebooks ran as in the book", *failed, sep="\n  ")
    return int(bool(failed))


def _compare(published: Path, executed: Path) -> bool:
    if not executed.is_file():
        print(f"{published.stem:<22} FAILED: it did not run to its end")
        return False
    told, turned = _set_side_by_side(*(nbformat.read(path, as_version=4) for path in (executed, published)))
    print(f"{published.stem:<22} {told}")
    return not turned


def _one(path: Path, folder: Path, python: Path, environ: dict[str, str], scale: str) -> bool:
    book, start = nbformat.read(path, as_version=4), time.perf_counter()
    try:  # each in an environment of its own would be dearer: the library is taken away again below
        done = proof.run(path, folder / path.stem, python, environ, scale)
    except Exception as error:  # whatever a cell raises: the others are to run as well
        print(f"{path.stem:<22} FAILED: {error}", flush=True)
        return False
    finally:
        proof.uninstall(python)
    told, turned = "verdicts not compared: the book's are of another scale", False
    if book.metadata["threefactors"]["scale"] == scale:
        told, turned = _set_side_by_side(done, book)
    print(f"{path.stem:<22} {time.perf_counter() - start:6.0f} s  {told}", flush=True)
    return not turned


def _set_side_by_side(done: NotebookNode, book: NotebookNode) -> tuple[str, bool]:
    """How the verdicts of a run compare with the book's, in words; and whether any turned, or is gone."""
    here, there = proof.verdicts(done), proof.verdicts(book)
    turned = {key for key in here.keys() | there.keys() if here.get(key, [0])[0] != there.get(key, [0])[0]}
    lines = [f"\n    {key}: {here.get(key)} here, {there.get(key)} in the book" for key in sorted(turned)]
    return f"{len(here)} verdicts, {len(turned)} not the book's{''.join(lines)}", bool(turned)


def _address(site: Path) -> str:
    """Where the notebooks of a site say that the library is; one that names no commit could not be opened on Colab."""
    for path in sorted((site / "notebooks").glob("*.ipynb")):
        if found := _INSTALLED.search(path.read_text(encoding="utf-8")):
            return found["url"]
    sys.exit(
        f"no notebook in {site / 'notebooks'} names a repository and a commit; build the site with GITHUB_REPOSITORY, "
        "GITHUB_SHA and THREEFACTORS_NOTEBOOKS_BRANCH set, or use --book book"
    )


if __name__ == "__main__":
    sys.exit(main())
