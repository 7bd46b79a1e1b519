"""Judge claims on results: check the preconditions, weigh the measures, correct for the family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import pandas as pd

from threefactors.inference.claim import Claim
from threefactors.inference.decisions import REFUTED, SUPPORTED, VOID, Decision, Estimated, holm, outcome
from threefactors.inference.slopes import Unmeasurable, usable
from threefactors.inference.verdicts import Verdict, Verdicts

# measures computed by Lanczos: their residuals must have converged
EIGENVALUES = {"sharpness", "normalized_sharpness", "adaptive_sharpness"}

# What a protocol holds equal, and the largest max/min over the runs that still counts as equal. Runs
# stop at whole steps and batches, and the loss is looked at only now and then; a result handed to the
# wrong protocol differs by the whole range of the grid, ten times or more. A simulation holds equal whatever its
# law does not speak of, by construction.
HELD_EQUAL = {
    "equal epochs": ("epochs", 1.25),
    "equal clock": ("clock", 1.1),
    "equal loss": ("train_loss", 2.0),
}


NAMED = 3  # so many further measures are named in a reason; all of them, with their numbers, are in its details


class HasTable(Protocol):
    """A result of an experiment."""

    def table(self) -> pd.DataFrame: ...


@dataclass(frozen=True)
class _Evidence:
    """What one table says of one claim, before the family is known; ``void`` says why nothing."""

    runs: int
    n: int = 0
    diverged: int = 0
    unfinished: int = 0
    unmeasured: int = 0
    void: str = ""
    undefined: dict[str, str] = field(default_factory=dict)
    decisions: dict[str, Decision] = field(default_factory=dict)

    @property
    def p_supported(self) -> float:
        # intersection–union: all measures must pass, so the worst p-value holds at full level
        return max((d.p_supported for d in self.decisions.values()), default=1.0)

    @property
    def p_refuted(self) -> float:
        # any one measure refutes, so each look is paid for
        smallest = min((d.p_refuted for d in self.decisions.values()), default=1.0)
        return min(1.0, len(self.decisions) * smallest)


def judge(claim: Claim, result: HasTable | pd.DataFrame) -> Verdict:
    """Judge one claim on one result: SUPPORTED, REFUTED, UNDECIDED, or VOID where a precondition fails.

    SUPPORTED needs the claim's rule to hold for every measure at the claim's level, REFUTED its opposite
    to be shown for at least one, all by tests over seeds; everything else is UNDECIDED.

    ``claim`` is bound to a protocol by ``claim.at(...)``; ``result`` has a ``table()`` with one row a run,
    or is that table: the full grid of one arm, all seeds, lost runs included.
    Errors: ValueError for a claim without protocol, TypeError for anything that is no table.
    """
    return judge_family([claim], [result])[0]


def judge_family(
    claims: Sequence[Claim],
    results: Sequence[HasTable | pd.DataFrame] | Mapping[tuple[str, str], HasTable | pd.DataFrame],
) -> Verdicts:
    """Judge several claims together, with Holm's correction over the whole family.

    The two directions are corrected apart: the chance that any false claim of the family is SUPPORTED is at
    most the level, and so is the chance that any true one is REFUTED. A VOID claim still counts as a member.

    ``results`` holds one result a claim in the same order, or maps (protocol, arm) to results.
    Errors: as ``judge``; ValueError where claims and results do not match.
    """
    for claim in claims:
        if not claim.protocol:
            raise ValueError(f"claim {claim.id} names no protocol; use claim.at('equal epochs'), for instance")
    if isinstance(results, Mapping):
        missing = sorted({(c.protocol, c.arm) for c in claims} - set(results))
        if missing:
            raise ValueError(f"no result for (protocol, arm) in {missing}; there are {sorted(results)}")
        results = [results[claim.protocol, claim.arm] for claim in claims]
    if len(results) != len(claims):
        raise ValueError(f"{len(claims)} claims but {len(results)} results; give one result a claim")
    evidence = [_weigh(claim, _table(result)) for claim, result in zip(claims, results, strict=True)]
    supported = holm([e.p_supported for e in evidence])
    refuted = holm([e.p_refuted for e in evidence])
    return Verdicts(
        _verdict(claim, e, p_supported, p_refuted, len(claims))
        for claim, e, p_supported, p_refuted in zip(claims, evidence, supported, refuted, strict=True)
    )


def _table(result: HasTable | pd.DataFrame) -> pd.DataFrame:
    table = result if isinstance(result, pd.DataFrame) else getattr(result, "table", lambda: None)()
    if not isinstance(table, pd.DataFrame):
        raise TypeError(f"{type(result).__name__} is no table; use a pandas DataFrame or a result with .table()")
    return table


def _weigh(claim: Claim, table: pd.DataFrame) -> _Evidence:
    wanted = {"seed", "diverged", "finished", *claim.axes, *claim.measures, *claim.needs}
    if claim.protocol not in HELD_EQUAL:
        # neither a simulated trajectory nor an estimate from many runs is a run that could be unfinished
        table = table.assign(diverged=table.get("diverged", False), finished=table.get("finished", True))
    else:
        wanted.add(HELD_EQUAL[claim.protocol][0])
    if EIGENVALUES & set(claim.measures):
        wanted.add("sharpness_converged")
    absent = sorted(wanted - set(table.columns))
    if absent:
        return _Evidence(len(table), void=f"The table lacks the columns {', '.join(absent)}.")
    if len(table) == 0:
        return _Evidence(0, void="There are no runs.")

    table = table[sorted(wanted)]
    diverged = table["diverged"].to_numpy(bool)
    unfinished = ~table["finished"].eq(True).to_numpy() & ~diverged  # a missing flag is no "finished"
    numbers = [axis for axis in claim.axes if pd.api.types.is_numeric_dtype(table[axis])]
    good = usable(table, *numbers, *claim.measures)
    rows = table[good]
    lost = (int(diverged.sum()), int(unfinished.sum()), int((~good & ~diverged & ~unfinished).sum()))
    n = table["seed"].nunique()

    def void(why: str) -> _Evidence:
        return _Evidence(len(table), n, *lost, void=why)

    if n < claim.min_seeds:
        return void(f"There are {n} seeds; the claim needs at least {claim.min_seeds}.")
    if hole := _grid_fault(table, claim.axes):
        return void(hole)
    if sum(lost) > claim.max_lost * len(table):
        return void(
            f"{sum(lost)} of {len(table)} runs ({sum(lost) / len(table):.0%}) were lost: {lost[0]} diverged, "
            f"{lost[1]} did not finish, {lost[2]} were not measured; at most {claim.max_lost:.0%} may be."
        )
    if "sharpness_converged" in wanted and not (converged := rows["sharpness_converged"].eq(True)).all():
        return void(
            f"The residual of λ_max has not converged in {(~converged).sum()} of {len(rows)} runs; "
            "allow more Lanczos steps."
        )
    if unequal := _unequal(claim, rows):
        return void(unequal)
    try:
        estimates = _estimates(claim, rows)
        if claim.each and (gone := set(table[claim.each]) - set(rows[claim.each])):
            return void(f"No run is left at {claim.each} = {', '.join(map(str, sorted(gone)))}.")
    except Unmeasurable as error:
        return void(f"{error}.")
    n = min(estimate.n for estimate in estimates.values())
    if n < claim.min_seeds:
        return void(f"Only {n} seeds keep enough runs for a fit; the claim needs at least {claim.min_seeds}.")
    undefined = {m: why for m, estimate in estimates.items() if (why := estimate.undefined(claim.level))}
    decisions = {m: claim.rule.decide(estimate, claim.level) for m, estimate in estimates.items()}
    return _Evidence(len(table), n, *lost, undefined=undefined, decisions=decisions)


def _unequal(claim: Claim, rows: pd.DataFrame) -> str:
    """Why the runs do not fit the protocol; empty: what it holds equal is equal."""
    if claim.protocol not in HELD_EQUAL:
        return ""
    held, tolerance = HELD_EQUAL[claim.protocol]
    # with ``each`` only what shares its value is compared: the points of a curve have each a time of their own
    for value, part in rows.groupby(claim.each) if claim.each else [("", rows)]:
        smallest, largest = part[held].min(), part[held].max()
        if not 0 < smallest <= largest <= tolerance * smallest:
            where = f" at {claim.each}={value}" if claim.each else ""
            return (
                f"{claim.protocol!r} asks for runs of equal {held}, "
                f"but it goes from {smallest:.4g} to {largest:.4g}{where}."
            )
    return ""


def _estimates(claim: Claim, rows: pd.DataFrame) -> dict[str, Estimated]:
    """The claim's statistic of each measure, or of each measure at each value of the axis ``each``."""
    if not claim.each:
        return {measure: claim.statistic(rows, measure) for measure in claim.measures}
    return {
        f"{measure} at {claim.each}={value if isinstance(value, str) else format(value, '.4g')}": claim.statistic(
            part, measure
        )
        for value, part in rows.groupby(claim.each, sort=True)
        for measure in claim.measures
    }


