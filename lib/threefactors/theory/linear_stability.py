"""Linear stability of SGD on a sum of parabolas: when does a minimum lose its grip, and how?

f_i(x) = ½ q_i x² + r_i x, i = 1 … n, with mean curvature λ = ⟨q_i⟩ > 0 and variance s² = ⟨q_i²⟩ − λ². A batch of S
terms multiplies the deviation e from the minimum by 1 − ηq̄, where q̄ is the mean of the curvatures in the batch, and
adds −ηḡ, where ḡ is the mean of the gradients g_i that the terms have at the minimum. Batches are independent,
E q̄ = λ, Var q̄ = p s² (``noise.variance_factor``), so that

    E e'² = ρ E e² + η² p σ²,   ρ = E(1 − ηq̄)² = (1 − ηλ)² + η² p s²,   σ² = ⟨g_i²⟩.

The mean square forgets its start for ρ < 1, the typical trajectory for G = E ln|1 − ηq̄| < 0, and G ≤ ½ ln ρ by Jensen's
inequality. Between the two, |e| is heavy-tailed. More dimensions: ``second_moment``.
Sources: the mechanism, Patel, arXiv 1709.04718; the tails, Kesten, doi:10.1007/BF02392040.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import logsumexp
from scipy.stats import binom, hypergeom

from threefactors.theory.noise import variance_factor
from threefactors.theory.quadratic import check_step

Array = NDArray[np.float64]
MOST = 200_000  # atoms of the law of a batch mean
EQUAL = 1e-12  # of the largest curvature: values closer than this are one


def mean_square_factor(curvatures: ArrayLike, lr: float, batch_size: int, *, replacement: bool = True) -> float:
    """Factor of E e² in a step: ρ = (1 − ηλ)² + η² p s², so that E e_t² = ρᵗ e_0² without gradient noise.

    curvatures q (n,), of either sign; lr η; batch_size S; replacement: independent draws, else S different terms,
    afresh at every step. Exact. Errors: ValueError for no curvatures, η ≤ 0, S < 1, or S > n without replacement.
    Source: see the module.
    """
    check_step(lr, batch_size)
    mean, variance = _moments(curvatures, batch_size, replacement)
    return (1 - lr * mean) ** 2 + lr**2 * variance


def mean_square_limit(curvatures: ArrayLike, batch_size: int, *, replacement: bool = True) -> float:
    """Learning rate at which the mean square ceases to shrink, ρ = 1: η_ms = 2λ/(λ² + p s²).

    Arguments as in ``mean_square_factor``. Equal curvatures give 2/λ, λ = 0 gives 0. Errors: as there, and ValueError
    for λ < 0, where there is no minimum, or curvatures that are all 0, where nothing moves.

    >>> float(mean_square_limit([0.0, 2.0], batch_size=1)), float(mean_square_limit([0.0, 2.0], batch_size=4))
    (1.0, 1.6)
    """
    mean, variance = _minimum(curvatures, batch_size, replacement)
    return 2 * mean / (mean**2 + variance)


def stationary_variance(
    curvatures: ArrayLike, noise_variance: float, lr: float, batch_size: int, *, replacement: bool = True
) -> float:
    """Stationary E e² with gradient noise: η p σ² / (2λ − η(λ² + p s²)).

    noise_variance σ² = ⟨g_i²⟩ ≥ 0, the variance over the terms of the gradient at the minimum, which may depend on q_i:
    the cross term is E[(1 − ηq̄)ḡ] E e, and E e dies out. Other arguments as in ``mean_square_factor``.
    Errors: as ``mean_square_limit``, and ValueError for σ² < 0 or η ≥ η_ms, where the variance is infinite.

    >>> float(stationary_variance([0.0, 2.0], 1.0, lr=0.5, batch_size=1))
    0.5
    """
    check_step(lr, batch_size)
    if not 0 <= noise_variance < np.inf:
        raise ValueError(f"noise_variance={noise_variance} is no variance; use noise_variance >= 0")
    mean, variance = _minimum(curvatures, batch_size, replacement)
    room = 2 * mean - lr * (mean**2 + variance)
    if not room > 1e-14 * mean:
        limit = 2 * mean / (mean**2 + variance)
        raise ValueError(f"lr={lr} with batch_size={batch_size} has an infinite variance; use 0 < lr < {limit:.6g}")
    p = variance_factor(batch_size, None if replacement else np.size(curvatures))
    return lr * p * noise_variance / room


def batch_means(curvatures: ArrayLike, batch_size: int, *, replacement: bool = True) -> tuple[Array, Array]:
    """The exact law of the mean curvature of a batch: its atoms q̄ (K,), rising, and their probabilities (K,).

    Distinct values v, each shared by n_v terms, are taken one after another. Of the r draws still to be made, k fall on
    v with the binomial chance for n_v out of the terms not yet considered, or the hypergeometric one without
    replacement; partial sums that agree are merged, so that curvatures on a grid stay cheap for every S.
    Arguments and errors as in ``mean_square_factor``, and ValueError for more than 200 000 atoms.

    >>> batch_means([0.0, 2.0], batch_size=2)
    (array([0., 1., 2.]), array([0.25, 0.5 , 0.25]))
    """
    q, S = _curvatures(curvatures), batch_size
    variance_factor(S, None if replacement else len(q))  # raises where no such batch can be drawn
    rounding = EQUAL * max(float(np.abs(q).max()), np.finfo(float).tiny)
    values, counts = np.unique(q, return_counts=True)
    left = {S: (np.zeros(1), np.ones(1))}  # draws still to be made → law of the sum so far
    terms = len(q)
    for value, count in zip(values, counts, strict=True):
        parts: dict[int, list[tuple[Array, Array]]] = {}
        for r, (sums, chances) in left.items():
            k = np.arange(r + 1)
            of_k = binom.pmf(k, r, count / terms) if replacement else hypergeom.pmf(k, terms, count, r)
            for i in k[of_k > 0]:
                parts.setdefault(r - int(i), []).append((sums + i * value, chances * of_k[i]))
        left = {r: _merged(part, S * rounding) for r, part in parts.items()}
        terms -= count
        if (atoms := sum(len(sums) for sums, _ in left.values())) > MOST:
            raise ValueError(
                f"the mean of batch_size={S} out of {len(values)} different curvatures has over {atoms} values; "
                f"use at most {MOST}: smaller batches, or curvatures that are rounded to a grid"
            )
    sums, chances = left[0]
    return sums / S, chances / chances.sum()


def lyapunov_exponent(curvatures: ArrayLike, lr: float, batch_size: int, *, replacement: bool = True) -> float:
    """Growth per step of a typical trajectory: G = E ln|1 − ηq̄|, since ln|e_t| is a sum of independent terms.

    Arguments and errors as in ``batch_means``. −∞ where a batch has ηq̄ = 1: sooner or later it is drawn, and e is 0.
    """
    check_step(lr, batch_size)
    log, chances = _logs(*batch_means(curvatures, batch_size, replacement=replacement), lr)
    return float(chances @ log)


def almost_sure_limit(curvatures: ArrayLike, batch_size: int, *, replacement: bool = True) -> float:
    """Learning rate at which a typical trajectory first ceases to shrink: the least η > 0 with G = E ln|1 − ηq̄| = 0.

    It is at least η_ms. Beyond it there may be islands of stability, since G → −∞ wherever η is 1/q̄ of some batch.
    Between two such poles G is concave, so that the first interval in which its maximum is positive holds the limit.
    Arguments and errors as in ``batch_means`` and ``mean_square_limit``; λ > 0. Equal curvatures give 2/λ.
    """
    start = mean_square_limit(curvatures, batch_size, replacement=replacement)
    if not start > 0:
        raise ValueError(
            "curvatures have the mean 0: where trajectories converge is not bounded by one limit; use λ > 0"
        )
    atoms, chances = batch_means(curvatures, batch_size, replacement=replacement)

    def exponent(eta: float) -> float:
        log, p = _logs(atoms, chances, eta)
        return float(p @ log)

    def slope(eta: float) -> float:
        return float(chances @ (atoms / (eta * atoms - 1)))

    if exponent(start) > -1e-14:  # |1 − ηq̄| = 1 for every batch: the two limits are one, as for equal curvatures
        return start
    poles = np.unique(1 / atoms[atoms > 0])
    left = start
    for right in [*poles[poles > start], np.inf]:
        if right == np.inf:  # from here on G rises without bound
            right = 2 * left
            while exponent(right) <= 0:
                right *= 2
            return float(brentq(exponent, np.nextafter(left, right), right, xtol=1e-15, rtol=1e-14))
        middle = (left + right) / 2
        # concave: the tangent in the middle bounds G from above
        if exponent(middle) + abs(slope(middle)) * (right - left) / 2 > 0:
            inner = (right - left) * 1e-9
            low, high = left + inner, right - inner
            top = low if slope(low) <= 0 else high if slope(high) >= 0 else brentq(slope, low, high)
            if exponent(top) > 0:
                return float(brentq(exponent, left if left == start else low, top, xtol=1e-15, rtol=1e-14))
        left = right
    raise AssertionError("unreachable: the last interval holds a limit")


def tail_exponent(curvatures: ArrayLike, lr: float, batch_size: int, *, replacement: bool = True) -> float:
    """Exponent of the stationary tail, P(|e| > u) ∝ u^−ϑ: the ϑ > 0 with E|1 − ηq̄|^ϑ = 1.

    ln E|1 − ηq̄|^ϑ is convex in ϑ, 0 at ϑ = 0 with the slope G there: for G < 0 there is one such ϑ if any batch has
    |1 − ηq̄| > 1, and otherwise no power law at all, ϑ = ∞. It is 2 at η_ms and 0 at the almost-sure limit.
    Arguments and errors as in ``batch_means``, and ValueError for G > 0, or |1 − ηq̄| = 1 for every batch, where there
    is no stationary state.
    Source: Kesten (1973), doi:10.1007/BF02392040.

    >>> round(tail_exponent([0.0, 2.0], lr=1.5, batch_size=4), 2) > 2 > tail_exponent([0.0, 2.0], lr=1.7, batch_size=4)
    True
    """
    check_step(lr, batch_size)
    log, chances = _logs(*batch_means(curvatures, batch_size, replacement=replacement), lr)
    if (growth := float(chances @ log)) > 1e-13:
        raise ValueError(
            f"lr={lr} makes |e| grow by e^{growth:.3g} a step; use a learning rate below almost_sure_limit"
        )
    if not np.abs(log).max() > 1e-14:
        raise ValueError(f"lr={lr} makes |1 − ηq̄| = 1 for every batch: |e| has no stationary law; use a smaller lr")
    if not log.max() > 0:
        return np.inf

    def cumulant(theta: float) -> float:
        return float(logsumexp(theta * log, b=chances))

    low = high = 1.0
    while cumulant(low) >= 0:
        low /= 2
        if low < 1e-9:
            return 0.0
    while cumulant(high) <= 0:
        high *= 2
    return float(brentq(cumulant, low, high, xtol=1e-14, rtol=1e-13))


def moment_limit(curvatures: ArrayLike, order: float, batch_size: int, *, replacement: bool = True) -> float:
    """Learning rate at which E|e|^order ceases to shrink, E|1 − ηq̄|^ϑ = 1: there the tail has the exponent ϑ = order.

    The moment is a convex function of η for ϑ ≥ 1 and falls at η = 0, so that it returns to 1 once. ϑ = 2 is η_ms.
    order ϑ ≥ 1; other arguments and errors as in ``batch_means`` and ``mean_square_limit``, and ValueError for ϑ < 1.

    >>> moment_limit([0.0, 2.0], 2.0, batch_size=1)
    1.0
    """
    low = mean_square_limit(curvatures, batch_size, replacement=replacement)
    if not (1 <= order < np.inf and low > 0):
        raise ValueError(f"order={order}, with a limit of the mean square of {low}; use 1 <= order < ∞ and λ > 0")
    atoms, chances = batch_means(curvatures, batch_size, replacement=replacement)

    def cumulant(eta: float) -> float:
        log, p = _logs(atoms, chances, eta)
        return float(logsumexp(order * log, b=p))

    high = low
    while cumulant(high) <= 0:
        high *= 2
    while cumulant(low) >= 0:
        low /= 2
    return float(brentq(cumulant, low, high, xtol=1e-15, rtol=1e-14))


def _curvatures(curvatures: ArrayLike) -> Array:
    q = np.asarray(curvatures, dtype=float)
    if q.ndim != 1 or len(q) == 0 or not np.isfinite(q).all():
        raise ValueError(f"curvatures of shape {q.shape} are not those of n terms; use (n,) finite numbers, n >= 1")
    return q


def _moments(curvatures: ArrayLike, batch_size: int, replacement: bool) -> tuple[float, float]:
    """Mean λ and variance p s² of the curvature of a batch."""
    q = _curvatures(curvatures)
    return q.mean(), variance_factor(batch_size, None if replacement else len(q)) * q.var()


def _minimum(curvatures: ArrayLike, batch_size: int, replacement: bool) -> tuple[float, float]:
    """The same, where there is a minimum to be stable."""
    mean, variance = _moments(curvatures, batch_size, replacement)
    q = np.asarray(curvatures, dtype=float)
    if not q.any():
        raise ValueError(f"all {len(q)} curvatures are 0: nothing moves, and no learning rate is a limit")
    rounding = EQUAL * np.abs(q).max()
    if abs(mean) <= rounding and not variance > 0:
        raise ValueError(f"the batch is all {len(q)} terms, of mean curvature 0: nothing moves; use a smaller batch")
    if mean < -rounding:
        raise ValueError(f"curvatures have the mean {mean:.3g} < 0: there is no minimum; use terms of mean >= 0")
    return (mean if mean > rounding else np.float64(0.0)), variance


def _merged(parts: list[tuple[Array, Array]], rounding: float) -> tuple[Array, Array]:
    """One law out of several partial ones, sums that are equal up to rounding put together."""
    sums, chances = (np.concatenate(side) for side in zip(*parts, strict=True))
    order = np.argsort(sums)
    sums, chances = sums[order], chances[order]
    first = np.flatnonzero(np.diff(sums, prepend=-np.inf) > rounding)
    return sums[first], np.add.reduceat(chances, first)


def _logs(atoms: Array, chances: Array, lr: float) -> tuple[Array, Array]:
    """ln|1 − ηq̄| for each atom, −∞ where ηq̄ is 1 up to rounding."""
    factor = np.abs(1 - lr * atoms)
    with np.errstate(divide="ignore"):
        return np.log(np.where(factor > 1e-15, factor, 0.0)), chances
