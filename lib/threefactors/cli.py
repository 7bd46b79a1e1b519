"""The command ``threefactors``: build the book, read its ledger, look whether all is well."""

from __future__ import annotations

import argparse
import ast
import json
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from threefactors.publishing import build, chapters, compare, doctor, ledger, recorded, recorder
from threefactors.publishing.browser import BrowserError
from threefactors.publishing.built import CompareError
from threefactors.publishing.chapters import ChapterError
from threefactors.publishing.ledger import LedgerError
from threefactors.publishing.site import SiteError
from threefactors.settings import Settings, SettingsError, repository_root
from threefactors.training import load

_SCALES = """
scales, sizes of the same experiments:
  smoke    seconds a chapter, to see that everything works
  laptop   minutes on two cores, embedded data, no network, no GPU (the default)
  paper    the paper's data sets and networks, hours on one GPU
"""

_STATUSES = """
exit status:
  0  nothing of the following
  1  a verdict turned or is gone, an estimate is outside its old interval, a figure lost data, a series drifted
  2  OLD or NEW cannot be compared
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status (0: all well, 1: something failed, 2: bad input, 130: interrupted)."""
    arguments = _parser().parse_args(argv)
    try:
        return arguments.command(arguments)
    except (BrowserError, ChapterError, LedgerError, SettingsError, SiteError) as error:
        print(f"threefactors: {error}", file=sys.stderr)
        return 1
    except CompareError as error:
        print(f"threefactors: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nthreefactors: interrupted; finished runs are in the store", file=sys.stderr)
        return 130


def book(arguments: argparse.Namespace) -> int:
    """``threefactors book``"""
    root = _root(arguments)
    report = build.build(
        root,
        scale=arguments.scale,
        settings=_settings(arguments, root),
        only=arguments.only,
        parameters=dict(arguments.parameter),
        timeout=arguments.timeout,
        force=arguments.force,
        pdf=arguments.pdf,
    )
    for execution in report.executions:
        memory = f"{execution.peak_memory / 2**30:.2f} GiB"
        state = "up to date" if execution.cached else "executed"
        name = execution.chapter.name
        print(f"{name:24s} {execution.seconds:8.1f} s  peak {memory:>9s}  {state}")
        for line in execution.incidents:
            print(f"{'':24s} {line}")
    beside = ", two chapters at a time" if report.side_by_side > 1 else ""
    print(f"{'all, and the site':24s} {report.seconds:8.1f} s{beside}")
    print(f"\n{ledger.as_text(ledger.collect(root / 'book'))}\n")
    for failure in report.failures:
        print(f"threefactors: {failure}", file=sys.stderr)
    if report.page:
        print(f"The book: {report.page}")
    else:
        print(f"The site was not rebuilt: {report.why_no_site}")
    return 1 if report.failures else 0


def claims(arguments: argparse.Namespace) -> int:
    """``threefactors claims``"""
    book = _root(arguments) / "book"
    entries = recorded.entries(book) if arguments.recorded else ledger.collect(book)
    text = recorded.shelf(book) if arguments.recorded else ledger.as_text(entries)
    print(json.dumps(entries, indent=1, ensure_ascii=False) if arguments.json else text)
    return 0


def record(arguments: argparse.Namespace) -> int:
    """``threefactors record``"""
    root = _root(arguments)
    settings, given = _settings(arguments, root), dict(arguments.parameter)
    selected = chapters.select(chapters.find(root), arguments.chapters)
    chapters.require_declared(selected, given)
    jobs = [
        recorder.prepare(chapter, scale=arguments.scale, settings=settings, parameters=given) for chapter in selected
    ]
    status = 0
    for job in jobs:
        try:
            made = recorder.record(job, timeout=arguments.timeout, force=arguments.force)
        except ChapterError as error:
            print(f"threefactors: {error}", file=sys.stderr, flush=True)
            status = 1
        else:
            took = "up to date" if made.current else f"recorded in {recorded.duration(made.record.about['seconds'])}"
            print(f"{job.name:24s} {took}, in {made.folder.relative_to(root)}", flush=True)
    return status


def set_side_by_side(arguments: argparse.Namespace) -> int:
    """``threefactors compare``"""
    found = compare.compare(arguments.old, arguments.new)
    print(found.to_json() if arguments.json else found.markdown() if arguments.markdown else found)
    return found.status


def examine(arguments: argparse.Namespace) -> int:
    """``threefactors doctor``"""
    settings = _settings(arguments, repository_root(arguments.root or "."))
    for name in arguments.download:
        try:
            print(f"{name}: {len(load(name, settings.data).y_train)} training examples, checked")
        except (ValueError, FileNotFoundError) as error:
            print(f"threefactors: {error}", file=sys.stderr)
            return 1
    findings = doctor.examine(settings)
    for finding in findings:
        print(finding)
    return 0 if all(finding.well for finding in findings) else 1


def _root(arguments: argparse.Namespace) -> Path:
    root = repository_root(arguments.root or ".")
    if root is None:
        where = Path(arguments.root or ".").resolve()
        raise ChapterError(f"no _toc.yml in {where} or above; go to the repository or name it with --root")
    return root


