"""Claims as a notebook and the book show them: a card each, the verdict first."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vitcnn_utils.claims.ledger import CANNOT, CLOSE, FAILS, HOLDS, HOLDS_TOO, Claim, Estimate, Part
from vitcnn_utils.provenance import words

MIME = "application/vnd.vitcnn.claims+json"
"""Under this type an executed notebook carries its claims as data, for the ledger."""

SCHEMA = 2
"""The version of book/_extra/claims.schema.json."""

# A verdict is told by word, by shape and by colour; colours as in the figures, readable on light and on dark.
SHAPES = {HOLDS: "●", HOLDS_TOO: "◐", FAILS: "✕", CLOSE: "≈", CANNOT: "–"}
COLOURS = {HOLDS: "#1d9a6c", HOLDS_TOO: "#2f7fc1", FAILS: "#d2691e", CLOSE: "#a866b8", CANNOT: "#808080"}

WIDTH, HEIGHT, PAD = 260, 34, 8
"""Of the small picture, in pixels."""


@dataclass(frozen=True)
class Cards:
    """What a notebook shows of some claims: cards in a page, lines in a terminal, and the claims as data."""

    claims: tuple[Claim, ...]

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        data = {"schema": SCHEMA, "claims": [claim.as_json() for claim in self.claims]}
        return {"text/html": self._repr_html_(), "text/plain": repr(self), MIME: data}

    def _repr_html_(self) -> str:
        return f'<div class="vitcnn-claims">{"".join(map(_card, self.claims))}</div>'

    def __repr__(self) -> str:
        return "\n".join(_line(claim) for claim in self.claims)


def table(claims: Sequence[Claim]) -> Cards:
    """The claims as cards that a notebook shows."""
    return Cards(tuple(claims))


def _line(claim: Claim) -> str:
    numbers = "; ".join(f"{part.statistic} {_numbers(part, claim)} ({part.side} {part.words(part.threshold)})"
                        for part in claim.parts)  # fmt: skip
    return f"[{_verdict_words(claim, claim.verdict)}] {_sentence(claim)} {claim.reason or numbers}".strip()


def _sentence(claim: Claim) -> str:
    return claim.paper + (f" ({claim.of})" if claim.of else "")


def _verdict_words(claim: Claim, verdict: str) -> str:
    return verdict.replace("untrained", claim.control)


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]


def _card(claim: Claim) -> str:
    verdict, colour = claim.verdict, COLOURS[claim.verdict]
    reason = f'<p class="reason">{html.escape(claim.reason)}</p>' if claim.reason else ""
    # Outside the book there is no style sheet: what a card cannot do without stands in it.
    return (
        f'<article class="vitcnn-claim" data-verdict="{verdict}" id="claim-{html.escape(claim.id, quote=True)}" '
        f'style="border-left:4px solid {colour};padding:0 0 0 .8em;margin:1em 0">'
        f'<p class="verdict" style="margin:0">{symbol(verdict)} '
        f"<strong>{html.escape(_capital(_verdict_words(claim, verdict)))}</strong> "
        f'<span class="place">{html.escape(claim.place)}</span></p>'
        f'<p style="margin:.2em 0">{html.escape(_sentence(claim))}</p>{reason}'
        f"{''.join(_part(claim, part) for part in claim.parts if not claim.missing)}{_details(claim)}"
        f"<!--see {html.escape(claim.id)}--></article>"  # the book puts a link there
    )


def symbol(verdict: str) -> str:
    """HTML: the mark of a verdict."""
    return f'<span class="shape" aria-hidden="true" style="color:{COLOURS[verdict]}">{SHAPES[verdict]}</span>'


def _part(claim: Claim, part: Part) -> str:
    verdict = claim.verdict_of(part)
    shape = ""
    if len(claim.parts) > 1:
        shape = f'{symbol(verdict)}<span class="word"> {html.escape(_verdict_words(claim, verdict))}: </span>'
    return (
        f'<div class="part" style="margin:.4em 0">{shape}{html.escape(part.statistic)} '
        f"<strong>{html.escape(part.words(part.estimate.value))}</strong> "
        f"<small>{html.escape(_around(part, claim))}</small>{_picture(part, claim)}</div>"
    )


def _numbers(part: Part, claim: Claim) -> str:
    return f"{part.words(part.estimate.value)} {_around(part, claim)}"


def _around(part: Part, claim: Claim) -> str:
    """The interval, the control and the second training, in words."""
    others = {claim.control: part.control, claim.second: part.again}
    told = [f"{name}: {part.words(e.value)}{_interval(part, e, ' ')}" for name, e in others.items() if e is not None]
    over = part.estimate.over
    own = f"{_interval(part, part.estimate) or 'no interval'}{f' ({over})' * bool(over)}"
    return "; ".join([own, *told, *(["no control"] if part.control is None else [])])


def _interval(part: Part, estimate: Estimate, before: str = "") -> str:
    if estimate.interval is None or not all(map(math.isfinite, (estimate.value, *estimate.interval))):
        return ""
    low, high = (part.words(end).removesuffix(part.unit).strip() for end in estimate.interval)
    return f"{before}[{low}, {high}]"


def _details(claim: Claim) -> str:
    together = ""
    if len(claim.parts) > 1:
        together = {"all": " All must hold.", "agree": " They measure one thing and must agree."}[claim.together]
    rules = "".join(f"<li>{html.escape(part.rule)} ({html.escape(part.whose)}). {html.escape(part.why)}</li>"
                    for part in claim.parts)  # fmt: skip
    rest = {"Control": _control(claim), "When it misleads": claim.caveat, "Also": claim.note,
            "Made of": words(claim.made_of)}  # fmt: skip
    lines = "".join(f"<p><em>{name}:</em> {html.escape(text)}</p>" for name, text in rest.items() if text)
    return f"<details><summary>Rule and caveat</summary><p>The rule:{together}</p><ul>{rules}</ul>{lines}</details>"


def _control(claim: Claim) -> str:
    return claim.control if any(part.control for part in claim.parts) else claim.uncontrolled


def _picture(part: Part, claim: Claim) -> str:
    """Dot and interval of the estimate, below it those of the control and the second training; a line at the threshold.

    The side on which the claim holds is shaded.
    """
    rows = [(part.estimate, "dot"), (part.control, "ring"), (part.again, "square")]
    shown = [(e, shape) for e, shape in rows if e is not None and abs(e.value) < float("inf")]
    if not shown or shown[0][0] is not part.estimate:
        return ""
    ends = [x for e, _ in shown for x in (e.value, *(e.interval or ())) if abs(x) < float("inf")] + [part.threshold]
    low, high = min(ends), max(ends)
    span = (high - low) or abs(low) or 1.0

    def at(value: float) -> float:
        return round(PAD + (WIDTH - 2 * PAD) * (0.05 + 0.9 * (value - low) / span), 1)

    line = at(part.threshold)
    left, right = (line, WIDTH) if part.side == "above" else (0, line)
    marks = "".join(_mark(e, shape, at, 8 + 9 * row, COLOURS[claim.verdict_of(part)])
                    for row, (e, shape) in enumerate(shown))  # fmt: skip
    label = html.escape(f"{part.statistic}: {_numbers(part, claim)}; {part.rule}", quote=True)
    return (
        f'<svg role="img" aria-label="{label}" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'style="display:block;max-width:100%"><rect x="{left}" y="0" width="{right - left:g}" height="{HEIGHT}" '
        f'fill="currentColor" opacity="0.08"/><line x1="{line}" x2="{line}" y1="0" y2="{HEIGHT}" '
        f'stroke="currentColor" stroke-dasharray="3 2"/>{marks}</svg>'
    )


def _mark(estimate: Estimate, shape: str, at: Any, y: int, colour: str) -> str:
    x = at(estimate.value)
    stroke = colour if shape == "dot" else "currentColor"
    whisker = ""
    if estimate.interval is not None and all(map(math.isfinite, estimate.interval)):
        low, high = map(at, estimate.interval)
        whisker = f'<line x1="{low}" x2="{high}" y1="{y}" y2="{y}" stroke="{stroke}" stroke-width="2"/>'
    marks = {
        "dot": f'<circle cx="{x}" cy="{y}" r="4" fill="{colour}"/>',
        "ring": f'<circle cx="{x}" cy="{y}" r="3.5" fill="none" stroke="currentColor" stroke-width="1.5"/>',
        "square": f'<rect x="{x - 3:g}" y="{y - 3}" width="6" height="6" fill="none" stroke="currentColor" '
        'stroke-width="1.5"/>',
    }
    return whisker + marks[shape]
