"""The words of the book, read from its sources: glossary, bibliography, notation, texts in place of figures, spelling.

Each rule is a function of texts, tried on a planted fault before the book is held to it. No page is built for this.
"""

import re

import jupytext
import pytest

from tests.books import REPOSITORY

BOOK = REPOSITORY / "book"
PAGES = {path.stem: path.read_text(encoding="utf-8") for path in sorted(BOOK.glob("*.md"))}
CELLS = {path.stem: jupytext.read(path).cells for path in sorted(BOOK.glob("[0-9][0-9]_*.py"))}
PROSE = PAGES | {n: "\n\n".join(c.source for c in cells if c.cell_type == "markdown") for n, cells in CELLS.items()}
WHOLE = "\n".join(PROSE.values())
FIGURES = {
    own["figure"]["name"]: (own["figure"]["caption"], own.get("image", {}).get("alt"))
    for cells in CELLS.values()
    for cell in cells
    if "figure" in (own := cell.metadata.get("mystnb", {}))
}
LONGEST_PROOF = 6  # lines in the open; what is longer folds


def roles(name, text):
    """Targets of a role: ``{term}`shown <target>` `` or ``{term}`target` ``, however the line is broken."""
    found = (" ".join(m.split()) for m in re.findall(rf"\{{{name}\}}`([^`]+)`", text))
    return {re.sub(r"^.*<(.*)>$", r"\1", one) for one in found}


def glossary_terms(page):
    blocks = re.findall(r"```\{glossary\}\n(.*?)```", page, flags=re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line and not line.startswith(" ")]


def entries(bib):
    """Key → fields, in lower case."""
    found = re.findall(r"@\w+\{(\w+),(.*?)\n\}", bib, flags=re.DOTALL)
    return {key: {name.lower() for name in re.findall(r"(\w+)\s*=\s*\{", body)} for key, body in found}


def cited(text):
    return {key.strip() for keys in re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", text) for key in keys.split(",")}


def open_proofs(text):
    """Lines of each proof that does not fold: from its bold word to its end mark."""
    return [
        len(proof.splitlines()) for proof in re.findall(r"\*\*Proof\.\*\*.*?\$\\(?:black)?square\$", text, re.DOTALL)
    ]


def thin(alt, caption):
    """Why a text cannot stand for its figure; None if it can."""
    if not alt or len(alt) < 60:
        return "too short"
    if re.search(r"figure before|as before|same as|above\b.*figure", alt):
        return "leans on another figure"
    words = [set(re.findall(r"\w+", text.lower())) for text in (alt, caption)]
    return "the caption again" if len(words[0] - words[1]) < 3 else None


BRITISH = re.compile(
    r"\b(?:(?:colo|behavio|favo|neighbo|hono|labo)ur\w*|\w{3,}(?<!w)is(?:e[ds]?|ing|ations?)|analys(?:e[ds]?|ing)"
    r"|cent(?:re|res|red|ring)|(?:label|model|travel|cancel)l(?:ed|ing)|sceptic\w*|grey\w*|learnt|burnt|spelt|spoilt"
    r"|whilst|amongst|towards|judgement\w*|catalogue|programme|defence|licence|fulfils?|artefact\w*)\b",
    re.IGNORECASE,
)
AMERICAN = re.compile(
    r"(?:sur|com|enter|pr)pris|promis|premis|exercis|precis|concis|advis|revis|rais|aris|advertis|likewis"
)


def british(text):
    text = re.sub(r"`[^`\n]*`|https?://\S+", "", text)
    return sorted({word for word in BRITISH.findall(text) if not AMERICAN.search(word.lower())})


GREEK = "alpha|beta|Delta|epsilon|varepsilon|eta|kappa|lambda|mu|xi|psi|rho|sigma|Sigma|tau|theta|vartheta|varphi|Phi"


def symbols(text):
    """Greek letters and capitals in the labeled display equations."""
    found = re.findall(r"```\{math\}\n:label:[^\n]*\n(.*?)```", text, flags=re.DOTALL)
    bare = re.sub(
        r"\\(?:text|mathrm|operatorname|mathbb|overset|begin|end|underbrace)\s*\{[^{}]*\}", " ", " ".join(found)
    )
    greek = re.findall(rf"\\({GREEK})\b", bare)
    return {"\\" + letter for letter in greek} | set(re.findall(r"(?<![\\A-Za-z])([A-Z])(?![A-Za-z])", bare))


def test_every_term_of_the_glossary_is_used_and_every_term_used_is_in_it():
    terms = {term.lower() for term in glossary_terms(PAGES["glossary"])}
    used = {term.lower() for term in roles("term", WHOLE)}
    assert len(terms) >= 40
    assert used == terms


def test_a_definition_says_something_and_leads_on():
    blocks = "\n".join(re.findall(r"```\{glossary\}\n(.*?)```", PAGES["glossary"], flags=re.DOTALL))
    definitions = re.findall(r"^(?:[^\s].*\n)+((?:  .+\n|\n(?=  ))+)", blocks, flags=re.MULTILINE)
    assert len(definitions) >= 40
    assert [d for d in definitions if len(d.split()) < 8] == []
    assert sum(bool(re.search(r"\{(eq|doc|ref)\}`", d)) for d in definitions) > 0.8 * len(definitions)


def test_the_index_can_be_reached():
    for page in ("intro", "glossary", "notation"):
        assert "genindex" in roles("ref", PAGES[page]), page
    assert "book/glossary" in (REPOSITORY / "_toc.yml").read_text()
    assert len(re.findall(r"```\{index\}", WHOLE)) >= 10  # besides the glossary, whose terms are in it


def test_every_work_is_identified_and_cited():
    bib = entries((BOOK / "references.bib").read_text(encoding="utf-8"))
    assert {key for key, names in bib.items() if not names & {"doi", "eprint"}} == {"wu2018"}  # it has neither: a page
    assert set(bib) == cited(WHOLE)
    assert entries("@misc{a,\n  title = {T}, eprint = {1}\n}\n@misc{b,\n  url = {u}\n}") == {
        "a": {"title", "eprint"},
        "b": {"url"},
    }
    assert cited("{cite}`a,b` and {cite:t}`c`") == {"a", "b", "c"}


@pytest.mark.parametrize("name", FIGURES)
def test_a_text_stands_for_each_figure(name):
    caption, alt = FIGURES[name]
    assert "What to see:" in caption or caption.startswith("The same"), "a caption says what to see"
    if alt is not None:  # frames bring their own
        assert thin(alt, caption) is None


def test_a_thin_text_is_noticed():
    caption = "Largest eigenvalue against the ratio. What to see: it falls."
    assert thin("Three panels.", caption) == "too short"
    assert thin("Three panels as in the figure before, for networks with batch norm in ghost batches.", caption)
    assert thin("Largest eigenvalue against the ratio: it falls, it falls, the ratio, it falls, falls.", caption)
    assert (
        thin("Points with intervals, colored by size, that fall along a dashed line over two decades.", caption) is None
    )


@pytest.mark.parametrize("name", PROSE)
def test_spelling_is_american(name):
    assert british(PROSE[name]) == []


def test_texts_in_place_of_figures_are_american_too():
    assert british(" ".join(text for pair in FIGURES.values() for text in pair if text)) == []
    assert british("A sceptic's colour: normalised, towards `colour`, and otherwise noise") == [
        "colour",
        "normalised",
        "sceptic",
        "towards",
    ]


@pytest.mark.parametrize("name", CELLS)
def test_long_proofs_fold(name):
    assert [lines for lines in open_proofs(PROSE[name]) if lines > LONGEST_PROOF] == []
    assert PROSE[name].count("**Proof.**") == len(open_proofs(PROSE[name])), "a proof in the open has an end mark"


def test_a_long_proof_is_noticed():
    assert open_proofs("**Proof.** So.\n" + "More.\n" * 8 + "Done. $\\square$\n\n:::{dropdown} Proof\nx\n:::") == [10]


@pytest.mark.parametrize("name", [n for n in CELLS if n < "80"])
def test_a_chapter_ends_with_what_would_change_our_mind_and_exercises(name):
    sections = re.findall(r"^## (.+)$", PROSE[name], flags=re.MULTILINE)
    assert sections[-2:] == ["What would change our mind", "Exercises"]


def test_notation_has_every_symbol_of_the_labeled_equations():
    used = set().union(*(symbols(text) for name, text in PROSE.items() if name in CELLS))
    math = " ".join(re.findall(r"\$([^$]+)\$", PAGES["notation"]))
    letters = {letter for letter in used if not re.search(re.escape(letter) + r"(?![A-Za-z])", math)}
    assert len(used) > 30
    assert letters - {"O", "I", "E", "X"} == set()  # order, identity, expectation; X is said where it stands
    assert symbols("```{math}\n:label: a\n\\zeta + \\kappa K\n```") == {"\\kappa", "K"}


@pytest.mark.parametrize("name", PROSE)
def test_margin_notes_are_short_and_few(name):
    notes = re.findall(r"```\{margin\}[^\n]*\n(.*?)```", PROSE[name], flags=re.DOTALL)
    assert len(notes) <= 4
    assert all(len(note.split()) < 60 for note in notes)