def _grid_fault(table: pd.DataFrame, axes: Sequence[str]) -> str:
    """What is wrong with the grid; empty: every combination of the axes and the seed occurs exactly once."""
    codes = [np.unique(table[axis], return_inverse=True) for axis in (*axes, "seed")]
    shape = tuple(len(values) for values, _ in codes)
    if min(shape[:-1], default=2) < 2:
        sizes = " by ".join(f"{n} values of {axis}" for n, axis in zip(shape, axes, strict=False))
        return f"The grid has {sizes}; it needs at least 2 of each."
    counts = np.zeros(shape, int)
    np.add.at(counts, tuple(index for _, index in codes), 1)
    absent, twice = int((counts == 0).sum()), int((counts > 1).sum())
    if not absent and not twice:
        return ""
    where = np.argwhere((counts == 0) if absent else (counts > 1))[0]
    places = zip((*axes, "seed"), codes, where, strict=True)
    first = ", ".join(f"{axis}={v[i] if isinstance(v[i], str) else format(v[i], 'g')}" for axis, (v, _), i in places)
    if absent:
        return f"The grid is incomplete: {absent} of {counts.size} runs have no row, the first at {first}."
    return f"{twice} runs occur more than once, the first at {first}; judge one arm at a time."


def _verdict(claim: Claim, e: _Evidence, p_supported: float, p_refuted: float, family: int) -> Verdict:
    common = {name: getattr(claim, name) for name in ("id", "statement", "source", "protocol", "arm")}
    common |= {name: getattr(e, name) for name in ("n", "runs", "diverged", "unfinished", "unmeasured")}
    if e.void:
        return Verdict(**common, verdict=VOID, reason=e.void)
    decided = outcome(p_supported, p_refuted, claim.level)
    measure = _decisive(claim, e, decided)
    decision = e.decisions[measure]
    towards = e.p_supported <= e.p_refuted
    p, p_adjusted = (e.p_supported, p_supported) if towards else (e.p_refuted, p_refuted)
    return Verdict(
        **common,
        verdict=decided,
        reason=_reason(claim, e, decided, measure, p, p_adjusted, family),
        measure=measure,
        estimate=_finite(decision.interval.value),
        interval=_limits(decision),
        confidence=decision.interval.level,
        p=p,
        p_adjusted=p_adjusted,
        details={
            name: {
                "estimate": _finite(d.interval.value),
                "interval": None if (limits := _limits(d)) is None else list(limits),
                "p_supported": d.p_supported,
                "p_refuted": d.p_refuted,
            }
            for name, d in e.decisions.items()
        },
    )


