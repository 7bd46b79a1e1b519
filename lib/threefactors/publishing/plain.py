"""From the Markdown of the book (MyST, with roles and directives) to the plain one that Colab and Jupyter render."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from threefactors.publishing.crossrefs import Crossrefs

_FENCE = re.compile(r"^(?P<indent>\s*)(?P<fence>`{3,}|:{3,}|~{3,})\s*(?:\{(?P<name>[\w:.+-]+)\})?\s*(?P<rest>.*)$")
_OPTION = re.compile(r"^:([\w-]+):(?:\s+(.*))?$")
_TARGET = re.compile(r"^\([^)\s]+\)=\s*$")
_DROPPED = re.compile(r"^(\+\+\+.*|%.*)$")
_DOLLARS = re.compile(r"^(?P<indent>\s*)\$\$(?P<body>.*?)\$\$(?: *\((?P<label>[\w:-]+)\))?\s*$", re.DOTALL)
_SPAN = re.compile(  # code is left alone, wherever it stands; a role is one only outside of it
    r"\{(?P<role>[a-zA-Z][\w:.+-]*)\}(?P<ticks>`+)(?P<text>.+?)(?<!`)(?P=ticks)(?!`)|(?P<code>`+)(?:.+?)(?<!`)(?P=code)(?!`)",
    re.DOTALL,
)
_MATH = re.compile(r"(?<![\\$])\$(?!\$)([^$]+?)(?<!\\)\$")
_LINK = re.compile(r"(?<!!)\[([^\]\n]*)\]\(([\w./-]+?)(\.md|\.ipynb|\.html|\.py|)(#[\w-]+)?\)")
_TITLED = re.compile(r"^(?P<text>.*?)\s*<(?P<target>[^<>]+)>$", re.DOTALL)
_FOLDED = {"dropdown", "proof"}
_SILENT = {"index", "contents", "tableofcontents", "bibliography", "toctree"}


@dataclass(frozen=True)
class Page:
    """Writes the text of one page, ``name``, in plain Markdown, with what ``refs`` knows of the others."""

    name: str
    refs: Crossrefs

    def text(self, source: str) -> str:
        """The text without roles and directives. Errors: Missing for a value, label or source that is nowhere."""
        written: list[str] = []
        buffer: list[str] = []

        def flush() -> None:
            if buffer:
                written.append(self.inline("\n".join(_plain_lists(buffer))))
                buffer.clear()

        lines = source.split("\n")
        while lines:
            line = lines.pop(0)
            if opened := _FENCE.match(line):
                flush()
                body = _take(lines, opened["fence"])
                if opened["name"]:
                    block = self.directive(opened["name"], opened["rest"], [_dedent(x, opened["indent"]) for x in body])
                    written.append(_indent(block, opened["indent"]))
                else:
                    written.append("\n".join([line, *body, opened["indent"] + opened["fence"]]))
            elif line.lstrip().startswith("$$") and (line.count("$$") == 1 or _DOLLARS.match(line)):
                while not _DOLLARS.match(line) and lines:
                    line += "\n" + lines.pop(0)
                flush()
                found = _DOLLARS.match(line)
                written.append(_indent(self.display(found["body"], found["label"]), found["indent"]) if found else line)
            elif not _TARGET.match(line) and not _DROPPED.match(line):
                buffer.append(line)
        flush()
        return re.sub(r"\n{3,}", "\n\n", "\n".join(written)).strip("\n")

    def inline(self, text: str) -> str:
        """Roles and links within paragraphs."""
        text = _SPAN.sub(lambda m: self.role(m["role"], m["text"]) if m["role"] else m[0], text)
        text = _MATH.sub(lambda m: re.sub(r"\n\s*", " ", m[0]), text)  # else a quote's ">" ends up in the formula
        return _LINK.sub(self._link, text)

    def role(self, name: str, content: str) -> str:
        """What a role says, in words."""
        content = re.sub(r"\s+", " ", content).strip()
        titled = _TITLED.match(content)
        text, target = (titled["text"], titled["target"]) if titled else ("", content)
        known: dict[str, Callable[[], str]] = {
            "glue": lambda: self._value(content),
            "cite": lambda: self._cited(name, content),
            "eq": lambda: self._numbered(target, "({})"),
            "numref": lambda: self._numbered(target, re.sub(r"%s|\{number\}", "{}", text) or "Fig. {}"),
            "ref": lambda: self._linked(text or self.refs.place(target).name, self.refs.place(target).page),
            "doc": lambda: self._linked(text or self.refs.titles.get(_stem(target), _stem(target)), _stem(target)),
            "term": lambda: self._linked(text or target, "glossary"),
            "math": lambda: f"${content}$",
            "index": lambda: text or target,
        }
        return known.get(name.partition(":")[0], lambda: text or target)()

    def directive(self, name: str, argument: str, body: list[str]) -> str:
        """What a directive shows."""
        options, body = _options(body)
        kind = name.partition(":")[0]
        if kind == "math":
            return self.display("\n".join(body), options.get("label"))
        if kind in _SILENT:
            return ""
        if kind in ("code", "code-block", "code-cell"):
            return "\n".join([f"```{argument}", *body, "```"])
        if kind == "glue":
            page, _, key = argument.strip().rpartition("::")
            shown = self.refs.value(_stem(options.get("doc", page)) or self.name, key)
            ways = (mime for mime in ("text/html", "text/markdown", "text/plain") if mime in shown)
            return shown[next(ways)].strip()
        content = self.text("\n".join(body))
        if kind in ("figure", "image"):
            return f"*{content}*" if content else ""
        if kind in ("glossary", "table"):
            return f"**{self.inline(argument)}**\n\n{content}" if argument else content
        if kind in _FOLDED or "dropdown" in options.get("class", ""):
            title = self.inline(argument or kind.capitalize())
            return f"<details>\n<summary>{title}</summary>\n\n{content}\n\n</details>"
        title = self.inline(argument) if argument else "" if kind in ("margin", "sidebar") else kind.capitalize()
        return _quote(f"**{title}**\n\n{content}" if title else content)

    def display(self, body: str, label: str | None) -> str:
        """A displayed formula, with its number where it has a label."""
        lines = [re.sub(r"(?<!\\)%.*$", "", line).rstrip() for line in body.strip().split("\n")]
        lines = [line for line in lines if line.strip()]
        if r"\\" in re.sub(r"\\begin\{(\w+\*?)\}.*?\\end\{\1\}", "", "\n".join(lines), flags=re.DOTALL):
            lines = [r"\begin{split}", *lines, r"\end{split}"]
        tag = [rf"\tag{{{self.refs.place(label).name}}}"] if label else []
        return "\n".join(["$$", *lines, *tag, "$$"])

    def _value(self, content: str) -> str:
        from myst_nb.core.variables import format_plain_text  # as the site does it

        key, _, spec = content.rpartition(":") if re.search(r":[^:]*[a-zA-Z%]$", content) else (content, "", "s")
        page, _, name = key.rpartition("::")
        return format_plain_text(self.refs.value(_stem(page) or self.name, name)["text/plain"], spec)

    def _cited(self, name: str, content: str) -> str:
        cited = [self.refs.sources.get(key, key) for key in re.split(r"\s*,\s*", content)]
        return " and ".join(cited) if name.endswith(":t") else f"({'; '.join(cited)})"

    def _numbered(self, label: str, form: str) -> str:
        place = self.refs.place(label)
        return self._linked(form.format(place.name), place.page)

    def _linked(self, text: str, page: str) -> str:
        return text if page == self.name else self.refs.link(text, page)

    def _link(self, found: re.Match[str]) -> str:
        text, path, suffix, anchor = found.groups()
        page = _stem(path)
        if page in self.refs.titles:
            return self.refs.link(text or self.refs.titles[page], page, anchor or "")
        if not suffix and "/" not in path and "." not in path:
            return found[0]  # brackets and parentheses of something else
        return f"[{text}]({self.refs.site}book/{path}{suffix}{anchor or ''})" if self.refs.site else text


def _take(lines: list[str], fence: str) -> list[str]:
    """The lines up to the end of a fenced block, taken away; a fence within it is shorter, or of another kind."""
    body: list[str] = []
    while lines:
        line = lines.pop(0)
        closing = line.strip()
        if closing and set(closing) == {fence[0]} and len(closing) >= len(fence):
            break
        body.append(line)
    return body


def _options(body: list[str]) -> tuple[dict[str, str], list[str]]:
    options = {}
    while body and (found := _OPTION.match(body[0].strip())):
        options[found[1]] = found[2] or ""
        body = body[1:]
    return options, body


def _plain_lists(lines: list[str]) -> list[str]:
    """Definition lists as lists: ``term`` and ``: meaning`` become ``- **term**: meaning``."""
    out: list[str] = []
    inside = False
    for line in lines:
        if line.startswith(": ") and out:
            term = out.pop()
            while not term.strip() and out:
                term = out.pop()
            again = term.startswith(("- **", "  "))
            out += [term, f"  {line[2:].strip()}"] if again else [f"- **{term.strip()}**: {line[2:].strip()}"]
            inside = True
        else:
            inside = inside and (line.startswith(" ") or not line.strip())
            out.append(line)
    return out


def _stem(path: str) -> str:
    return re.sub(r"\.(ipynb|md|py|html)$", "", path.rpartition("/")[2])


def _dedent(line: str, indent: str) -> str:
    return line.removeprefix(indent)


def _indent(text: str, indent: str) -> str:
    return "\n".join(indent + line if line else line for line in text.split("\n"))


def _quote(text: str) -> str:
    """A quotation; formulas on one line each, since within them the mark of a quote would be read as TeX."""
    text = re.sub(r"\$\$\n(.*?)\n\$\$", lambda m: f"$$ {' '.join(m[1].split(chr(10)))} $$", text, flags=re.DOTALL)
    return "\n".join(f"> {line}".rstrip() for line in text.split("\n"))
