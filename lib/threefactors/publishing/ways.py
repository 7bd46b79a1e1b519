"""The ways from nothing to the book: for each kind of machine the commands, as they stand."""

from __future__ import annotations

from dataclasses import dataclass

from threefactors.publishing.repository import Repository

_UNKNOWN = "ADDRESS"  # of the repository, where nothing names it

_LINES = {
    "linux": (
        "sudo apt-get update",
        "sudo apt-get install --yes git build-essential python3-venv",
        "git clone {address} threefactors",
        "cd threefactors",
        "make book",
        "make serve",
    ),
    "macos": (
        "xcode-select --install",
        "brew install python@3.12",
        "git clone {address} threefactors",
        "cd threefactors",
        "make book PYTHON=python3.12",
        "make serve",
    ),
    "windows": ("wsl --install",),
    "colab": ("!pip install --quiet git+{address}",),
    "gpu": (
        "source .venv/bin/activate",
        "mkdir -p data",
        "threefactors doctor --data data --device cuda --download fashion-mnist",
        "threefactors record 20 --data data --device cuda",
        "threefactors book",
    ),
    "cluster": (
        "source .venv/bin/activate",
        'pip install -e ".[cluster]"',
        "dask scheduler --port 8786",
        "dask worker tcp://HOST:8786 --nthreads 1",
        "threefactors book --scheduler tcp://HOST:8786",
    ),
    "after": (
        "source .venv/bin/activate",
        "threefactors claims",
        "cp -r _build/html before",
        "threefactors book --only 20 --force --store anew",
        "threefactors compare before _build/html",
    ),
}
_COMMENTS = {
    "make serve": "the book at http://localhost:8000/",
    "threefactors book": "puts the record on the chapter's page",
    "dask scheduler --port 8786": "on one machine, the HOST of the others",
    "dask worker tcp://HOST:8786 --nthreads 1": "on every machine, once for each core or GPU",
    "threefactors book --scheduler tcp://HOST:8786": "on the first one",
    "threefactors claims": "the ledger, in the terminal",
    "threefactors book --only 20 --force --store anew": "one chapter, its runs into another store",
}


@dataclass(frozen=True)
class Way:
    """Commands, one a line; a notebook shows them as a block to copy."""

    name: str
    lines: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join(f"# {_COMMENTS[line]}\n{line}" if line in _COMMENTS else line for line in self.lines)

    def _repr_markdown_(self) -> str:
        language = {"windows": "powershell", "colab": "text"}.get(self.name, "bash")
        return f"```{language}\n{self}\n```"


def ways(repository: Repository | None) -> dict[str, Way]:
    """All ways by name; the address to clone is ``ADDRESS`` where no repository is known.

    >>> ways(Repository("someone/book"))["linux"].lines[2]
    'git clone https://github.com/someone/book threefactors'
    """
    address = repository.url if repository else _UNKNOWN
    return {name: Way(name, tuple(line.format(address=address) for line in lines)) for name, lines in _LINES.items()}