def _decisive(claim: Claim, e: _Evidence, decided: str) -> str:
    """The measure on which the verdict hangs: the one that refutes, or else the weakest support."""
    if decided == REFUTED:
        return min(e.decisions, key=lambda m: e.decisions[m].p_refuted)
    if e.undefined:
        return next(iter(e.undefined))
    return min(e.decisions, key=lambda m: claim.rule.slack(e.decisions[m].interval))


def _reason(claim: Claim, e: _Evidence, decided: str, measure: str, p: float, p_adjusted: float, family: int) -> str:
    """One sentence or two, with the numbers that decide."""
    i = e.decisions[measure].interval
    quantity, says = claim.quantity.format(measure=measure), claim.rule.says()
    holm_note = f" after Holm's correction over {family} claims" if family > 1 else ""
    if decided not in (SUPPORTED, REFUTED) and e.undefined:
        return f"The {quantity} has no meaning here: {e.undefined[measure]}."
    limits = f"{100 * i.level:g} % interval {i.low:.3g} to {i.high:.3g}, {e.n} seeds"
    found = f"The {quantity} is {i.value:.3g} ({limits})"
    if decided == SUPPORTED:
        others = [m for m in e.decisions if m != measure]
        named = f"measures ({', '.join(others)})" if len(others) <= NAMED else f"{len(others)} cases"
        rest = f", and so are the other {named}" if others else ""
        return f"{found}: {says}, as claimed{rest} (p = {p_adjusted:.2g}{holm_note})."
    if decided == REFUTED:
        return f"{found}, against the claim that it is {says} (p = {p_adjusted:.2g}{holm_note})."
    if p <= claim.level:
        return f"{found}: p = {p:.2g} would decide alone, but it is {p_adjusted:.2g}{holm_note}."
    return f"{found}: neither {says} nor the opposite is shown (p = {p:.2g}, level {claim.level:g})."


def _limits(decision: Decision) -> tuple[float, float] | None:
    low, high = decision.interval.low, decision.interval.high
    return (float(low), float(high)) if np.isfinite([low, high]).all() else None


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
