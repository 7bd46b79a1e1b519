"""The workflows on GitHub: linters that see what is planted, promises no linter knows, and shell that was run."""

import copy
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import nbformat
import pytest
import yaml
from threefactors.cli import _parser
from threefactors.publishing import repository

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10, where pytest brings its forerunner
    import tomli as tomllib

from tests.books import REPOSITORY, notebook, shown, verdict
from tests.colab.__main__ import main as colab

GITHUB = REPOSITORY / ".github"
FLOWS = {path.stem: yaml.safe_load(path.read_text()) for path in sorted((GITHUB / "workflows").glob("*.yml"))}
JOBS = {f"{flow}/{name}": job for flow, whole in FLOWS.items() for name, job in whole["jobs"].items()}
SHELL = {
    f"{where}/{number}": step["run"]
    for where, job in JOBS.items()
    for number, step in enumerate(job["steps"])
    if "run" in step
}
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
FROZEN = (REPOSITORY / "constraints.txt").read_text().splitlines()[0].removeprefix("# Python ")


def step(where, name):
    """A step's shell by the name of the step."""
    (found,) = [one["run"] for one in JOBS[where]["steps"] if one.get("name") == name]
    return found


# linters, exactly as `make lint` calls them


@pytest.fixture
def tree(tmp_path):
    """A copy of what the linters read."""
    shutil.copytree(GITHUB, tmp_path / ".github")
    for name in (".yamllint", "_config.yml", "_toc.yml", "CITATION.cff"):
        shutil.copy(REPOSITORY / name, tmp_path)
    return tmp_path


