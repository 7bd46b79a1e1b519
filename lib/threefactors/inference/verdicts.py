"""The verdict on a claim: what the ledger holds and a reader sees."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from html import escape
from typing import Any

from threefactors.inference.decisions import REFUTED, SUPPORTED, UNDECIDED, VOID

# the published ledger is collected from outputs of this type in executed notebooks
VERDICT_MIME = "application/vnd.threefactors.verdict+json"


@dataclass(frozen=True)
class Verdict:
    """A claim judged on the runs of one experiment.

    ``verdict`` is SUPPORTED, REFUTED, UNDECIDED or VOID (a precondition failed, so there is nothing to
    decide). ``estimate`` and ``interval`` are those of the ``measure`` that decides, in the unit of the
    claim's statistic; None where they do not exist. ``confidence`` is the interval's level. ``n`` counts
    seeds; of all ``runs``, ``diverged``, ``unfinished`` and ``unmeasured`` ones were lost. ``p`` is for
    the direction in which the data point, ``p_adjusted`` after Holm's correction over the family.
    ``details`` holds estimate, interval and both p-values of every measure.
    """

    id: str
    statement: str
    source: str
    protocol: str
    arm: str
    verdict: str
    reason: str
    n: int
    runs: int
    diverged: int = 0
    unfinished: int = 0
    unmeasured: int = 0
    measure: str | None = None
    estimate: float | None = None
    interval: tuple[float, float] | None = None
    confidence: float | None = None
    p: float | None = None
    p_adjusted: float | None = None
    details: dict[str, dict[str, Any]] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        known = (SUPPORTED, REFUTED, UNDECIDED, VOID)
        if self.verdict not in known:
            raise ValueError(f"verdict={self.verdict!r} is unknown; use one of {', '.join(known)}")
        if self.interval is not None:
            object.__setattr__(self, "interval", tuple(self.interval))

    @property
    def lost(self) -> int:
        """Runs without a usable measurement."""
        return self.diverged + self.unfinished + self.unmeasured

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-able dictionary; whatever does not exist is None, never NaN."""
        interval = None if self.interval is None else list(self.interval)
        return asdict(self) | {"interval": interval, "lost": self.lost}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Verdict:
        """The verdict that ``to_dict`` wrote; other keys, such as provenance, are ignored."""
        return cls(**{name: data[name] for name in cls.__dataclass_fields__ if name in data})

    @property
    def where(self) -> str:
        """Protocol and arm."""
        return ", ".join(filter(None, [self.protocol, self.arm]))

    def __str__(self) -> str:
        return f"{self.id} ({self.where}): {self.verdict}. {self.reason}"

    def _repr_html_(self) -> str:
        lost = f"{self.diverged} diverged, {self.unfinished} unfinished, {self.unmeasured} unmeasured"
        rows = [
            ("Claim", self.statement),
            ("Source", self.source),
            ("Protocol", self.where),
            ("Reason", self.reason),
            ("Estimate", self._estimate()),
            ("p", self._p()),
            ("Data", f"{self.n} seeds, {self.runs} runs ({lost})"),
        ]
        body = "".join(f'<tr><th scope="row">{escape(k)}</th><td>{escape(v)}</td></tr>' for k, v in rows)
        return (
            f'<table class="tf-verdict tf-{self.verdict.lower()}"><caption>{_claim(self.id)}: '
            f"<strong>{self.verdict}</strong></caption><tbody>{body}</tbody></table>"
        )

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        return {"text/plain": str(self), "text/html": self._repr_html_(), VERDICT_MIME: self.to_dict()}

    def _estimate(self) -> str:
        if self.estimate is None:
            return "none"
        if self.interval is None or self.confidence is None:
            return f"{self.estimate:.3g} ({self.measure}), no bounded interval"
        low, high = self.interval
        limits = f"{100 * self.confidence:g} % interval {low:.3g} to {high:.3g}"
        return f"{self.estimate:.3g} ({self.measure}), {limits}"

    def _p(self) -> str:
        if self.p is None or self.p_adjusted is None:
            return "none"
        return f"{self.p:.2g}" + (f", adjusted {self.p_adjusted:.2g}" if self.p_adjusted != self.p else "")


class Verdicts(list[Verdict]):
    """The verdicts of a family: a list that a notebook shows as one table."""

    def _repr_html_(self) -> str:
        head = "".join(
            f'<th scope="col">{name}</th>' for name in ("Claim", "Protocol", "Verdict", "Estimate", "Reason")
        )
        body = "".join(
            f'<tr class="tf-{v.verdict.lower()}"><th scope="row">{_claim(v.id)}</th>'
            f"<td>{escape(v.where)}</td><td><strong>{v.verdict}</strong></td>"
            f"<td>{escape(v._estimate())}</td><td>{escape(v.reason)}</td></tr>"
            for v in self
        )
        return (
            '<table class="tf-verdicts"><caption>Verdicts</caption>'
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        )

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        plain = "\n".join(str(verdict) for verdict in self)
        return {
            "text/plain": plain,
            "text/html": self._repr_html_(),
            VERDICT_MIME: [verdict.to_dict() for verdict in self],
        }


def _claim(name: str) -> str:
    """HTML of a claim's name. The site turns it into a link to the ledger; elsewhere there is none to link to."""
    return f'<span class="tf-claim">{escape(name)}</span>'
