"""Sums of quadratics to test with, and what enumeration of every batch says of them."""

from itertools import combinations, product

import numpy as np


def factors(n, r, m, seed=0, decay=0.0):
    """A (n, r, m): terms of unlike size, with directions of unlike curvature."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, r, m)) * np.arange(1, m + 1) ** -decay * rng.exponential(size=(n, 1, 1))


def matrices(A):
    return A.transpose(0, 2, 1) @ A


def indefinite(n, m, seed):
    """Terms of either sign whose mean is positive definite."""
    Q = np.random.default_rng(seed).standard_normal((n, m, m))
    Q = Q + Q.transpose(0, 2, 1)
    return Q + (0.4 - np.linalg.eigvalsh(Q.mean(0))[0]) * np.eye(m)


def batches(n, size, replacement):
    return list(product(range(n), repeat=size) if replacement else combinations(range(n), size))


def enumerated(Q, lr, batch_size, replacement, gradients=None):
    """E[(I − ηQ_B) ⊗ (I − ηQ_B)] over all batches B one by one, and E[ηg_B ⊗ ηg_B]."""
    n, m = Q.shape[:2]
    carried, kicks = np.zeros((m * m, m * m)), np.zeros(m * m)
    drawn = batches(n, batch_size, replacement)
    for batch in map(list, drawn):
        step = np.eye(m) - lr * Q[batch].mean(0)
        carried += np.kron(step, step) / len(drawn)
        if gradients is not None:
            kick = lr * gradients[batch].mean(0)
            kicks += np.kron(kick, kick) / len(drawn)
    return carried, kicks


def radius(matrix):
    return np.abs(np.linalg.eigvals(matrix)).max()


TERMS = {
    "rank 1": matrices(factors(4, 1, 3, seed=5)),
    "full rank": matrices(factors(4, 3, 2, seed=1)),
    "of either sign": indefinite(5, 3, seed=2),
    "one dimension": np.array([0.5, 2.0, 3.0, -0.1])[:, None, None],
}
SADDLE = np.array([np.diag([2.0, -0.1]), np.diag([1.0, -0.1])])
DRAWS = [(1, True), (2, True), (3, True), (1, False), (2, False), (3, False)]


def centered(n, m, seed=0):
    g = np.random.default_rng(seed).standard_normal((n, m))
    return g - g.mean(0)


def problems(count):
    """Random terms, of either sign or of low rank, a batch size, and a way to draw."""
    for seed in range(count):
        rng = np.random.default_rng(seed)
        n, m = int(rng.integers(2, 7)), int(rng.integers(1, 5))
        Q = indefinite(n, m, seed) if seed % 2 else matrices(factors(n, 1 + seed % 3, m, seed, decay=rng.uniform(0, 2)))
        yield Q, int(rng.integers(1, n + 1)), bool(rng.integers(2)), rng