def lint(tree, *words):
    """The commands of `make lint` with one of these words that object, and what they say."""
    told = subprocess.run(["make", "-n", "lint"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    commands = [line.removeprefix(".venv/bin/") for line in told.splitlines() if line.startswith(".venv/bin/")]
    bin = Path(sys.executable).parent
    chosen = [command for command in commands if any(word in command for word in words)]
    assert len(chosen) >= len(words)
    done = {c: subprocess.run(f"{bin}/{c}", shell=True, cwd=tree, capture_output=True, text=True) for c in chosen}
    return {command: one.stdout + one.stderr for command, one in done.items() if one.returncode}


def test_the_linters_have_nothing_to_say(tree):
    assert lint(tree, "yamllint", "check-jsonschema", "zizmor") == {}


FAULTS = {
    "a tab": ("workflows/tests.yml", "    steps:", "\tsteps:", "yamllint", "cannot start any token"),
    "a key twice": ("workflows/book.yml", "    name: build\n", "    name: a\n    name: b\n", "yamllint", "duplication"),
    "a key that nobody knows": ("workflows/weekly.yml", "runs-on:", "run-on:", "vendor.github-workflows", "run-on"),
    "a job without a limit": ("workflows/tests.yml", "timeout-minutes: 20", "", "require-timeout", "timeout-minutes"),
    "an interval that is none": ("dependabot.yml", "monthly", "fortnightly", "vendor.dependabot", "fortnightly"),
    "a citation without a title": ("../CITATION.cff", "title:", "titel:", "vendor.citation", "titel"),
    "a stranger's words in a script": (
        "workflows/tests.yml", "make lint", "echo ${{ github.event.pull_request.title }}; make lint",
        "zizmor", "template-injection",
    ),
    "a trigger that lends a stranger the keys": (
        "workflows/book.yml", "  pull_request:", "  pull_request_target:", "zizmor", "dangerous-triggers",
    ),
    "an action that may change": (
        "workflows/tests.yml", "actions/setup-python@5fda3b95a4ea91299a34e894583c3862153e4b97 # v7.0.0",
        "actions/setup-python@v7", "zizmor", "unpinned-uses",
    ),
    "more rights than needed": ("workflows/tests.yml", "permissions: {}", "permissions: write-all", "zizmor", "excess"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_turns_its_linter_red(tree, fault):
    name, old, new, tool, said = FAULTS[fault]
    path = tree / ".github" / name
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    assert said in "".join(lint(tree, tool).values())


# what no linter knows


def unmet(flows):
    """Promises that workflows break, a sentence each."""
    jobs = {f"{flow}/{name}": job for flow, whole in flows.items() for name, job in whole["jobs"].items()}
    matrix = jobs["tests/test"]["strategy"]["matrix"]
    stated = [c.rpartition(" ")[2] for c in PROJECT["classifiers"] if re.search(r":: Python :: 3\.\d+", c)]
    if matrix["python"] != stated or PROJECT["requires-python"] != f">={stated[0]}":
        yield f"tests run on {matrix['python']}, but pyproject.toml states {stated} and {PROJECT['requires-python']}"
    if sorted(system.partition("-")[0] for system in matrix["os"]) != ["macos", "ubuntu"]:
        yield f"tests run on {matrix['os']}"
    for flow, whole in flows.items():
        if whole["permissions"] != {} or whole["defaults"] != {"run": {"shell": "bash"}} or "concurrency" not in whole:
            yield f"{flow}: no rights by default, bash that stops at failures, one run at a time"
    for where, job in jobs.items():
        texts = yaml.safe_dump(job)
        pythons = re.findall(r"python-version: '([\d.]+)'", texts)
        if any((python == FROZEN) is (where == "weekly/newest") for python in pythons):
            yield f"{where}: Python {pythons}, but constraints.txt is of {FROZEN}"
        if where.startswith("weekly") and re.search(r"cache:|actions/cache|restore-keys", texts):
            yield f"{where}: from nothing, but with a cache"
        writes = {right for right, kind in job.get("permissions", {}).items() if kind == "write"}
        checkouts = [one for one in job["steps"] if "actions/checkout" in one.get("uses", "")]
        if any(one["with"].get("persist-credentials") is not False for one in checkouts):
            yield f"{where}: leaves its token lying"
        if writes & {"contents", "pages"} and "github.ref == 'refs/heads/main'" not in job.get("if", ""):
            yield f"{where}: publishes from elsewhere than main"
        if writes - {"contents", "id-token"} and checkouts:
            yield f"{where}: can write to {writes} and runs what a pull request brings"
    if set(flows["book"][True]) != {"push", "pull_request"} or flows["book"][True]["push"] != {"branches": ["main"]}:
        yield "the book is built on pull requests and main"
    if "notebooks" not in jobs["book/deploy"]["needs"]:
        yield "the site goes live before the notebooks to which its buttons lead"
    if set(flows["weekly"][True]) != {"schedule", "workflow_dispatch"}:
        yield "weekly runs by the clock"
    if not jobs["weekly/links"].get("continue-on-error"):
        yield "other people's sites can fail ours"


def test_workflows_keep_what_is_promised():
    assert list(unmet(FLOWS)) == []


BREACHES = {
    "pyproject.toml states": ("tests/test", lambda job: job["strategy"]["matrix"]["python"].remove("3.10")),
    "tests run on": ("tests/test", lambda job: job["strategy"]["matrix"]["os"].remove("macos-latest")),
    "but constraints.txt is of": ("tests/lint", lambda job: job["steps"][1]["with"].update({"python-version": "3.13"})),
    "weekly/newest: Python": ("weekly/newest", lambda job: job["steps"][1]["with"].update({"python-version": FROZEN})),
    "with a cache": ("weekly/newest", lambda job: job["steps"][1]["with"].update(cache="pip")),
    "elsewhere than main": ("book/deploy", lambda job: job.pop("if")),
    "what a pull request brings": ("book/build", lambda job: job["permissions"].update({"pull-requests": "write"})),
    "before the notebooks": ("book/deploy", lambda job: job.update(needs="build")),
    "leaves its token": ("weekly/colab", lambda job: job["steps"][1]["with"].pop("persist-credentials")),
    "can fail ours": ("weekly/links", lambda job: job.pop("continue-on-error")),
}


@pytest.mark.parametrize("said", BREACHES)
def test_a_broken_promise_is_seen(said):
    flows = copy.deepcopy(FLOWS)
    (flow, job), breach = BREACHES[said][0].split("/"), BREACHES[said][1]
    breach(flows[flow]["jobs"][job])
    assert said in "\n".join(unmet(flows))


def unknown(shell):
    """What a block of shell calls that does not exist: targets of make, ways of threefactors, modules, scripts."""
    for target, rest in re.findall(r"^\s*make ([a-z-]+)(.*)", shell, re.MULTILINE):
        if subprocess.run(["make", "-n", target], cwd=REPOSITORY, capture_output=True).returncode:
            yield f"make {target}"
        if target == "book":
            yield from (f"book {given}" for given in re.findall(r"ARGS=(\S+)", rest) if not understood(["book", given]))
    for words in re.findall(r"bin/threefactors ([^>|;]+)", shell):
        if not understood(words.split()):
            yield f"threefactors {words}"
    yield from (module for module in re.findall(r"python -m ([\w.]+)", shell) if not exists(module))
    yield from (script for script in re.findall(r"^\s*bash (\S+)", shell, re.M) if not (REPOSITORY / script).is_file())


def understood(words):
    try:
        return bool(_parser().parse_args(words))
    except SystemExit:
        return False


def exists(module):
    """One that can be run: a package needs a __main__."""
    found = find_spec(module)
    return found is not None and (not found.submodule_search_locations or find_spec(f"{module}.__main__") is not None)


@pytest.mark.parametrize("where", SHELL)
def test_shell_parses_and_calls_what_exists(where):
    subprocess.run(["bash", "-n"], input=SHELL[where], text=True, check=True)
    assert "${{" not in SHELL[where]
    assert list(unknown(SHELL[where])) == []


@pytest.mark.parametrize(
    "line",
    ["make boook", "make book ARGS=--pfd", "bin/threefactors compare a", "python -m tests.bok", "bash no.sh"],
)
def test_a_command_that_does_not_exist_is_seen(line, capsys):
    assert len(list(unknown(f"{line} > out || status=$?"))) == 1


# the shell, carried out

GH = """#!/usr/bin/env bash
echo "$*" >> "$HOME/calls"
case "$*" in
  "run list"*) cat "$HOME/run" ;;
  "run download 7"*) mkdir former && echo '{}' > former/claims.json ;;
  "run download"*) echo "the table" > comparison.md ;;
  *labels*) cat "$HOME/labels" ;;
  "api --paginate"*) cat "$HOME/comments" ;;
  "issue list"*) cat "$HOME/issues" ;;
esac
"""
COMPARE = '#!/usr/bin/env bash\necho "**a table** of $2 and $3"\nexit $(cat "$HOME/status")\n'


@pytest.fixture
def runner(tmp_path):
    """Carries out shell as GitHub does, with gh and threefactors of our making; its exit status."""
    for name, text in {"bin/gh": GH, ".venv/bin/threefactors": COMPARE}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    known = {"GITHUB_RUN_ID": "9", "GH_REPO": "some/one", "NUMBER": "5", "HOME": str(tmp_path), "TITLE": "Dead"}
    known |= {name: str(tmp_path / name) for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
    known["PATH"] = f"{tmp_path / 'bin'}:/usr/bin:/bin"

    def run(shell, files, **env):
        for name, text in {"calls": "", "GITHUB_OUTPUT": "", "GITHUB_STEP_SUMMARY": "", **files}.items():
            (tmp_path / name).write_text(text)
        shutil.rmtree(tmp_path / "former", ignore_errors=True)
        command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", shell]
        return subprocess.run(command, cwd=tmp_path, env=known | env, capture_output=True, text=True).returncode

    run.read = lambda name: (tmp_path / name).read_text()
    return run


@pytest.mark.parametrize(
    ("run", "status", "told", "kept"),
    [
        ("7\n", 0, "**a table** of former and _build/html", 0),
        ("7\n", 1, "**a table**", 1),
        ("", 1, "no build of main to compare with", 0),
    ],
)
def test_a_comparison_is_told_and_its_status_kept(runner, run, status, told, kept):
    assert runner(step("book/build", "Compare with main's last build"), {"run": run, "status": str(status)}) == 0
    assert told in runner.read("comparison.md")
    assert runner.read("GITHUB_STEP_SUMMARY") == runner.read("comparison.md")
    assert runner.read("GITHUB_OUTPUT") == f"status={kept}\n"


@pytest.mark.parametrize(
    ("compared", "labels", "status"),
    [("0", "", 0), ("1", "", 1), ("2", "", 1), ("", "", 1), ("1", "bug\nresults-changed\n", 0), ("1", "results\n", 1)],
)
def test_results_that_changed_need_the_label(runner, compared, labels, status):
    assert runner(step("book/compared", "The answer"), {"labels": labels}, COMPARED=compared) == status


@pytest.mark.parametrize(("former", "call"), [("", "POST repos/some/one/issues/5/comments"),
                                              ("31\n32\n", "PATCH repos/some/one/issues/comments/31 ")])  # fmt: skip
def test_there_is_one_comment(runner, former, call):
    assert runner(step("book/compared", "One comment, kept up to date"), {"comments": former}) == 0
    assert call in runner.read("calls")
    assert runner.read("comment.md") == "<!-- threefactors compare -->\nthe table\n"


@pytest.mark.parametrize(("former", "call"), [("", "issue create --title Dead"), ("4\n", "issue edit 4 ")])
def test_there_is_one_issue_about_dead_links(runner, former, call):
    assert runner(step("weekly/links", "One issue, kept up to date"), {"issues": former}) == 0
    assert call in runner.read("calls")


def test_the_branch_of_notebooks_is_one_commit_with_what_colab_needs(tmp_path):
    """Pushed twice; what is gone from the site is gone from the branch, and the book finds it by its name."""
    (branch,) = re.findall(r"\bnotebooks\.sh .* (\w+)\n", step("book/notebooks", "Replace the branch"))
    assert branch in yaml.safe_dump(JOBS["book/build"])  # for which the site is made
    assert [one["with"].get("ref") for one in JOBS["weekly/colab"]["steps"][:2]] == [None, branch]
    git = ["git", "-C", str(tmp_path / "remote")]
    subprocess.run(["git", "init", "-q", "--bare", str(tmp_path / "remote")], check=True)
    for names in (["10_a", "20_old"], ["10_a", "20_b"]):
        shutil.rmtree(tmp_path / "site", ignore_errors=True)
        (tmp_path / "site" / "notebooks").mkdir(parents=True)
        for name in names:
            (tmp_path / "site" / "notebooks" / f"{name}.ipynb").write_text("{}")
        push = ["bash", str(GITHUB / "notebooks.sh"), "site", str(tmp_path / "remote"), branch]
        subprocess.run(push, cwd=tmp_path, check=True)
    assert subprocess.check_output([*git, "rev-list", "--count", "--all"], text=True) == "1\n"
    held = subprocess.check_output([*git, "ls-tree", "-r", "--name-only", branch], text=True).split()
    book = REPOSITORY / "book"
    sources = {f"book/{path.name}" for path in book.glob("[0-9][0-9]_*.py")}
    records = {path.relative_to(REPOSITORY).as_posix() for path in (book / "records").rglob("*") if path.is_file()}
    assert set(held) == {"book/10_a.ipynb", "book/20_b.ipynb", *sources, *records}

    here = tmp_path / "here"
    subprocess.run(["git", "init", "-q", str(here)], check=True)
    subprocess.run(["git", "-C", str(here), "fetch", "-q", "../remote", f"{branch}:refs/remotes/origin/{branch}"])
    subprocess.run(["git", "-C", str(here), "remote", "add", "origin", "https://github.com/some/one"], check=True)
    assert repository._branch(here) == branch


@pytest.mark.parametrize(
    ("ran", "status", "told"),
    [
        ([verdict(), verdict(id="C4")], 0, "2 verdicts, 0 not the book's"),
        ([verdict(), verdict(id="C4", verdict="REFUTED")], 1, "2 verdicts, 1 not the book's"),
        ([verdict()], 1, "1 verdicts, 1 not the book's"),
        (None, 1, "did not run to its end"),
    ],
)
def test_what_ran_in_colabs_image_is_set_beside_what_is_published(tmp_path, capsys, ran, status, told):
    shell = step("weekly/colab", "The same verdicts").replace("published/book", "published")
    (words,) = re.findall(r"-m tests\.colab (.*)", shell)
    for name, verdicts in {"published": [verdict(), verdict(id="C4")], "executed": ran}.items():
        (tmp_path / name).mkdir()
        if verdicts:
            nbformat.write(notebook([shown(*verdicts)]), tmp_path / name / "10_law.ipynb")
    assert (
        colab([str(tmp_path / word) if word in ("published", "executed") else word for word in words.split()]) == status
    )
    assert told in capsys.readouterr().out


def test_a_site_without_notebooks_is_not_pushed(tmp_path):
    push = ["bash", str(GITHUB / "notebooks.sh"), str(tmp_path), str(tmp_path / "nowhere"), "notebooks"]
    assert subprocess.run(push, capture_output=True).returncode != 0


def test_the_citation_names_the_version_that_is_built():
    assert yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())["version"] == PROJECT["version"]
