"""What the paper claims, beside what these models show: verdicts computed from the arrays of the figures."""

import html
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Claim:
    """One claim of the paper and what was measured for it.

    paper: the claim, in a sentence. measured: the numbers here, with units. holds: the verdict, None where these
    models or images cannot decide it. control: the same numbers of a control (untrained twin, second seed).
    test: the rule behind the verdict; the thresholds are this project's, the paper gives none.
    """

    paper: str
    measured: str
    holds: bool | None
    test: str
    control: str = ""

    @property
    def verdict(self) -> str:
        return {True: "holds here", False: "does not hold here", None: "undecided here"}[self.holds]


@dataclass(frozen=True)
class ClaimTable:
    """Claims as a table for a notebook."""

    claims: tuple[Claim, ...]

    def _repr_html_(self) -> str:
        heads = ("The paper", "Measured here", "Control", "Rule", "Verdict")
        rows = [(c.paper, c.measured, c.control or "–", c.test, c.verdict) for c in self.claims]
        body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
        head = "".join(f'<th scope="col">{name}</th>' for name in heads)
        return (
            '<div class="vitcnn-claims" style="overflow-x:auto" tabindex="0"><table class="table">'
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        )

    def __repr__(self) -> str:
        return "\n".join(f"[{c.verdict}] {c.paper} — {c.measured} ({c.test})" for c in self.claims)


def table(claims: Sequence[Claim]) -> ClaimTable:
    """The claims as a table that a notebook shows."""
    return ClaimTable(tuple(claims))
