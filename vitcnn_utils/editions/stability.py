"""Whether an edition's verdicts stay when it sees other images, or has another training in the place of its ViT."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vitcnn_utils.editions.chapters import find_root, run_editions
from vitcnn_utils.editions.companions import second_seed
from vitcnn_utils.editions.ledger import Row, edition_claims
from vitcnn_utils.editions.parameters import read_edition
from vitcnn_utils.files import replace_text
from vitcnn_utils.provenance import ROLES, commit

FILE = "stability.json"
"""In book/: what `run_again` found, committed."""

OWN = "as in the book"


def variants(edition: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The runs by name, and the parameters in which each differs: two other samples of images, and the second ViT."""
    seed = int(edition.get("seed", 0))
    runs: dict[str, dict[str, Any]] = {OWN: {}} | {f"other images, seed {s}": {"seed": s} for s in (seed + 1, seed + 2)}
    if vit_seed_2 := edition.get("vit_seed_2"):
        vit = edition["vit"]
        runs[f"as the ViT its {second_seed(vit_seed_2, vit)}"] = {"vit": vit_seed_2, "vit_seed_2": vit}
    return runs


def run_again(
    edition: str, parameters: Mapping[str, Any], root: Path | None = None, report: Callable[[str], None] = print
) -> Path:
    """Run all chapters of an edition in each variant, and write which verdict each claim gets; gives the file.

    A variant goes into _build/stability/, where what is up to date is not run again. parameters: for a trial, such as
    fewer images; then the file is written there too, and not into the book.
    """
    root, start = root or find_root(), time.monotonic()
    runs = variants(read_edition(root, edition) | dict(parameters))
    claims: dict[str, list[str | None]] = {}
    made_of: dict[str, Any] = {}
    for i, (name, changes) in enumerate(runs.items()):
        report(f"run {i + 1} of {len(runs)}: {name}")
        where = "executed" if name == OWN and not parameters else f"stability/{i}"
        run_editions([edition], overrides={**parameters, **changes}, root=root, report=report, where=where)
        for row in edition_claims(edition, root, where)["claims"]:
            claims.setdefault(row["id"], [None] * len(runs))[i] = row["verdict"]
            made_of = _weights(row) | made_of  # where a model is not the same in all runs, that of the book
    found = {
        "schema": 1, "edition": edition, "date": f"{datetime.now(UTC):%Y-%m-%d}", "commit": commit(),
        "command": f"vitcnn claims {edition} --stability", "parameters": dict(parameters),
        "minutes": round((time.monotonic() - start) / 60, 1), "models": dict(sorted(made_of.items())),
        "runs": [{"name": name, "parameters": changes} for name, changes in runs.items()], "claims": claims,
    }  # fmt: skip
    path = root / ("_build/stability" if parameters else "book") / FILE
    replace_text(path, json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    return path


def read(book: Path) -> dict[str, Any] | None:
    """What was found, from a folder with `FILE`; None where there is none."""
    path = book / FILE
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def mark(rows: Sequence[Row], found: Mapping[str, Any] | None) -> None:
    """Give each claim that got another verdict than its own in some run `changes`: run -> verdict.

    A claim that is another now, as its models were trained since or its verdict is not what it was, gets `not_rerun`.
    """
    for row in rows:
        if found is None or row["edition"] != found["edition"]:
            continue
        own, *others = found["claims"].get(row["id"], [None])
        if own != row["verdict"] or any(found["models"].get(name) != w for name, w in _weights(row).items()):
            row["not_rerun"] = True
            continue
        names = (run["name"] for run in found["runs"][1:])
        changes = {name: v for name, v in zip(names, others, strict=True) if v not in (None, own)}
        if changes:
            row["changes"] = changes


def _weights(row: Row) -> dict[str, str]:
    """The weights of the models behind a claim, by name."""
    made = ((str(one[role]), str(one[weights])) for one in row["made_of"] for role, weights in ROLES.items()
            if role in one)  # fmt: skip
    return dict(made)


def summary(found: Mapping[str, Any], rows: Sequence[Row]) -> str:
    """How many verdicts changed, and in which runs, in a few sentences. rows: the claims after `mark`."""
    own = [row for row in rows if row["edition"] == found["edition"]]
    same = [row for row in own if "not_rerun" not in row]
    runs = "; ".join(run["name"] for run in found["runs"])
    since = len(own) - len(same)
    left_out = f" {since} other claims have new models or another verdict since, and wait for the next such runs."
    return (
        f"On {found['date']}, at commit {found['commit']}, the edition {found['edition']} was run {len(found['runs'])} "
        f"times: {runs}. Of {len(same)} verdicts, {sum('changes' in row for row in same)} changed between the runs; "
        f"they are marked.{left_out * bool(since)}"
    )
