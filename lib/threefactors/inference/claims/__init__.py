"""The claims that the book judges, each with the rule that judges it.

Everything here was fixed before any data were seen. A rule changed afterwards would be a new claim.
"""

from threefactors.inference.claim import Claim
from threefactors.inference.claims.width import C4, C3a, C3b, C3c

CLAIMS: dict[str, Claim] = {claim.id: claim for claim in (C3a, C3b, C3c, C4)}

__all__ = ["C4", "CLAIMS", "C3a", "C3b", "C3c"]
