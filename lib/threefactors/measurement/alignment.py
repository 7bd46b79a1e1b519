"""How two curvature matrices lie to one another: inner products, angles, shared eigenspaces; and the Fisher matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from threefactors._types import Estimate, Losses
from threefactors.measurement.draws import check_generators, rademacher
from threefactors.measurement.krylov import orthogonalize
from threefactors.measurement.lanczos import Eigenpairs
from threefactors.measurement.operators import CHUNK, Product, StackOperator, evaluate, pushforward, stack_operator, vjp


def fisher(losses: Losses, theta: Tensor, x: Tensor, *, classes: int, chunk: int = CHUNK) -> StackOperator:
    """Fisher information of a classifier: F = (1/B) Σ_i Σ_c p_ic g_ic g_icᵀ with g_ic = −∇ ln p_ic.

    The labels c are the model's own: the mean over them is taken exactly, class by class, and not by drawing. Equal to
    the Gauss–Newton matrix for cross-entropy, but computed from first derivatives alone.

    theta (R, P), x (R, B, ...), classes K. Raises ValueError where the shapes do not fit, or where e^−loss is no
    probability over the K labels, as for squared loss.
    Source: Martens, arXiv 1412.1193, §5 and §9.
    """
    z = torch.linspace(-1, 1, classes, dtype=theta.dtype, device=theta.device).view(1, 1, -1)
    total = float(sum((-losses.criterion(z, torch.full((1, 1), c, device=z.device))).exp() for c in range(classes)))
    if abs(total - 1) > 1e-4:
        raise ValueError(f"e^-loss sums to {total:.4g} over {classes} labels; use a log loss, such as cross-entropy")

    def linearize(theta: Tensor, x: Tensor, y: Tensor) -> Product:
        def every_label(t: Tensor) -> Tensor:
            outputs = losses.outputs(t, x)
            return torch.stack([losses.criterion(outputs, torch.full_like(y, c)) for c in range(classes)], dim=-1)

        at, each = evaluate(every_label, theta)  # (r, B, K)
        jvp, weights = pushforward(each, at), (-each.detach()).exp() / each.shape[1]
        return lambda v: vjp(each, at, weights * jvp(v))

    unused = torch.zeros(1, 1, dtype=torch.int64, device=theta.device).expand(*x.shape[:2])
    return stack_operator(linearize, theta, x, unused, chunk)


def subspace_overlap(a: Eigenpairs, b: Eigenpairs) -> Tensor:
    """Overlap of two leading eigenspaces of each run: ‖UᵀV‖_F²/k (R,), in [0, 1].

    The mean squared cosine of the principal angles: 1 for equal spaces, 0 for orthogonal ones, and k/P on average for a
    random pair. It says little where the k-th eigenvalue has no gap to the next.
    a, b: k eigenvectors each (R, P, k). Raises ValueError without vectors, or for unequal shapes.
    """
    U, V = _vectors(a), _vectors(b)
    if U.shape != V.shape:
        raise ValueError(
            f"eigenvectors of shapes {tuple(U.shape)} and {tuple(V.shape)}; use the same k for the same runs"
        )
    return (U.mT.double() @ V.double()).square().sum((1, 2)) / U.shape[2]


def rayleigh(op: StackOperator, pairs: Eigenpairs) -> Tensor:
    """Rayleigh quotients vᵀA v (R, k) of a matrix in the eigenvectors of another."""
    vectors = _vectors(pairs)
    return ((op @ vectors) * vectors).sum(1, dtype=torch.float64)


def common_basis(*pairs: Eigenpairs) -> Tensor:
    """Orthonormal basis (R, P, m) of all the given eigenvectors together."""
    return torch.stack([torch.linalg.qr(one)[0] for one in torch.cat([_vectors(p) for p in pairs], dim=2)])


@dataclass(frozen=True)
class Gram:
    """Inner products ⟨A, B⟩ = Tr(AB) among M symmetric matrices, for each run; a and b are their places in the list.

    exact (R, M, M) is the part on the basis, samples (R, n, M, M) are n estimates of the rest. Standard errors of the
    quotients are by the delta method. Source: Hutchinson 1990 (doi:10.1080/03610919008812866) with deflation.
    """

    exact: Tensor
    samples: Tensor

    @property
    def value(self) -> Tensor:
        """(R, M, M)."""
        return self.exact + torch.stack([one.mean(0) for one in self.samples])

    def inner(self, a: int, b: int) -> Estimate:
        """Tr(AB)."""
        return self._estimate(self.value[:, a, b], self.samples[:, :, a, b])

    def cosine(self, a: int, b: int) -> Estimate:
        """⟨A, B⟩/(‖A‖_F ‖B‖_F): 1 exactly where A is a multiple of B."""
        g = self.value
        cosine = g[:, a, b] / (g[:, a, a] * g[:, b, b]).sqrt()
        # d ln cos = d ln g_ab − ½ d ln g_aa − ½ d ln g_bb
        change = self._relative(a, b) - self._relative(a, a) / 2 - self._relative(b, b) / 2
        return self._estimate(cosine, cosine[:, None] * change)

    def scale(self, a: int, b: int) -> Estimate:
        """⟨A, B⟩/‖B‖_F², the c with which cB is nearest to A."""
        scale = self.value[:, a, b] / self.value[:, b, b]
        return self._estimate(scale, scale[:, None] * (self._relative(a, b) - self._relative(b, b)))

    def _relative(self, a: int, b: int) -> Tensor:
        return self.samples[:, :, a, b] / self.value[:, None, a, b]

    def _estimate(self, value: Tensor, samples: Tensor) -> Estimate:
        # run by run: a reduction over a stack may round by its size
        n = samples.shape[1]
        return Estimate(value, torch.stack([one.std() for one in samples.clone()]) / math.sqrt(n), n)


def gram(ops: Sequence[StackOperator], basis: Tensor, *, probes: int, generators: Sequence[torch.Generator]) -> Gram:
    """Inner products of several matrices of each run, by products with the same vectors.

        Tr(AB) = Σ_j ⟨A q_j, B q_j⟩ + E⟨A u, B u⟩,   u = (I − QQᵀ) v, v of random signs.

    Unbiased whatever the basis is; the closer it comes to the leading eigenvectors, the smaller the error.

    ops         M operators of equal shape (R, P)
    basis       Q (R, P, m), orthonormal columns (`common_basis`)
    probes      vectors v for each run, at least 2
    generators  one per run

    Raises ValueError for operators of unequal shapes, a basis that does not fit, or probes < 2.
    """
    shapes = {op.shape for op in ops}
    if len(shapes) != 1 or tuple(basis.shape[:2]) not in shapes:
        raise ValueError(f"operators of shapes {sorted(shapes)} and a basis {tuple(basis.shape)}; use one (R, P)")
    R = ops[0].shape[0]
    check_generators(generators, R)
    if probes < 2:
        raise ValueError(f"probes={probes} gives no standard error; use probes >= 2")
    exact, samples = [], []
    for i in range(R):  # a run at a time: nothing depends on the neighbors
        own = [op.rows(torch.tensor([i])) for op in ops]
        signs = [rademacher(own[0], [generators[i]])[0] for _ in range(probes)]
        rest = torch.stack([orthogonalize(v, basis[i].T.contiguous())[0] for v in signs], dim=-1)
        images = torch.stack([(op @ torch.cat([basis[i], rest], dim=-1)[None])[0] for op in own]).double()
        products = torch.einsum("apv,bpv->vab", images, images)
        exact.append(products[: basis.shape[2]].sum(0))
        samples.append(products[basis.shape[2] :])
    return Gram(torch.stack(exact).cpu(), torch.stack(samples).cpu())


def _vectors(pairs: Eigenpairs) -> Tensor:
    if pairs.vectors is None:
        raise ValueError("these eigenpairs hold no vectors; compute them with vectors=True")
    return pairs.vectors