def _settings(arguments: argparse.Namespace, root: Path | None) -> Settings:
    env = dict(os.environ)
    options = {"STORE": arguments.store, "DATA": arguments.data, "DEVICE": arguments.device}
    options["JOBS"] = None if arguments.jobs is None else str(arguments.jobs)
    options["MEMORY"], options["SCHEDULER"] = arguments.memory, arguments.scheduler
    env.setdefault("THREEFACTORS_JOBS", str(_default_jobs(arguments.device or env.get("THREEFACTORS_DEVICE") or "cpu")))
    env |= {f"THREEFACTORS_{name}": value for name, value in options.items() if value is not None}
    env.setdefault("THREEFACTORS_STORE", str((root or Path.cwd()) / ".threefactors" / "store"))
    return Settings.from_environment(env)


def _default_jobs(device: str) -> int:
    """A process per core is the fastest on a CPU; each takes half a GiB of memory. A GPU is filled by one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(4, cores) if device == "cpu" and cores > 1 else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="threefactors", description="Build and read the executable paper.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    where = argparse.ArgumentParser(add_help=False)
    where.add_argument("--root", metavar="DIR", help="the repository (default: the one you are in)")
    machine = argparse.ArgumentParser(add_help=False)
    machine.add_argument("--store", metavar="DIR", help="where results are kept (default: .threefactors/store)")
    machine.add_argument("--data", metavar="DIR", help="where data sets lie (default: embedded data only)")
    machine.add_argument("--device", metavar="DEVICE", help="cpu, cuda or cuda:N (default: cpu)")
    machine.add_argument(
        "--memory", metavar="GIB", help="GiB that networks trained at once may take (default: 80 %% of what is free)"
    )
    machine.add_argument(
        "--jobs", type=int, metavar="N", help="processes that compute (default: one per core, at most 4; 0: no workers)"
    )
    machine.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="compute on the workers of this dask.distributed scheduler instead (tcp://HOST:PORT, or local or local:N "
        "for N workers here, one for each core or GPU)",
    )

    how = argparse.ArgumentParser(add_help=False)
    how.add_argument("--timeout", type=_seconds, metavar="S", help="seconds a chapter may take, in this attempt")
    how.add_argument(
        "-p",
        dest="parameter",
        type=_parameter,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="another value for a parameter that a chapter declares (may be repeated); on record, a variant",
    )
    how.add_argument("--force", action="store_true", help="execute chapters even if they are up to date")

    make = commands.add_parser(
        "book",
        parents=[where, machine, how],
        help="execute the chapters and build the site",
        description="Execute every chapter that is not up to date, check the notebooks and build the site "
        "in _build/html. Results are kept in the store: a build that was cut off goes on where it stopped. "
        "With two jobs or more, two chapters run side by side and share them.",
        epilog=_SCALES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    make.add_argument("--scale", choices=chapters.SCALES, default="laptop", help="size (default: laptop)")
    make.add_argument("--only", nargs="+", default=[], metavar="NN", help="execute these chapters only: 20")
    make.add_argument(
        "--pdf", action="store_true", help="the whole book as a PDF beside the site, printed by a browser"
    )
    make.set_defaults(command=book)

    show = commands.add_parser(
        "claims",
        parents=[where],
        help="print the ledger of verdicts",
        description="Print the verdict on each claim, as found in the executed chapters.",
    )
    show.add_argument("--json", action="store_true", help="as JSON, with reasons and provenance")
    show.add_argument("--recorded", action="store_true", help="the verdicts recorded at other sizes instead")
    show.set_defaults(command=claims)

    write = commands.add_parser(
        "record",
        parents=[where, machine, how],
        help="execute chapters at another size and keep what they find",
        description="Execute chapters at paper scale (or another, or with other parameters), and keep verdicts, runs "
        "and provenance in book/records, where the book shows them beside its own. The published notebooks are not "
        "touched. Results go to the store one by one: a recording that was cut off goes on where it stopped.",
        epilog=_SCALES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    write.add_argument("chapters", nargs="+", metavar="CHAPTER", help="number or name: 20 or 20_width")
    write.add_argument("--scale", choices=chapters.SCALES, default="paper", help="size (default: paper)")
    write.set_defaults(command=record)

    beside = commands.add_parser(
        "compare",
        help="set two builds of the book side by side",
        description="Compare two built sites, verdict by verdict and figure by figure (data, not pixels), with the "
        "spread over seeds as tolerance.",
        epilog=_STATUSES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    beside.add_argument("old", type=Path, metavar="OLD", help="a site: the folder _build/html, or a zip archive of it")
    beside.add_argument("new", type=Path, metavar="NEW", help="another, of the same scale")
    form = beside.add_mutually_exclusive_group()
    form.add_argument("--markdown", action="store_true", help="for a comment on a pull request")
    form.add_argument("--json", action="store_true", help="for other programs")
    beside.set_defaults(command=set_side_by_side)

    look = commands.add_parser(
        "doctor",
        parents=[where, machine],
        help="look whether this machine has what is needed",
        description="Print versions, device, compiler, data sets, store and disk; the exit status is not 0 "
        "when something needed is missing.",
    )
    look.add_argument(
        "--download",
        nargs="+",
        default=[],
        metavar="NAME",
        help="first bring these data sets into --data: mnist, fashion-mnist, cifar10",
    )
    look.set_defaults(command=examine)
    return parser


def _parameter(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE, such as -p seeds=16")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value  # a word: a string without quotes


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return seconds


if __name__ == "__main__":
    sys.exit(main())
