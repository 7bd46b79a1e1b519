"""Colab without Colab: its environment, a repository to install from, and a notebook alone in an empty folder.

What a reader does there is done here step by step. A fresh environment holds what Colab has before anything is
installed, and nothing of the book; the notebook's own first cell installs the library from the address of the
repository, which git is told to find in a folder of this machine; then the cells run from the first to the last.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import venv
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import nbformat
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbformat import NotebookNode
from packaging.requirements import Requirement
from threefactors.inference import VERDICT_MIME

from tests.books import REPOSITORY

PREINSTALLED = Path(__file__).with_name("preinstalled.txt")
BRANCH = "notebooks"
_KEPT = ("PATH", "HOME", "LANG", "TMPDIR", "OMP_NUM_THREADS", "THREEFACTORS_JOBS", "GIT_SSL_CAINFO")


def environment(folder: Path) -> Path:
    """A virtual environment with what Colab has, linked from the running one; its interpreter.

    A distribution that is not installed here is left out: then a chapter has less to go by than on Colab.
    """
    venv.create(folder, with_pip=False, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    for each in _closure(_names(PREINSTALLED.read_text())):
        for top in {Path(str(file)).parts[0] for file in each.files or ()} - {"..", "__pycache__"}:
            source, link = Path(str(each.locate_file(top))), site / top
            if source.exists() and not link.exists():
                link.symlink_to(source)
    return folder / "bin" / "python"


def _names(text: str) -> list[str]:
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def _closure(names: list[str]) -> list[Distribution]:
    """The distributions of these names that are installed here, and all that they require."""
    found: dict[str, Distribution] = {}
    seen: set[str] = set()
    wanted = [Requirement(name) for name in names]
    while wanted:
        one = wanted.pop()
        if str(one) in seen:
            continue
        seen.add(str(one))
        try:
            each = found.setdefault(re.sub(r"[-_.]+", "-", one.name).lower(), distribution(one.name))
        except PackageNotFoundError:
            continue
        more = [Requirement(text) for text in each.requires or ()]
        wanted += [
            m for m in more if m.marker is None or any(m.marker.evaluate({"extra": e}) for e in {"", *one.extras})
        ]
    return list(found.values())


def working_tree(folder: Path) -> str:
    """A repository in ``folder`` with this working tree as it stands, committed; the commit."""
    listed = _git(REPOSITORY, "ls-files", "-co", "--exclude-standard").splitlines()
    for name in listed:
        if (REPOSITORY / name).is_file() and not name.endswith(".ipynb"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, folder / name)
    _git(folder, "init", "-q", "-b", "main")
    return commit(folder)


def clone(folder: Path) -> None:
    """A repository in ``folder`` with the history of this one, so that a commit that a notebook names is there."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    _git(folder.parent, "clone", "-q", "--no-checkout", str(REPOSITORY), folder.name)


def commit(folder: Path) -> str:
    """Commit all that lies in a repository; the commit."""
    _git(folder, "add", "--all", "--force")
    _git(folder, "commit", "-q", "--allow-empty", "-m", "as it stands")
    return _git(folder, "rev-parse", "HEAD").strip()


def add_notebooks(repository: Path, notebooks: Path) -> None:
    """The branch that a deployment pushes: as ``book`` the clean notebooks, the chapters' sources and the records."""
    aside = repository.with_name(f"{repository.name}-{BRANCH}")
    shutil.copytree(notebooks, aside / "book")
    for source in (REPOSITORY / "book").glob("[0-9][0-9]_*.py"):
        shutil.copy2(source, aside / "book")
    shutil.copytree(REPOSITORY / "book" / "records", aside / "book" / "records")
    _git(aside, "init", "-q", "-b", BRANCH)
    commit(aside)
    _git(aside, "push", "-q", str(repository), BRANCH)


def variables(repository: Path, url: str) -> dict[str, str]:
    """Environment variables of a kernel for which ``url`` lies in ``repository``; pip stays off the network."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    git = {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{repository.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": url,
    }
    # pip reads the second the wrong way round: "0" is what turns isolation off
    return kept | git | {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def at_scale(notebook: NotebookNode, scale: str) -> NotebookNode:
    """The notebook with another choice in the field of its form, as a reader makes it."""
    (cell,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    cell.source, changed = re.subn(r'^scale = "\w+"  # @param', f'scale = "{scale}"  # @param', cell.source, flags=re.M)
    assert changed == 1, cell.source
    return notebook


def run(path: Path, folder: Path, python: Path, environ: dict[str, str], scale: str = "laptop") -> NotebookNode:
    """A notebook alone in the empty ``folder``, run from its first cell to its last; an error of a cell is raised."""
    notebook = at_scale(nbformat.read(path, as_version=4), scale)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None

    class Fresh(AsyncKernelManager):
        @property
        def kernel_spec(self) -> KernelSpec:
            command = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}", "--log-level=ERROR"]
            return KernelSpec(argv=command, display_name="Python 3", language="python")

    folder.mkdir(parents=True)
    own = {"IPYTHONDIR": str(folder.parent / ".ipython"), "MPLCONFIGDIR": str(folder.parent / ".matplotlib")}
    client = NotebookClient(
        notebook,
        kernel_manager_class=Fresh,
        timeout=None,
        resources={"metadata": {"path": str(folder)}},
        shutdown_kernel="immediate",
    )
    return client.execute(env=environ | own)


def uninstall(python: Path) -> None:
    """Take the library out of an environment again, as a new runtime on Colab would be without it."""
    for found in python.parents[1].glob("lib/python*/site-packages/threefactors*"):
        shutil.rmtree(found)


def verdicts(notebook: NotebookNode) -> dict[tuple[str, str, str], tuple[str, float | None]]:
    """Verdict and estimate by claim, protocol and arm, as the outputs of a notebook show them."""
    shown = {}
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            found = output.get("data", {}).get(VERDICT_MIME, [])
            for one in found if isinstance(found, list) else [found]:
                shown[one["id"], one["protocol"], one["arm"]] = one["verdict"], one["estimate"]
    return shown


def _git(folder: Path, *words: str) -> str:
    me = ["-c", "user.name=someone", "-c", "user.email=someone@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *me, *words], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, f"git {' '.join(words)}: {done.stderr}"
    return done.stdout
