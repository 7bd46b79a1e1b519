"""The repository on GitHub that a book belongs to, as the git remote or the CI environment names it.

Nothing is guessed that a reader could click on in vain: a commit is named only where it can be fetched, Colab
only where a branch holds the executed notebooks, the site's address only where it was deployed with them.

=============================  ==============================================================
GITHUB_REPOSITORY              ``owner/name``, before the remote ``origin``
GITHUB_SHA                     the commit, where git does not know it to be on the remote
THREEFACTORS_NOTEBOOKS_BRANCH  branch of the executed notebooks, before ``origin/notebooks``
THREEFACTORS_SITE_URL          address of the deployed site, before that of GitHub Pages
=============================  ==============================================================
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

_GITHUB = re.compile(r"github\.com[:/]([\w.-]+/[\w.-]+?)(?:\.git)?/?$")
COLAB = "https://colab.research.google.com"


@dataclass(frozen=True)
class Repository:
    """``name`` "owner/repo" · ``commit`` that readers can fetch, or None · ``branch`` of the executed notebooks,
    or None · ``site`` the address of the deployed site, or None for that of GitHub Pages.

    >>> Repository("someone/book", branch="notebooks").colab_url("20_width")
    'https://colab.research.google.com/github/someone/book/blob/notebooks/book/20_width.ipynb'
    """

    name: str
    commit: str | None = None
    branch: str | None = None
    site: str | None = None

    @property
    def url(self) -> str:
        """``https://github.com/owner/repo``."""
        return f"https://github.com/{self.name}"

    def blob(self, path: str) -> str:
        """Address of a file at the commit, or on the default branch where no commit is known."""
        return f"{self.url}/blob/{self.commit or 'HEAD'}/{path}"

    def colab_url(self, chapter: str) -> str | None:
        """Address that opens a chapter's notebook in Colab; None without a branch that holds it."""
        return f"{COLAB}/github/{self.name}/blob/{self.branch}/book/{chapter}.ipynb" if self.branch else None

    @property
    def site_url(self) -> str | None:
        """Address of the deployed site, with a slash at its end; None when nothing says that there is one.

        What pushes the branch of notebooks deploys the site, so with that branch it is on GitHub Pages.
        """
        if self.site or not self.branch:
            return self.site
        owner, _, repo = self.name.partition("/")
        host = f"{owner.lower()}.github.io"
        return f"https://{host}/" if repo.lower() == host else f"https://{host}/{repo}/"


def find(root: Path) -> Repository | None:
    """The repository of the working tree ``root``; None when neither environment nor remote names one on GitHub."""
    name = os.environ.get("GITHUB_REPOSITORY") or _origin(root)
    if not name:
        return None
    site = os.environ.get("THREEFACTORS_SITE_URL")
    return Repository(name, _commit(root), _branch(root), f"{site.rstrip('/')}/" if site else None)


def _origin(root: Path) -> str | None:
    found = _GITHUB.search(_git(root, "remote", "get-url", "origin"))
    return found[1] if found else None


def _commit(root: Path) -> str | None:
    """HEAD if a remote branch holds it or the CI environment names it: one never pushed leads nowhere."""
    head, told = _git(root, "rev-parse", "--verify", "--quiet", "HEAD"), os.environ.get("GITHUB_SHA")
    if told and head in ("", told):
        return told
    return head if head and _git(root, "branch", "--remotes", "--contains", head) else None


def _branch(root: Path) -> str | None:
    if named := os.environ.get("THREEFACTORS_NOTEBOOKS_BRANCH"):
        return named
    return "notebooks" if _git(root, "rev-parse", "--verify", "--quiet", "origin/notebooks") else None


def _git(root: Path, *words: str) -> str:
    """What git says, or nothing: outside a working tree, and on a machine without git."""
    try:
        return subprocess.run(["git", *words], cwd=root, capture_output=True, text=True).stdout.strip()
    except OSError:
        return ""
