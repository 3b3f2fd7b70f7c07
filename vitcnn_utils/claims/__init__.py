"""What the paper claims, beside what these models show: verdicts computed from the arrays of the figures."""

import html
import re
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


def decide(difference: float, margin: float) -> bool | None:
    """Whether a difference is above zero: None within `margin` of it, or where it could not be computed (NaN)."""
    if not abs(difference) > margin:
        return None
    return bool(difference > 0)


@dataclass(frozen=True)
class ClaimTable:
    """Claims as a table for a notebook."""

    claims: tuple[Claim, ...]

    def _repr_html_(self) -> str:
        heads = ("The paper", "Measured here", "Control", "Rule", "Verdict")
        rows = [(c.paper, c.measured, c.control or "–", c.test, c.verdict) for c in self.claims]
        return _html_table("vitcnn-claims", heads, rows)

    def __repr__(self) -> str:
        return "\n".join(f"[{c.verdict}] {c.paper} — {c.measured} ({c.test})" for c in self.claims)


def table(claims: Sequence[Claim]) -> ClaimTable:
    """The claims as a table that a notebook shows."""
    return ClaimTable(tuple(claims))


def _cell(text: str) -> str:
    """HTML with a true minus sign before numbers, and a space that does not break before a percent sign."""
    return re.sub(r"(?<=\d) ?%", "\N{NO-BREAK SPACE}%", re.sub(r"(?<![\w-])-(?=\d)", "−", html.escape(text)))


def _html_table(css_class: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table that scrolls sideways within itself on a narrow screen."""
    body = "".join("<tr>" + "".join(f"<td>{_cell(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in heads)
    return (
        f'<div class="{css_class}" style="overflow-x:auto" tabindex="0"><table class="table">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )
