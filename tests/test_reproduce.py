"""The page Reproduce: its commands exist, what things cost is added up, and the worked examples do what they say."""

import argparse
import dataclasses
import linecache
import re
import shlex
from importlib.util import find_spec
from itertools import count
from pathlib import Path

import jupytext
import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from threefactors import cli
from threefactors.inference import REFUTED, SUPPORTED, UNDECIDED, VERDICT_MIME, VOID, judge
from threefactors.publishing import costs
from threefactors.publishing.repository import Repository
from threefactors.publishing.ways import ways
from threefactors.training import load

from tests.books import REPOSITORY, notebook

PAGE = REPOSITORY / "book" / "88_reproduce.py"
CELLS = jupytext.read(PAGE, fmt="py:percent").cells
(CLAIM,) = [cell.source for cell in CELLS if "Claim(" in cell.source]


CELL = count()


def defined(source):
    """The names that a notebook's cell defines; like IPython, so that the code can be read."""
    file = f"<cell {next(CELL)}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    names = {"__name__": "__main__"}
    exec(compile(source, file, "exec"), names)
    return names


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page's cells on a data set of one's own, carried out up to the network."""
    folder = tmp_path_factory.mktemp("page")
    shown = [c.source for c in CELLS if c.cell_type == "code" and "remove-cell" not in c.metadata.get("tags", [])]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield defined("\n".join(['scale = "smoke"', *shown[1:3]])) | {"folder": folder}


def test_the_own_data_set_is_what_was_saved(page):
    wine, x, y, test = load("wine.npz"), page["x"], page["y"], page["test"]
    assert (wine.inputs, wine.classes) == (13, 3)
    assert [len(part) for part in (wine.y_train, wine.y_validation, wine.y_test)] == [111, 22, 45]
    assert sorted(torch.cat([wine.y_train, wine.y_validation]).tolist()) == sorted(y[~test].tolist())
    by, plus = np.polyfit(x[test].ravel(), wine.x_test.numpy().ravel(), 1)  # one scale for all columns, as for images
    np.testing.assert_allclose(wine.x_test, by * x[test] + plus, atol=1e-5)
    assert abs(wine.x_train.mean()) < 1e-6
    assert abs(wine.x_train.std(correction=0) - 1) < 1e-6
    assert page["table"][["lr", "batch_size"]].drop_duplicates().shape == (4, 2)


def test_an_own_data_set_that_does_not_fit_is_refused(page):
    x, y, folder = page["x"], page["y"], page["folder"]
    good = {"x_train": x, "y_train": y, "x_test": x, "y_test": y}
    bad = {
        "do not fit": {"y_train": y[1:]},
        "not finite": {"x_test": np.where(x > 2, np.nan, x)},
        "use whole numbers": {"y_train": y.astype(float)},
        "the training set knows": {"y_test": y + 1},
    }
    for said, changes in bad.items():
        np.savez(folder / "bad.npz", **good | changes)
        with pytest.raises(ValueError, match=said):
            load(str(folder / "bad.npz"))
        (folder / "bad.npz").unlink()
    np.savez(folder / "bad.npz", **{name: value for name, value in good.items() if name != "y_test"})
    with pytest.raises(ValueError, match="lacks y_test"):
        load(str(folder / "bad.npz"))


def runs(slope, spread=0.02, seeds=8, **changes):
    """A table as a sweep makes it, with Tr H ∝ (η/S)^slope."""
    draw = np.random.default_rng(0)
    grid = [(lr, size, seed) for lr in (0.05, 0.2) for size in (4, 16) for seed in range(seeds)]
    table = pd.DataFrame(grid, columns=["lr", "batch_size", "seed"]).assign(clock=2.0, finished=True, diverged=False)
    noise = np.exp(spread * draw.standard_normal(len(table)))
    return table.assign(trace=(table.lr / table.batch_size) ** slope * noise).assign(**changes)


def test_the_own_claim_can_be_supported_and_refuted():
    claim = defined(CLAIM.partition("verdict = ")[0])["smooth"].at("equal clock")
    torn = runs(0.0).assign(trace=lambda t: (t.lr / t.batch_size) ** (0.3 * (-1.0) ** t.seed))
    cases = {SUPPORTED: runs(-0.3), REFUTED: runs(0.3), UNDECIDED: torn, VOID: runs(-0.3, seeds=3)}
    for expected, table in cases.items():
        verdict = judge(claim, table)
        assert verdict.verdict == expected
        assert f"X1 (equal clock): {expected}." in str(verdict)
    assert judge(claim, runs(-0.3, clock=np.tile([1.0, 2.0], 16))).verdict == VOID  # the clock was not equal


def test_the_own_verdict_is_printed_and_so_not_in_the_ledger():
    """Displayed, it would be."""
    assert re.search(r"^print\(fill\(str\(verdict\)", CLAIM, re.MULTILINE)
    shown = [cell.source.splitlines()[-1] for cell in CELLS if cell.cell_type == "code"]
    assert not [line for line in shown if re.match("judge|verdict|display", line)]
    claim = defined(CLAIM.partition("verdict = ")[0])["smooth"].at("equal clock")
    assert VERDICT_MIME in judge(claim, runs(-0.3))._repr_mimebundle_()


COMMANDS = cli._parser()
SUBCOMMANDS = next(a for a in COMMANDS._actions if isinstance(a, argparse._SubParsersAction)).choices
TARGETS = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))


def unknown(line):
    """What of a line of a shell does not exist here."""
    words = shlex.split(line, comments=True)
    if words[:1] == ["make"]:
        return [w for w in words[1:] if "=" not in w and w not in TARGETS]
    if words[:1] != ["threefactors"] or len(words) < 2:
        return []
    if words[1] not in SUBCOMMANDS:
        return [words[1]]
    try:
        if len(words) > 2:
            COMMANDS.parse_args(words[1:])
    except SystemExit:
        return [line]
    return []


def shell(text):
    """Lines of code blocks, and what stands between backticks."""
    blocks = re.findall(r"```(?:bash|sh)?\n(.*?)```", text, re.DOTALL)
    return [line for block in blocks for line in block.splitlines()] + re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text)


def test_the_commands_of_the_page_exist(capsys):
    lines = [line for way in ways(None).values() for line in way.lines]
    lines += [line for cell in CELLS if cell.cell_type == "markdown" for line in shell(cell.source)]
    lines += shell((REPOSITORY / "README.md").read_text())
    asked = [line for line in lines if line.startswith(("make ", "threefactors "))]
    assert len(asked) > 20
    assert [line for line in asked if unknown(line)] == []
    assert unknown("threefactors book --onyl 20")
    assert unknown("threefactors boook")
    assert unknown("make boook ARGS=--force")


def test_extras_options_and_sections_that_are_named_exist():
    cluster = ways(None)["cluster"].lines
    assert 'pip install -e ".[cluster]"' in cluster
    assert re.search(r"^cluster = ", (REPOSITORY / "pyproject.toml").read_text(), re.MULTILINE)
    tools = Path(find_spec("distributed").origin).parent / "cli"  # read, for importing them takes seconds
    for tool, option in (("dask_scheduler", "--port"), ("dask_worker", "--nthreads")):
        assert f'"{option}"' in (tools / f"{tool}.py").read_text()
        assert any(line.startswith(tool.replace("_", " ")) and option in line for line in cluster)
    glued = set(re.findall(r"\{glue:\} reproduce-(\w+)", PAGE.read_text()))
    assert glued == {*ways(None), "where", "larger"}


def test_the_address_to_clone_is_the_repository_s_own():
    known, none = ways(Repository("someone/book")), ways(None)
    assert "git clone https://github.com/someone/book threefactors" in known["linux"].lines
    assert "git clone ADDRESS threefactors" in none["macos"].lines
    assert not any("ADDRESS" in str(way) for way in known.values())
    assert known["linux"]._repr_markdown_().startswith("```bash\nsudo apt-get update\n")
    assert "\n# the book at http://localhost:8000/\nmake serve\n```" in known["linux"]._repr_markdown_()


def test_costs_are_added_up(tmp_path, monkeypatch):
    monkeypatch.setenv("THREEFACTORS_STORE", str(tmp_path / "store"))
    with pytest.raises(FileNotFoundError, match="holds no executed chapter; run `threefactors book`"):
        costs.measure(tmp_path)
    for name, seconds, peak in (("10_law", 30.0, 3 << 29), ("20_width", 100.0, 1 << 30), ("90_ledger", 7.0, 1)):
        nbformat.write(notebook(seconds=seconds, peak_memory=peak, machine="a CPU"), tmp_path / f"{name}.ipynb")
    (tmp_path / "store" / "ab").mkdir(parents=True)
    (tmp_path / "store" / "ab" / "one.json").write_bytes(bytes(3 << 20))
    (tmp_path / "store" / "link").symlink_to("/")
    monkeypatch.setattr(costs.sysconfig, "get_paths", lambda: {"purelib": str(tmp_path / "store")})
    (tmp_path / "store" / "nvidia").mkdir()
    (tmp_path / "store" / "nvidia" / "large.so").write_bytes(bytes(1 << 20))
    words = costs.measure(tmp_path, before=88).words()
    assert (words["chapters"], words["time"], words["memory"]) == ("2", "2 min", "1.5 GiB")
    assert (words["longest"], words["machine"], words["scale"]) == ("2 min (20_width)", "a CPU", "laptop")
    assert (words["environment"], words["gpu-only"], words["store"]) == ("4 MiB", "1 MiB", "4 MiB")
    assert "not measured" in words["larger"]
    on_record = costs.Work("20_width", "paper", "NVIDIA H200", 9000.0, 5 << 30)
    assert costs.larger([on_record]) == "On record: 20_width at scale paper took 2.5 h and 5.0 GiB on NVIDIA H200."
    assert dataclasses.replace(costs.measure(tmp_path), larger=(on_record,)).words()["chapters"] == "3"
