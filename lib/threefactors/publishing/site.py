"""Builds the site with jupyter-book, aside, and puts it in place only when it came out clean."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, distribution, distributions
from pathlib import Path
from typing import Any

import yaml

from threefactors.experiments.provenance import commit
from threefactors.publishing import chapters, colab, figure_data, ledger, links, mending, repository
from threefactors.publishing.execute import Execution
from threefactors.publishing.pdf import make as pdf_of

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_MATHJAX = ("tex-chtml-full.js", "output/chtml/fonts")  # of the package's 24 MB, what TeX → HTML needs


class SiteError(Exception):
    """jupyter-book could not build the site, or warned; the message holds what it said."""


def require_toc(root: Path) -> None:
    """SiteError when _toc.yml and the chapters in ``book`` do not name each other."""
    toc = _toc_files(yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8")))
    written = {f"book/{chapter.name}" for chapter in chapters.find(root)}
    listed = {name for name in toc if re.match(r"book/\d\d_", name)}
    if unlisted := sorted(written - listed):
        raise SiteError(f"_toc.yml does not list {', '.join(unlisted)}; add a line `- file: {unlisted[0]}`")
    if unwritten := sorted(listed - written):
        raise SiteError(f"_toc.yml lists {', '.join(unwritten)}, but there is no {unwritten[0]}.py")


def build(root: Path, executions: Iterable[Execution], *, scale: str, device: str, pdf: bool = False) -> Path:
    """Build ``root/_build/html`` from the executed notebooks; the path of the page to open.

    Any warning is an error (``-n -W --keep-going``), and so is a link within the site that leads nowhere. The
    site is built from nothing, since jupyter-book repeats no warning about a page that it does not read again,
    and replaces the former one only when whole. Beside the pages it holds

    - claims.json, the ledger, and build.json, what it was built with,
    - data/NAME.csv, what each figure shows, and notebooks/NN_title.ipynb, the chapters as plain notebooks,
    - with ``pdf``, threefactors.pdf.

    Errors: SiteError, in jupyter-book's own words or with the dead links; BrowserError for a PDF without a browser.
    """
    aside, final = root / "_build" / "site", root / "_build" / "html"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    config = root / "_build" / "_config.yml"
    config.write_text(yaml.safe_dump(configuration(root), allow_unicode=True), encoding="utf-8")
    program = "from jupyter_book.cli.main import main; main()"
    command = [sys.executable, "-c", program, "build", str(root), "--config", str(config)]
    command += ["--path-output", str(aside), "-n", "-W", "--keep-going"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    if done.returncode:
        raise SiteError(_failure(done.stdout + "\n" + done.stderr))
    built = aside / "_build" / "html"
    _complete(root, built)
    record = json.dumps(_record(root, executions, scale, device), indent=1)
    (built / "build.json").write_text(record + "\n", encoding="utf-8")
    if pdf:
        pdf_of(root, built)
    if dead := links.dead(built):
        raise SiteError("the site has links that lead nowhere; the former one is untouched\n  " + "\n  ".join(dead))
    former = aside / "former"
    if final.exists():
        os.replace(final, former)
    os.replace(built, final)
    shutil.rmtree(aside)
    return final / "index.html"


def _complete(root: Path, html: Path) -> None:
    """What readers find beside the pages: equations' script, ledger, figures' data, plain notebooks."""
    mending.mend(html)
    _copy_mathjax(html / "_static" / "mathjax")
    ledger.write_json(ledger.collect(root / "book"), html / "claims.json")
    figure_data.write(root / "book", html / "data")
    colab.write(root / "book", html / "notebooks", repository.find(root))
    for plain in (html / "notebooks").glob("*.ipynb"):  # the theme's own button leads to the source of a page
        shutil.copy2(plain, html / "_sources" / "book" / plain.name)


def configuration(root: Path) -> dict[str, Any]:
    """_config.yml completed by what only this working tree knows: absolute paths and the repository.

    Links to a repository appear when one is known (see `threefactors.publishing.repository`), the Colab button
    when besides a branch holds the executed notebooks: Colab opens what is on a branch.
    """
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    sphinx = config.setdefault("sphinx", {}).setdefault("config", {})
    static = root / "book" / "_static"
    if static.is_dir():
        sphinx["html_static_path"] = [str(static)]
    config["bibtex_bibfiles"] = [str(root / name) for name in config.get("bibtex_bibfiles", [])]
    if found := repository.find(root):
        config["repository"] = {"url": found.url, "branch": found.branch or "main"}
        config.setdefault("html", {})["use_repository_button"] = True
        if found.branch:
            config["launch_buttons"] = {"colab_url": repository.COLAB}
    return config


def _failure(output: str) -> str:
    lines = [_ANSI.sub("", line).strip() for line in output.splitlines()]
    said = [line for line in dict.fromkeys(lines) if re.search(r"\b(WARNING|ERROR|CRITICAL)\b", line)]
    said = said or [line for line in lines if line][-15:]
    return "jupyter-book did not build a clean site; the former one is untouched\n  " + "\n  ".join(said)


def _copy_mathjax(target: Path) -> None:
    try:
        found = distribution("sphinx-mathjax-offline").locate_file("sphinx-mathjax-offline/static/mathjax")
    except PackageNotFoundError as error:
        raise SiteError("sphinx-mathjax-offline is not installed; pip install -r requirements.txt") from error
    for name in _MATHJAX:
        source, copy = Path(str(found)) / name, target / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, copy) if source.is_dir() else shutil.copy2(source, copy)


def _record(root: Path, executions: Iterable[Execution], scale: str, device: str) -> dict[str, Any]:
    installed = {d.metadata["Name"]: d.version for d in distributions() if d.metadata["Name"]}
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(root),
        "scale": scale,
        "device": device,
        "python": sys.version.split()[0],
        "chapters": {
            e.chapter.name: {"seconds": round(e.seconds, 2), "peak_memory": e.peak_memory, "cached": e.cached}
            for e in executions
        },
        "packages": dict(sorted(installed.items(), key=lambda item: item[0].lower())),
    }


def _toc_files(node: Any) -> list[str]:
    if isinstance(node, list):
        return [name for item in node for name in _toc_files(item)]
    if not isinstance(node, dict):
        return []
    own = [node[key] for key in ("root", "file") if key in node]
    return own + [name for value in node.values() for name in _toc_files(value)]
