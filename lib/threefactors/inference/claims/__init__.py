"""The claims that the book judges, each with the rule that judges it.

Everything here was fixed before any data were seen. A rule changed afterwards would be a new claim.
"""

from threefactors.inference.claim import Claim
from threefactors.inference.claims.covariance import A2a, A2b, A2c, A2d, A2e, A2f
from threefactors.inference.claims.equation import E1, E2, E3, E5, E4a, E4b
from threefactors.inference.claims.stationary import L1, L2, C13a, C13b, C13c, C13d, C13e, L1b, L2b
from threefactors.inference.claims.third_factor import C12a, C12b, C12c, C12d, C12e, C12f
from threefactors.inference.claims.which_minimum import C14a, C14b, C14c, C14d, C14e, C14f
from threefactors.inference.claims.width import C4, C3a, C3b, C3c

_ALL = (
    A2a, A2e, A2b, A2c, A2d, A2f, E1, E2, E3, E4a, E4b, E5, C13a, C13b, C13c, C13d, C13e, L1, L1b, L2, L2b,
    C12a, C12b, C12c, C12d, C12e, C12f, C14a, C14b, C14c, C14d, C14e, C14f, C3a, C3b, C3c, C4,
)  # fmt: skip
CLAIMS: dict[str, Claim] = {claim.id: claim for claim in _ALL}

__all__ = [
    "C4",
    "CLAIMS",
    "E1",
    "E2",
    "E3",
    "E5",
    "L1",
    "L2",
    "A2a",
    "A2b",
    "A2c",
    "A2d",
    "A2e",
    "A2f",
    "C3a",
    "C3b",
    "C3c",
    "C12a",
    "C12b",
    "C12c",
    "C12d",
    "C12e",
    "C12f",
    "C13a",
    "C13b",
    "C13c",
    "C13d",
    "C13e",
    "C14a",
    "C14b",
    "C14c",
    "C14d",
    "C14e",
    "C14f",
    "E4a",
    "E4b",
    "L1b",
    "L2b",
]
