"""Predicted and measured: the learning rate at which SGD leaves a trained minimum.

Here theory, which knows nothing of networks, meets the Gram matrices that were measured in them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from threefactors.experiments.restart import Minima, aftermath, restart, typical_limits
from threefactors.theory.second_moment import Factors, second_moment_limit
from threefactors.theory.stability_bounds import line_limit, one_step_limit, simple_limits

LIMITS = ("noise_free", "mean_square", "typical")
# Two threads that share out matrices this small take seven times as long as one.
ONE_THREAD = threadpool_limits.wrap(limits=1, user_api="blas")
SPAN = 0.8, 1.25  # learning rates that are tried: from so much of the lowest prediction to so much of the highest


@ONE_THREAD
def limits(minima: Minima, batch_sizes: Sequence[int], *, steps: int, draws: str = "independent") -> pd.DataFrame:
    """What local geometry says of the learning rate at which each minimum ceases to hold: one row a seed and S.

    noise_free    2/λ_max: where descent without batches leaves, and with noise kicks that vanish at the minimum, too
    mean_square   where the second moment ceases to shrink, exactly, from the Gram matrix
    typical       where a typical path of the linearized system does: simulated, with so many steps
    one_step      below which no step raises the mean square (Wu, Ma & E); their two simple conditions are noise_free
                  and uniform
    along_top     the mean-square limit of SGD that is kept on the line along the top eigenvector of the Hessian

    draws: ``independent``, or ``fresh`` batches without replacement. Errors: as ``second_moment_limit``.
    """
    rows, replacement = [], draws == "independent"
    top = np.eye(minima.gram.shape[1])[-1]  # in the eigenbasis of the mean, with eigenvalues in rising order
    factors = [Factors.from_gram(gram, len(minima.x)) for gram in minima.gram]
    for S in batch_sizes:
        mean_square = [second_moment_limit(one, S, replacement=replacement) for one in factors]
        span = SPAN[0] * np.array(mean_square), SPAN[1] * 2 / minima.sharpness
        typical = typical_limits(minima, S, *span, steps=max(steps // S, 1000), draws=draws)
        for i, seed in enumerate(minima.seeds):
            noise_free, uniform = simple_limits(factors[i], S, replacement=replacement)
            rows.append({
                "seed": seed, "batch_size": S, "sharpness": minima.sharpness[i], "noise_free": noise_free,
                "mean_square": mean_square[i], "typical": typical[i],
                "one_step": one_step_limit(factors[i], S, replacement=replacement), "uniform": uniform,
                "along_top": line_limit(factors[i], top, S, replacement=replacement),
            })  # fmt: skip
    return pd.DataFrame(rows)


@ONE_THREAD
def fates(minima: Minima, limits: pd.DataFrame, *, rates: int, draws: str = "independent", **how: int) -> pd.DataFrame:
    """SGD restarted beside each minimum, for each S of ``limits``, at learning rates that span all its predictions.

    They run, evenly on a logarithmic axis, from a fifth below the mean-square limit to a quarter above 2/λ_max. how:
    repeats, steps and looks of ``restart``. One row a restart, with the columns of both.
    """
    parts = []
    for S in dict.fromkeys(limits["batch_size"]):
        rows = limits[limits["batch_size"] == S].set_index("seed").loc[list(minima.seeds)]
        grid = np.geomspace(SPAN[0] * rows["mean_square"], SPAN[1] * rows["noise_free"], rates, axis=1)
        parts.append(restart(minima, grid, S, draws=draws, **how))
    return pd.concat(parts, ignore_index=True).merge(limits, on=["seed", "batch_size"])


def transitions(fates: pd.DataFrame) -> pd.DataFrame:
    """Where half of the restarts leave, and how often their fates were foreseen: one row a seed and S.

    transition     by the method of Spearman and Kärber: ln η = ln η_last + Δ/2 − Δ Σ_g p_g, p_g the share that left at
                   rate g, Δ the distance of two rates; missing unless none left at the first and all at the last
    replayed       share of restarts that left if and only if the linearized system did, on the same batches
    right_<limit>  share that left if and only if their learning rate was above the limit
    undecided      share that neither left nor came back

    and the limits themselves. Source: Finney, Statistical Method in Biological Assay (1978).
    """
    rows = []
    for (seed, S), cell in fates.groupby(["seed", "batch_size"]):
        share = cell.groupby("rate")["left"].mean().to_numpy()
        log = np.log(cell.groupby("rate")["lr"].first().to_numpy())
        whole = share[0] == 0 and share[-1] == 1
        step = log[1] - log[0]
        at = np.exp(log[-1] + step / 2 - step * share.sum()) if whole else np.nan
        row = {"seed": seed, "batch_size": S, "transition": at, "replayed": (cell.left == cell.replay_left).mean()}
        row |= {f"right_{name}": (cell.left == (cell.lr > cell[name])).mean() for name in LIMITS}
        row |= {"undecided": 1 - (cell.left | cell.back).mean()}
        rows.append(row | cell[["sharpness", *LIMITS, "one_step", "uniform", "along_top"]].iloc[0].to_dict())
    return pd.DataFrame(rows)


def against(transitions: pd.DataFrame, limit: str) -> pd.DataFrame:
    """The transitions beside one of the LIMITS: ``predicted_transition``, and ``ratio`` of the two."""
    return transitions.assign(
        predicted_transition=transitions[limit], ratio=transitions["transition"] / transitions[limit]
    )


def shares(
    fates: pd.DataFrame, limit: str, *, span: tuple[float, float] = (0.1, 2.0), points: int = 81
) -> pd.DataFrame:
    """Share of restarts that left at x = η/limit, mean over seeds: ``batch_size``, ``x``, ``left``.

    Between its own rates a seed's share is taken as straight in ln η, and beyond them as at the nearest one.
    """
    x = np.geomspace(*span, 101)
    parts = []
    for S, cells in fates.assign(x=fates["lr"] / fates[limit]).groupby("batch_size"):
        own = [
            np.interp(np.log(x), np.log(share.index), share)
            for share in (cell.groupby("x")["left"].mean() for _, cell in cells.groupby("seed"))
        ]
        parts.append(pd.DataFrame({"batch_size": S, "x": x, "left": np.mean(own, axis=0)}))
    return pd.concat(parts, ignore_index=True)


@ONE_THREAD
def resting(
    minima: Minima, transitions: pd.DataFrame, multiples: Sequence[float], *, steps: Mapping[int, int], draws: str
) -> pd.DataFrame:
    """Where SGD comes to rest at multiples of a minimum's own transition: one row a seed, S and multiple.

    steps: S → how many at most. Columns: ``lr``; ``before`` and ``after``: η over the mean-square limit of the minimum
    that was left and of the one found; ``sharp_before`` and ``sharp_after``: ηλ_max/2 of both; ``moved``: ‖θ − θ*‖; all
    but the first three missing where SGD did not come to rest.
    """
    rows = []
    replacement = draws == "independent"
    for S, most in steps.items():
        own = transitions[transitions.batch_size == S].set_index("seed").loc[list(minima.seeds)]
        for multiple in multiples:
            lr = (multiple * own["transition"]).to_numpy()
            found, _ = aftermath(minima, lr, S, steps=most, looks=40, draws=draws)
            for i, seed in enumerate(minima.seeds):
                row = {"seed": seed, "batch_size": S, "multiple": multiple, "lr": lr[i]}
                row |= {"before": lr[i] / own["mean_square"].iloc[i], "sharp_before": lr[i] * minima.sharpness[i] / 2}
                if seed in found.seeds:
                    j = found.seeds.index(seed)
                    factors = Factors.from_gram(found.gram[j], len(found.x))
                    limit = second_moment_limit(factors, S, replacement=replacement)
                    row |= {"after": lr[i] / limit, "sharp_after": lr[i] * found.sharpness[j] / 2}
                    row |= {"moved": float((found.theta[j] - minima.theta[i]).norm())}
                rows.append(row)
    return pd.DataFrame(rows)
