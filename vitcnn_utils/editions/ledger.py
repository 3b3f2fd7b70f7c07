"""The claims of editions that have been run, read from their executed notebooks: for machines, and for the ledger."""

import html
import json
import re
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from vitcnn_utils.claims.cards import COLOURS, MIME, SCHEMA, SHAPES
from vitcnn_utils.claims.ledger import VERDICTS, figure_name
from vitcnn_utils.claims.views import view_of
from vitcnn_utils.editions.chapters import executed_folder, find_root, place_in_book, sources
from vitcnn_utils.editions.parameters import read_edition
from vitcnn_utils.errors import VitcnnError

Row = dict[str, Any]


def claims_in(notebook: dict[str, Any], edition: str, page: str) -> list[Row]:
    """The claims that an executed notebook (nbformat's JSON) carries, in its order.

    Each is `Claim.as_json`, with `edition`, and `page`, the place of its card in the book.
    """
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", [])]
    found = [claim for output in outputs for claim in output.get("data", {}).get(MIME, {}).get("claims", [])]
    return [{"edition": edition, "page": f"{page}#claim-{claim['id']}", **claim} for claim in found]


def complete_cards(notebook: dict[str, Any], rows: Sequence[Row], explorers: Collection[str]) -> None:
    """Write into the card of each claim of a page how its verdict changes, and link it to the explorer that shows it.

    The link is also put into the claim's row, as `see` and `look`. explorers: the names of those on the page; a claim
    whose explorer is not among them gets no link.
    """
    links = {}
    for row in rows:
        view = view_of(row["id"])
        if view and view.explorer in explorers:
            row |= {"see": row["page"].partition("#")[0] + view.address, "look": view.look}
            links[html.escape(row["id"])] = f'<p class="see">{_see(view.address, view.look)}</p>'
        if "changes" in row:
            card = html.escape(row["id"])
            links[card] = f'<p class="changes">{_changes(row)}</p>{links.get(card, "")}'
    for output in (output for cell in notebook["cells"] for output in cell.get("outputs", [])):
        if "text/html" in output.get("data", {}):
            shown = "".join(output["data"]["text/html"])
            output["data"]["text/html"] = re.sub("<!--see (.*?)-->", lambda mark: links.get(mark[1], ""), shown)


def _changes(row: Row) -> str:
    said = "; ".join(f"{name}: {verdict}" for name, verdict in row["changes"].items())
    return f"<strong>Changes from run to run.</strong> {html.escape(said)}"


def _see(address: str, look: str) -> str:
    return f'<a href="{html.escape(address, quote=True)}">See it: {html.escape(look)}</a>'


def page_in_book(executed: Path) -> str:
    """The page of an executed notebook in the book."""
    return place_in_book(executed).removesuffix(".ipynb") + ".html"


def edition_claims(edition: str, root: Path | None = None, where: str = "executed") -> dict[str, Any]:
    """All claims of an edition as plain data: schema, edition, claims; VitcnnError where it has not been run.

    where: see `run_editions`.
    """
    root = root or find_root()
    read_edition(root, edition)  # an unknown edition ends here
    paths = [executed_folder(root, edition, where) / source.name for source in sources(root)]
    if missing := [path.stem for path in paths if not path.exists()]:
        raise VitcnnError(
            f"edition {edition} has not been run whole ({', '.join(missing)}): run `vitcnn run {edition}`"
        )
    rows = [
        row
        for path in paths
        for row in claims_in(json.loads(path.read_text(encoding="utf-8")), edition, page_in_book(path))
    ]
    return {"schema": SCHEMA, "edition": edition, "claims": rows}


def counts(rows: Sequence[Row]) -> str:
    """HTML: how many claims got which verdict, in one line."""
    found = Counter(row["verdict"] for row in rows)
    said = [f"{_shape(verdict)} {found[verdict]} {html.escape(verdict)}" for verdict in VERDICTS if found[verdict]]
    return f'<p class="vitcnn-counts">{len(rows)} claims: {" · ".join(said)}</p>' if rows else ""


def small_map(rows: Sequence[Row]) -> str:
    """HTML: a mark for each claim, by figure; each leads to its card."""
    by_figure: dict[str, list[Row]] = {}
    for row in rows:
        by_figure.setdefault(row["figure"], []).append(row)
    cells = "".join(
        f'<li><span class="figure">{html.escape(figure_name(figure))}</span> {"".join(map(_mark, of))}</li>'
        for figure, of in by_figure.items()
    )
    return f'<ul class="vitcnn-map">{cells}</ul>'


def _mark(row: Row) -> str:
    words = html.escape(f"{row['verdict']}: {row['paper']}", quote=True)
    link = html.escape(row["page"], quote=True)
    return f'<a href="{link}" title="{words}" aria-label="{words}">{_shape(row["verdict"])}</a>'


def table(rows: Sequence[Row]) -> str:
    """HTML: a row a claim, the verdict first; the script of the page sorts and filters it."""
    head = "".join(f'<th scope="col">{name}</th>' for name in ("Verdict", "Figure", "Claim", "Here"))
    several = len({row["edition"] for row in rows}) > 1
    body = "".join(_row(row, several) for row in rows)
    return f'<table class="table vitcnn-ledger"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _row(row: Row, with_edition: bool) -> str:
    of = f" ({html.escape(row['of'])})" if row["of"] else ""
    edition = f'<span class="edition">{html.escape(row["edition"])}</span> ' if with_edition else ""
    numbers = "; ".join(f"{part['statistic']} {_number(part)}" for part in row["parts"]) or row["reason"]
    see = f' <small class="see">{_see(row["see"], row["look"])}</small>' if "see" in row else ""
    changes = f'<small class="changes">{_changes(row)}</small>' if "changes" in row else ""
    verdict, figure, page = (html.escape(row[name], quote=True) for name in ("verdict", "figure", "page"))
    return (
        f'<tr data-verdict="{verdict}" data-figure="{figure}"><th scope="row">{_shape(row["verdict"])} {verdict}</th>'
        f'<td>{figure}</td><td>{edition}<a href="{page}">{html.escape(row["paper"])}</a>{of}{see}</td>'
        f"<td>{html.escape(numbers)} {changes}</td></tr>"
    )


def _number(part: Row) -> str:
    value, interval = part["estimate"]["value"], part["estimate"]["interval"]
    if value is None:
        return "not defined"
    around = "" if not interval or None in interval else f" [{interval[0]:.3g}, {interval[1]:.3g}]"
    return f"{value:.3g} {part['unit']}".strip() + around


def _shape(verdict: str) -> str:
    return f'<span class="shape" aria-hidden="true" style="color:{COLOURS[verdict]}">{SHAPES[verdict]}</span>'
