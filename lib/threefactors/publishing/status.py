"""How every chapter stands: its verdicts by kind, what it took, where and when, read from the executed notebooks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from threefactors.publishing import origins
from threefactors.publishing.ledger import VERDICTS, table
from threefactors.publishing.origins import Origin, gibibytes
from threefactors.publishing.recorded import duration

HEAD = ("chapter", *(name.lower() for name in VERDICTS), "time", "memory", "machine", "executed", "commit", "scale")
BUILDERS = ("jupyter-book", "sphinx", "myst-nb", "sphinx-book-theme", "papermill", "nbclient", "ipykernel")


@dataclass(frozen=True, repr=False)
class Status:
    """One row a chapter and one for all of them; ``chapters`` in the order of their numbers."""

    chapters: Sequence[Origin]

    @property
    def verdicts(self) -> Counter[str]:
        """Verdicts of all chapters by kind."""
        return sum((chapter.verdicts for chapter in self.chapters), Counter())

    @property
    def seconds(self) -> float:
        """Wall time of all chapters, one after another."""
        return float(sum(chapter.own.get("seconds", 0.0) for chapter in self.chapters))

    @property
    def peak_memory(self) -> int:
        """That of the chapter which took the most, in bytes."""
        return max((chapter.own.get("peak_memory", 0) for chapter in self.chapters), default=0)

    @property
    def sentence(self) -> str:
        """``"19 chapters with 407 verdicts: 3 min, one after another; at most 1.2 GiB of memory."``"""
        n, judged = len(self.chapters), self.verdicts.total()
        what = f"{n} chapter{'s' * (n != 1)} with {judged} verdict{'s' * (judged != 1)}"
        took = f"{duration(self.seconds)}, one after another; at most {gibibytes(self.peak_memory)} of memory"
        return f"{what}: {took}." if n else "No chapter has been executed yet."

    def __repr__(self) -> str:
        lines = [f"{one.chapter.name}: {', '.join(filter(None, _texts(one)))}" for one in self.chapters]
        return "\n".join([self.sentence, *lines])

    def _repr_html_(self) -> str:
        head = "".join(f'<th scope="col">{name}</th>' for name in HEAD)
        rows = [_row(_name(one), one.verdicts, _texts(one), one.own.get("incidents", ())) for one in self.chapters]
        whole = (duration(self.seconds), gibibytes(self.peak_memory), "", "", "", "")
        rows.append(_row("<strong>all</strong>", self.verdicts, whole))
        return f'<p class="tf-sentence">{escape(self.sentence)}</p>' + table(
            "tf-ledger tf-status", "Chapters as they were executed", head, rows
        )


@dataclass(frozen=True, repr=False)
class Versions:
    """What computed the chapters, as their notebooks say, and what builds the pages, as it is installed."""

    computed: Sequence[tuple[str, str]]
    built: Sequence[tuple[str, str]]

    def __repr__(self) -> str:
        return "\n".join(f"{name} {number}" for name, number in [*self.computed, *self.built])

    def _repr_html_(self) -> str:
        head = "".join(f'<th scope="col">{name}</th>' for name in ("package", "version"))
        parts = (("What computed the chapters", self.computed), ("What makes the pages", self.built))
        rows = {
            title: [f'<tr><th scope="row">{escape(name)}</th><td>{escape(text)}</td></tr>' for name, text in packages]
            for title, packages in parts
        }
        return "".join(table("tf-ledger tf-versions", title, head, own) for title, own in rows.items())


def collect(book: Path | str = ".", before: str | None = None) -> Status:
    """The status of the executed chapters in the folder ``book``; of those before the chapter ``before``, if named."""
    found = sorted(Path(book).glob("[0-9][0-9]_*.ipynb"))
    return Status([origins.read(path) for path in found if before is None or path.stem < before])


def versions(status: Status) -> Versions:
    """Versions behind the chapters of ``status``; where they differ, all of them are named."""
    names = dict.fromkeys(name for one in status.chapters for name in one.own.get("versions", {}))
    computed = [
        (name, _distinct(one.own.get("versions", {}).get(name, "") for one in status.chapters)) for name in names
    ]
    return Versions(computed, [(name, _installed(name)) for name in BUILDERS])


def _texts(one: Origin) -> tuple[str, ...]:
    return one.took, one.memory, one.machine, one.date, one.commit, str(one.own.get("scale") or "")


def _name(one: Origin) -> str:
    return f'<a href="{escape(one.chapter.name)}.html">{escape(one.title)}</a>'


def _row(name: str, verdicts: Counter[str], texts: Iterable[str], incidents: Iterable[str] = ()) -> str:
    told = "".join(f'<br><span class="tf-arm">{escape(line)}</span>' for line in incidents)
    badges = (
        f'<td><span class="tf-badge tf-{kind.lower()}">{verdicts[kind]}</span></td>' if verdicts[kind] else "<td></td>"
        for kind in VERDICTS
    )
    cells = "".join(f"<td>{escape(text)}</td>" for text in texts)
    return f'<tr><th scope="row">{name}{told}</th>{"".join(badges)}{cells}</tr>'


def _distinct(texts: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(filter(None, texts)))


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
