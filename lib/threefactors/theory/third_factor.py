"""Ways to change the third factor alone: the gradient covariance C, at fixed learning rate and batch size.

C is S times the covariance of the batch gradient, so that HΣ + ΣH − ηHΣH = (η/S) C keeps its form under every
change: plain sampling, labels drawn anew, added noise, importance weights, pairs. Each function gives C in closed
form from the gradients of single examples; g = ⟨gᵢ⟩ is the gradient of the objective.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def example_noise(gradients: ArrayLike) -> Array:
    """C (P, P) of plain sampling with replacement: C = ⟨gᵢgᵢᵀ⟩ − ggᵀ.

    gradients (N, P), one row for each example, at one θ. Errors: ValueError for anything that is no finite matrix.
    Source: arXiv 1711.04623, the covariance in its stochastic differential equation.

    >>> example_noise([[1.0], [3.0]])
    array([[1.]])
    """
    g = _examples(gradients, 2)
    centered = g - g.mean(0)
    covariance: Array = centered.T @ centered / len(g)
    return covariance


def relabeled_noise(gradients: ArrayLike, probabilities: ArrayLike, label_draws: int = 1) -> Array:
    """C (P, P) where each drawn example gets labels anew: C = Covᵢ(ḡᵢ) + ⟨Vᵢ⟩/m (law of total variance).

    gradients gᵢ(y) (N, K, P), for each example and label; probabilities (N, K) or (K,) of the labels;
    label_draws m, labels over which the gradient of one drawn example is averaged. ḡᵢ and Vᵢ are the mean and the
    covariance of gᵢ(y) over the labels: m does not move the objective, whose gradient is ⟨ḡᵢ⟩.
    Errors: ValueError for probabilities that are negative or do not sum to 1, or label_draws < 1.
    Source: proved in the chapter on the third factor.

    >>> relabeled_noise([[[-1.0], [1.0]]], [0.5, 0.5], label_draws=4)
    array([[0.25]])
    """
    g = _examples(gradients, 3)
    q = np.broadcast_to(np.asarray(probabilities, float), g.shape[:2])
    _distribution(q, "probabilities of the labels")
    if label_draws < 1:
        raise ValueError(f"label_draws={label_draws} is no average; use label_draws >= 1")
    mean = np.einsum("nk,nkp->np", q, g)
    off = g - mean[:, None, :]
    within = np.einsum("nk,nki,nkj->ij", q, off, off) / len(g)
    covariance: Array = example_noise(mean) + within / label_draws
    return covariance


def added_noise(noise: ArrayLike, added: ArrayLike, batch_size: int) -> Array:
    """C (P, P) where noise of covariance D, independent of the batch, is added to its gradient: C + S D.

    noise C (P, P) without it; added D (P, P), such as σ²I, H or C/S; batch_size S. The factor S: D is the noise of a
    whole step, C that of one example. Errors: ValueError for unequal shapes, negative D, or batch_size < 1.

    >>> added_noise([[2.0]], [[0.5]], batch_size=8)
    array([[6.]])
    """
    C, D = np.asarray(noise, float), np.asarray(added, float)
    if C.shape != D.shape:
        raise ValueError(f"noise has shape {C.shape}, added {D.shape}; use equal shapes")
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size} is no batch; use batch_size >= 1")
    if not np.allclose(D, D.T) or np.linalg.eigvalsh(D)[0] < -1e-9 * max(1.0, float(np.abs(D).max())):
        raise ValueError("added is not symmetric positive semidefinite; a covariance is")
    return C + batch_size * D


def importance_noise(gradients: ArrayLike, probabilities: ArrayLike) -> Array:
    """C (P, P) where example i is drawn with probability qᵢ and weighted 1/(N qᵢ): C = Σᵢ gᵢgᵢᵀ/(N² qᵢ) − ggᵀ.

    gradients (N, P); probabilities q (N,), all > 0, of sum 1. The weights keep the mean: Σ qᵢ gᵢ/(N qᵢ) = g.
    Errors: ValueError for probabilities that are not > 0 or do not sum to 1.

    >>> importance_noise([[1.0], [3.0]], [0.25, 0.75])
    array([[0.]])
    """
    g, q = _examples(gradients, 2), np.asarray(probabilities, float)
    _distribution(q, "probabilities of the examples")
    if q.shape != (len(g),) or not (q > 0).all():
        raise ValueError(f"probabilities of shape {q.shape} with minimum {q.min():.3g}; use {len(g)} numbers > 0")
    mean = g.mean(0)
    covariance: Array = (g / q[:, None]).T @ g / len(g) ** 2 - np.outer(mean, mean)
    return covariance


def quietest_probabilities(gradients: ArrayLike, power: float = 1.0) -> Array:
    """qᵢ ∝ ‖gᵢ‖^power (N,); power 1 gives the smallest Tr C of all importance weights, (⟨‖gᵢ‖⟩)² − ‖g‖².

    gradients (N, P), none of them 0. Power 0 is plain sampling, a negative power raises the noise.
    Errors: ValueError for a gradient of 0, which has no finite weight.
    Source: Cauchy–Schwarz, (Σ‖gᵢ‖)² ≤ Σ‖gᵢ‖²/qᵢ · Σqᵢ; Zhao & Zhang, arXiv 1401.2753.

    >>> quietest_probabilities([[1.0], [-3.0]])
    array([0.25, 0.75])
    """
    norms = np.linalg.norm(_examples(gradients, 2), axis=1)
    if not (norms > 0).all():
        raise ValueError(f"gradient {int(np.argmin(norms))} is 0 and would never be drawn; use powers of norms > 0")
    q: Array = norms**power
    return q / q.sum()


def paired_noise(gradients: ArrayLike, partner: ArrayLike) -> Array:
    """C (P, P) where a batch is S/2 pairs (i, π(i)), i drawn uniformly: C = C₀ + (A + Aᵀ)/2, A = Cov(gᵢ, g_π(i)).

    gradients (N, P); partner π (N,), a permutation of the examples: then the partners are uniform too and the mean
    is kept. C₀ is plain sampling. 0 ⪯ C ⪯ 2C₀: opposite partners cancel, equal ones (π(i) = i) halve the batch.
    Errors: ValueError for a partner that is no permutation.

    >>> paired_noise([[1.0], [-1.0]], [1, 0])
    array([[0.]])
    """
    g, pi = _examples(gradients, 2), np.asarray(partner)
    if not np.array_equal(np.sort(pi), np.arange(len(g))):
        raise ValueError(f"partner is no permutation of 0 … {len(g) - 1}; each example must be a partner once")
    # a pair is one draw of (gᵢ + g_π(i))/2, and there are S/2 of them
    return 2 * example_noise((g + g[pi]) / 2)


def opposite_partners(gradients: ArrayLike) -> NDArray[np.int64]:
    """The permutation π (N,) of smallest Tr C among all pairings: it minimizes Σ gᵢ·g_π(i), an assignment problem.

    gradients (N, P). Source: Tr C = Tr C₀ + ⟨gᵢ·g_π(i)⟩ − ‖g‖²; solved by SciPy's Hungarian method.

    >>> opposite_partners([[1.0], [-1.0], [2.0], [-2.0]])
    array([1, 0, 3, 2])
    """
    from scipy.optimize import linear_sum_assignment

    g = _examples(gradients, 2)
    partner: NDArray[np.int64] = linear_sum_assignment(g @ g.T)[1]
    return partner


def _examples(gradients: ArrayLike, axes: int) -> Array:
    g = np.asarray(gradients, float)
    if g.ndim != axes or g.size == 0 or not np.isfinite(g).all():
        raise ValueError(f"gradients of shape {g.shape}: use finite numbers in {axes} axes, examples first")
    return g


def _distribution(q: Array, what: str) -> None:
    if not ((q >= 0).all() and np.allclose(q.sum(-1), 1)):
        raise ValueError(f"{what} run from {q.min():.3g} and sum to {q.sum(-1).flat[0]:.3g}; use numbers >= 0 of sum 1")
