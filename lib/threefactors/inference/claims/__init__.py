"""The claims that the book judges, each with the rule that judges it.

Everything here was fixed before any data were seen. A rule changed afterwards would be a new claim.
"""

from threefactors.inference.claim import Claim
from threefactors.inference.claims.breakdown import C7, C8, C11a, C11b, C11c, C11d
from threefactors.inference.claims.covariance import A2a, A2b, A2c, A2d, A2e, A2f
from threefactors.inference.claims.cycles import C9a, C9b, C9c, C9d, C9e
from threefactors.inference.claims.depth import D1a, D1b, D2a, D2b, D3a, D3b
from threefactors.inference.claims.dynamics import C1, T1, C2a, C2b, C2c
from threefactors.inference.claims.equation import E1, E2, E3, E5, E4a, E4b
from threefactors.inference.claims.interpolation import C5a, C5b, C6a, C6b
from threefactors.inference.claims.memorization import C10a, C10b, C10c, C10d, C10e
from threefactors.inference.claims.stationary import L1, L2, C13a, C13b, C13c, C13d, C13e, L1b, L2b
from threefactors.inference.claims.third_factor import C12a, C12b, C12c, C12d, C12e, C12f
from threefactors.inference.claims.three_factors import F2, F3, F4, F1a, F1b, F1c
from threefactors.inference.claims.which_minimum import C14a, C14b, C14c, C14d, C14e, C14f
from threefactors.inference.claims.width import C4, C3a, C3b, C3c

_ALL = (
    A2a, A2e, A2b, A2c, A2d, A2f, E1, E2, E3, E4a, E4b, E5, C13a, C13b, C13c, C13d, C13e, L1, L1b, L2, L2b,
    C12a, C12b, C12c, C12d, C12e, C12f, C14a, C14b, C14c, C14d, C14e, C14f, C3a, C3b, C3c, C4,
    D1a, D1b, D2a, D2b, D3a, D3b, C5a, C5b, C6a, C6b, C1, C2a, C2b, T1, C2c, C9a, C9b, C9c, C9d, C9e,
    C7, C8, C11a, C11b, C11c, C11d, C10a, C10b, C10c, C10d, C10e, F1a, F1b, F1c, F2, F3, F4,
)  # fmt: skip
CLAIMS: dict[str, Claim] = {claim.id: claim for claim in _ALL}

__all__ = [
    "C1",
    "C4",
    "C7",
    "C8",
    "CLAIMS",
    "E1",
    "E2",
    "E3",
    "E5",
    "F2",
    "F3",
    "F4",
    "L1",
    "L2",
    "T1",
    "A2a",
    "A2b",
    "A2c",
    "A2d",
    "A2e",
    "A2f",
    "C2a",
    "C2b",
    "C2c",
    "C3a",
    "C3b",
    "C3c",
    "C5a",
    "C5b",
    "C6a",
    "C6b",
    "C9a",
    "C9b",
    "C9c",
    "C9d",
    "C9e",
    "C10a",
    "C10b",
    "C10c",
    "C10d",
    "C10e",
    "C11a",
    "C11b",
    "C11c",
    "C11d",
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
    "D1a",
    "D1b",
    "D2a",
    "D2b",
    "D3a",
    "D3b",
    "E4a",
    "E4b",
    "F1a",
    "F1b",
    "F1c",
    "L1b",
    "L2b",
]
