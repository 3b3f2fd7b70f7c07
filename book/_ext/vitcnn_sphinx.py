"""The book's Sphinx extension.

It writes formulas as MathML, reads docstrings as plain text, repairs what the theme and its parts do wrong, and has
directives that make tables, figures and the API reference from the package, the explorers and the benchmarks.
"""

import html
import json
import pkgutil
import re
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

logger = logging.getLogger(__name__)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_html_math_renderer("mathml", inline_renderers=(_inline_math, None), block_renderers=(_block_math, None))
    app.connect("config-inited", _without_thebe)
    # In _config.yml this would replace the list, and with it the themes' own templates.
    app.config.templates_path.insert(0, "_templates")
    app.connect("html-page-context", _without_barriers)
    app.connect("html-page-context", _open_sources, priority=900)  # when the theme has made its buttons
    app.connect("build-finished", _icons_once)
    app.connect("autodoc-process-docstring", _plain_text)
    app.add_directive("zoo-table", ZooTable)
    app.add_directive("zoo-curves", ZooCurves)
    app.add_directive("zoo-distances", ZooDistances)
    app.add_directive("zoo-waiting", ZooWaiting)
    app.add_directive("zoo-tuning", ZooTuning)
    app.add_directive("api", Api)
    app.add_directive("families-table", FamiliesTable)
    app.add_directive("explorer", Explorer)
    app.add_directive("ledger", Ledger)
    app.add_directive("speed", Speed)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _without_thebe(app: Sphinx, config: Any) -> None:
    """Jupyter Book always loads sphinx-thebe, whose script, emitted twice, is an error on every page."""
    from sphinx_thebe import init_thebe_core

    for listeners in app.events.listeners.values():
        for listener in [one for one in listeners if one.handler is init_thebe_core]:
            app.disconnect(listener.id)


def _without_barriers(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Repair HTML of pandas, Markdown and docutils that screen readers cannot use."""
    if "body" in context:
        # The empty corner of a table is not a heading; the role of references is deprecated, they are a list's items.
        body = re.sub(r"<th\b[^>]*>(?:\s|</?p>)*</th>", "<td></td>", context["body"])
        context["body"] = body.replace('role="doc-biblioentry"', 'role="listitem"')


def _open_sources(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Let the buttons of an edition's chapter open the source notebook, which all editions share."""
    folder = re.match(r"editions/[^/]+/(?=\d)", page)
    for button in context.get("header_buttons", []) if folder else []:
        for item in button.get("buttons", [button]):
            if item.get("url", "").startswith("https:"):  # what is downloaded is the edition's
                item["url"] = item["url"].replace(folder[0], "notebooks/")


def _icons_once(app: Sphinx, error: Exception | None) -> None:
    """Empty the theme's script of icons: it weighs half a megabyte, and the theme has the same icons as fonts."""
    script = Path(app.outdir) / "_static" / "scripts" / "fontawesome.js"
    if script.exists():
        script.write_text("// The icons are fonts.\n", encoding="utf-8")


# Formulas become MathML while the book is built, so that pages need no script; vitcnn.css has the font.


def _inline_math(writer: Any, node: nodes.math) -> None:
    writer.body.append(_mathml(node, as_block=False))
    raise nodes.SkipNode


def _block_math(writer: Any, node: nodes.math_block) -> None:
    ids = "".join(f' id="{i}"' for i in node["ids"][:1])
    number = f'<span class="eqno">({node["number"]})</span>' if node.get("number") else ""
    writer.body.append(f'<div class="vitcnn-math" tabindex="0"{ids}>{number}{_mathml(node, as_block=True)}</div>')
    raise nodes.SkipNode


def _mathml(node: nodes.Element, as_block: bool) -> str:
    tex = node.astext().strip()
    if as_block and "\\\\" in tex and not tex.startswith("\\begin"):
        tex = f"\\begin{{aligned}}{tex}\\end{{aligned}}"
    try:
        formula = tex2mathml(tex, as_block=as_block)
    except MathError as error:
        logger.warning("formula is not understood: %s: %s", error, tex, location=node)
        return f"<code>{html.escape(tex)}</code>"
    if "\\left" in tex:
        return formula
    # The bars of a norm would grow to the height of the whole row.
    formula = formula.replace('<mo class="mathopen">‖</mo>', '<mo form="prefix" stretchy="false">‖</mo>')
    return formula.replace("<mo>‖</mo>", '<mo form="postfix" stretchy="false">‖</mo>')


def _plain_text(app: Sphinx, what: str, name: str, obj: object, options: Any, lines: list[str]) -> None:
    """Read a docstring as plain text with `code`: escape all other marks of reStructuredText."""
    text = "\n".join(lines)
    parts = re.split(r"(`[^`\n]+`)", text)
    parts[::2] = [re.sub(r"([*|\\]|(?<=\w)_(?!\w))", r"\\\1", part) for part in parts[::2]]
    parts[1::2] = [f"``{part[1:-1]}``" for part in parts[1::2]]
    lines[:] = _blocks("".join(parts).splitlines())


def _blocks(lines: list[str]) -> list[str]:
    """Start a paragraph at each change of indentation, so that no layout is an error."""
    out: list[str] = []
    for line in lines:
        indent = len(line) - len(line.lstrip())
        if out and line.strip() and out[-1].strip() and indent != len(out[-1]) - len(out[-1].lstrip()):
            out.append("")
        out.append(line)
    return out


class ZooTable(SphinxDirective):
    """A table of the zoo's cards: 'models' says what each model is, 'training' how it was made."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        from vitcnn_utils import zoo

        cards = sorted((zoo.card(name) for name in zoo.names()), key=self.order)
        if self.arguments[0] == "models":
            heads = ["Model", "What it is", "Training", "Training images", "Test accuracy"]
            return [scrolling_table(heads, [self.model(card, zoo.trainings()) for card in cards])]
        heads = ["Model", "Parameters", "Steps", "Batch", "Minutes", "Images/s", "Device", "Commit", "sha256"]
        return [scrolling_table(heads, [self.training(card) for card in cards])]

    @staticmethod
    def order(card: dict[str, Any]) -> tuple[Any, ...]:
        """Sort by family, then so that models which are compared stand side by side."""
        recipe = card["recipe"]
        family = ["vit", "vit-small", "resnet"].index(recipe["family"])
        skipless = -1 if recipe["skipless_block"] is None else recipe["skipless_block"]
        return family, recipe["readout"] == "avg", skipless, -recipe["data_fraction"], recipe["seed"], card["name"]

    @staticmethod
    def model(card: dict[str, Any], trainings: dict[str, str]) -> list[str]:
        from vitcnn_utils.zoo.trainer import wilson_interval

        low, high = wilson_interval(card["test_accuracy"], 10_000)
        return [
            f"<code>{card['name']}</code>",
            what_differs(card["recipe"]),
            trainings[card["name"]],
            f"{card['training_images']:,}",
            f"{100 * card['test_accuracy']:.1f}&nbsp;% ({100 * low:.1f} to {100 * high:.1f})",
        ]

    @staticmethod
    def training(card: dict[str, Any]) -> list[str]:
        return [
            f"<code>{card['name']}</code>",
            f"{card['parameters']:,}",
            f"{card['steps']:,}",
            f"{card['recipe']['batch_size']}",
            f"{card['minutes']:g}",
            f"{card['images_per_second']:,}",
            html.escape(card["device"]).replace(" ", "&nbsp;"),  # else rows of four lines, beyond the edge
            f"<code>{card['commit']}</code>",
            f'<code title="{card["sha256"]}">{card["sha256"][:8]}</code>',
        ]


def scrolling_table(heads: list[str], rows: list[list[str]]) -> nodes.Node:
    """A table whose cells are HTML; it scrolls sideways where the page is narrow."""
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    table = f'<table class="table vitcnn-zoo"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return nodes.raw("", f'<div class="vitcnn-scroll" tabindex="0">{table}</div>', format="html")


class ZooWaiting(SphinxDirective):
    """Which models of the table of recipes still wait to be trained by it, in a sentence."""

    def run(self) -> list[nodes.Node]:
        from vitcnn_utils import zoo
        from vitcnn_utils.zoo.recipes import RECIPES
        from vitcnn_utils.zoo.trainer import is_trained

        waiting = [name for name, recipe in RECIPES.items() if not is_trained(name, recipe, zoo.FOLDER)]
        done = f"{len(RECIPES) - len(waiting)} of {len(RECIPES)} models were trained by the table of recipes."
        return [nodes.paragraph("", f"{done} Still to be trained: {', '.join(waiting)}." if waiting else done)]


class ZooTuning(SphinxDirective):
    """What `vitcnn tune` measured, from tuning.jsonl, and in which values of the recipe the runs of a model differ."""

    def run(self) -> list[nodes.Node]:
        record = Path(self.env.srcdir) / "tuning.jsonl"
        runs = [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines()]
        keys = [key for key in runs[-1]["recipe"] if self.tried(key, runs)]
        tried = [key.replace("_", " ").capitalize() for key in keys]
        heads = ["Model", "Epochs", *tried, "Held-out accuracy", "Nearest heads, blocks 0 to 2, px", "Core minutes"]
        rows = [
            [f"<code>{run['name']}</code>", *(str(run["recipe"].get(key, "")) for key in ("epochs", *keys)),
             f"{100 * run['held_out_accuracy']:.1f}&nbsp;%", self.nearest(run),
             f"{run.get('cpu_minutes', run['minutes']):g}"]
            for run in runs
        ]  # fmt: skip
        return [scrolling_table(heads, rows)]

    @staticmethod
    def nearest(run: dict[str, Any]) -> str:
        """The least mean distance in each of the first blocks at the end; nothing for older runs and ResNets."""
        distances = run["log"][-1].get("head_distances", []) if "log" in run else []
        return ", ".join(f"{min(heads):.1f}" for heads in distances[:3])

    @staticmethod
    def tried(key: str, runs: list[dict[str, Any]]) -> bool:
        """Whether two runs of the same model differ in this setting."""
        values: dict[str, set[Any]] = {run["name"]: set() for run in runs}
        for run in runs:
            values[run["name"]] |= {run["recipe"][key]} if key in run["recipe"] else set()  # older ones lack some
        return key != "epochs" and max(map(len, values.values())) > 1


def what_differs(recipe: dict[str, Any]) -> str:
    """A recipe in words: its family, and what differs from the family's default."""
    family = {"vit": "ViT", "vit-small": "smaller ViT", "resnet": "ResNet, bottleneck units"}[recipe["family"]]
    marks = [family]
    if recipe["family"] != "resnet":
        marks.append({"token": "CLS read-out", "avg": "GAP read-out"}[recipe["readout"]])
    if recipe["skipless_block"] is not None:
        marks.append(f"no skips in block {recipe['skipless_block']}")
    if not recipe.get("cutmix"):
        marks.append("without CutMix")
    if recipe.get("mimetic"):
        marks.append("mimetic start")
    if recipe["data_fraction"] < 1:
        marks.append(f"{100 * recipe['data_fraction']:.0f}&nbsp;% of the training images")
    if recipe["seed"] != 1:
        marks.append(f"seed {recipe['seed']}")
    return ", ".join(marks)


class ZooCurves(SphinxDirective):
    """Accuracy of all zoo models over their training, from their logs, a panel a question."""

    def run(self) -> list[nodes.Node]:
        from vitcnn_utils import zoo
        from vitcnn_utils.plots.training import learning_curves

        groups: dict[str, dict[str, Any]] = {}
        for name in zoo.names():
            recipe = zoo.card(name)["recipe"]
            title = {"vit": "ViT", "vit-small": "smaller ViT", "resnet": "ResNet"}[recipe["family"]]
            if title == "ViT" and recipe["skipless_block"] is not None:
                title = "ViT, one block without skips"
            elif title == "ViT" and recipe["data_fraction"] < 1:
                title = "ViT, part of the images"
            groups.setdefault(title, {})[name] = zoo.log(name)
        return [nodes.raw("", learning_curves(groups)._repr_html_(), format="html")]


class ZooDistances(SphinxDirective):
    """How far the heads of a ViT of the zoo look over its training, from its log."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        from vitcnn_utils import zoo
        from vitcnn_utils.plots.training import distances_over_training

        (name,) = self.arguments
        return [nodes.raw("", distances_over_training(name, zoo.log(name))._repr_html_(), format="html")]


class Api(SphinxDirective):
    """The public parts of every module of the package, from their docstrings."""

    def run(self) -> list[nodes.Node]:
        import vitcnn_utils

        found = pkgutil.walk_packages(vitcnn_utils.__path__, "vitcnn_utils.")
        names = sorted(module.name for module in found if not module.name.rpartition(".")[2].startswith("_"))
        text = "\n\n".join(f"{name}\n{'-' * len(name)}\n\n.. automodule:: {name}\n   :members:\n" for name in names)
        return self.parse_text_to_nodes(text, allow_section_headings=True)


class Explorer(SphinxDirective):
    """Show the first explorer of a kind from the executed notebooks, with a link to its chapter."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        kind = self.arguments[0]
        # `vitcnn book` lays this beside the pages.
        found = json.loads((Path(self.env.srcdir) / "_explorers.json").read_text(encoding="utf-8"))
        if kind not in found:
            logger.warning("no executed notebook shows an explorer %r", kind, location=self.get_location())
            return []
        entry = found[kind]
        link = f'<a href="{entry["link"]}">In its chapter: {html.escape(entry["chapter"])}</a>'
        return [nodes.raw("", f'{entry["html"]}<p class="vx-chapter">{link}</p>', format="html")]


class Ledger(SphinxDirective):
    """Show the claims of the executed notebooks: `counts` with a small map for the front page, or the whole `table`."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        from vitcnn_utils.editions import ledger, stability

        rows = json.loads((Path(self.env.srcdir) / "_extra" / "claims.json").read_text(encoding="utf-8"))["claims"]
        if self.arguments[0] == "counts":
            main = [row for row in rows if row["page"].startswith("notebooks/")]
            shown = ledger.counts(main) + ledger.small_map(main)
        else:
            found = stability.read(Path(self.env.srcdir))
            again = f"<p>{html.escape(stability.summary(found, rows))}</p>" if found else ""
            shown = f'{ledger.counts(rows)}{again}<div class="vitcnn-scroll" tabindex="0">{ledger.table(rows)}</div>'
        return [nodes.raw("", shown, format="html")]


class FamiliesTable(SphinxDirective):
    """A table of model families × measures from families.json, which `python tests/families.py` writes.

    The reasons why a measure does not work are numbered notes below it.
    """

    def run(self) -> list[nodes.Node]:
        path = Path(self.env.srcdir) / "families.json"
        self.env.note_dependency(str(path))
        rows = json.loads(path.read_text(encoding="utf-8"))
        cells = [text for row in rows for text in list(row.values())[2:]]
        # A text longer than these words is a reason; a column would be too narrow for it.
        reasons = list(dict.fromkeys(text for text in cells if len(text) > len("no residual stream")))
        measures = list(rows[0])[2:]
        head = "".join(f'<th scope="col">{html.escape(name.capitalize())}</th>' for name in ("family", *measures))
        body = "".join(
            f'<tr><th scope="row">{html.escape(row["family"])}<br>'
            f"<code>{row['model'].replace('_', '_<wbr>')}</code></th>"
            f"{''.join(self.cell(row[measure], reasons) for measure in measures)}</tr>"
            for row in rows
        )
        table = f'<table class="table vitcnn-zoo"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
        notes = "".join(f'<li id="family-note-{i}">{html.escape(text)}</li>' for i, text in enumerate(reasons, 1))
        return [nodes.raw("", f'<div class="vitcnn-scroll" tabindex="0">{table}</div><ol>{notes}</ol>', format="html")]

    @staticmethod
    def cell(text: str, reasons: list[str]) -> str:
        if text not in reasons:
            return f"<td>{html.escape(text)}</td>"
        note = reasons.index(text) + 1
        return f'<td>no <sup><a href="#family-note-{note}">{note}</a></sup></td>'


# What the benchmark measured: benchmarks.json, which `benchmarks/test_speed.py` writes.


class Speed(SphinxDirective):
    """A view of benchmarks.json: 'plot', 'others', 'passes', 'gpu' or 'machine'."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        path = Path(self.env.srcdir) / "benchmarks.json"
        self.env.note_dependency(str(path))
        measured = json.loads(path.read_text(encoding="utf-8"))
        views = {"plot": speed_plot, "others": others_table, "passes": passes_table, "gpu": gpu_table,
                 "machine": machine_facts}  # fmt: skip
        return [views[self.arguments[0]](measured)]


class Pair(NamedTuple):
    """Another route beside ours. ratios, one a round: its time / ours; for a pass of the model alone, ours / its."""

    measure: str
    work: str
    device: str
    name: str
    ours: dict[str, Any]
    route: dict[str, Any]
    ratios: list[float]

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)


def speed_pairs(measured: dict[str, Any], kind: str) -> list[Pair]:
    """Each route of one kind, 'other' or 'pass', beside ours."""
    found = []
    for one in measured["comparisons"].values():
        ours = next(route for route in one["routes"].values() if route["kind"] == "ours")
        for name, route in one["routes"].items():
            if route["kind"] == kind:
                # A route that had fewer rounds than ours had the first ones.
                both = zip(ours["seconds"], route["seconds"], strict=False)
                ratios = [b / a if kind == "other" else a / b for a, b in both]
                found.append(Pair(one["measure"], one["work"], one["device"], name, ours, route, ratios))
    return found


def others_table(measured: dict[str, Any]) -> nodes.Node:
    heads = ["Measure", "Another way", "Times as long", "Time", "Error", "Memory"]
    rows = [
        [_work(pair), html.escape(pair.name), _ratio(pair), *(_both(pair, of) for of in (_seconds, _error, _memory))]
        for pair in speed_pairs(measured, "other")
    ]  # fmt: skip
    return scrolling_table(heads, rows)


def passes_table(measured: dict[str, Any], device: str = "cpu") -> nodes.Node:
    heads = ["Measure", "The model alone", "Passes", "Time", "Memory"]
    pairs = [pair for pair in speed_pairs(measured, "pass") if pair.device == device]
    rows = [
        [_work(pair), html.escape(pair.name), _ratio(pair), *(_both(pair, of) for of in (_seconds, _memory))]
        for pair in pairs
    ]  # fmt: skip
    if device == "cpu":
        return scrolling_table(heads, rows)
    errors = [_error(pair.ours) for pair in pairs]
    return scrolling_table([*heads, "Error of bfloat16"], [[*row, e] for row, e in zip(rows, errors, strict=True)])


def gpu_table(measured: dict[str, Any]) -> nodes.Node:
    if any(one["device"] == "cuda" for one in measured["comparisons"].values()):
        return passes_table(measured, "cuda")
    return nodes.raw("", "<p><strong>Not measured</strong>: the machine has no GPU.</p>", format="html")


def _work(pair: Pair) -> str:
    return f"<strong>{html.escape(pair.measure)}</strong><br><small>{html.escape(pair.work)}</small>"


def _both(pair: Pair, of: Callable[[dict[str, Any]], str]) -> str:
    """A quantity of the other route, and below it, bold, that of this package."""
    return f"{of(pair.route)}<br><strong>{of(pair.ours)}</strong>"


def _seconds(route: dict[str, Any]) -> str:
    return f"{statistics.median(route['seconds']):.3g}&nbsp;s"


def _ratio(pair: Pair) -> str:
    aim = pair.route["aim"]
    if aim is None:
        return f"{pair.ratio:.3g}"
    is_other = pair.route["kind"] == "other"
    reached = pair.ratio >= aim if is_other else pair.ratio <= aim
    words = f"aim:&nbsp;{'≥' if is_other else '≤'}&nbsp;{aim:g}{'' if reached else ', not&nbsp;reached'}"
    return f"{pair.ratio:.3g}<br><small>{words}</small>"


def _error(route: dict[str, Any]) -> str:
    if route["error"] is None:
        return "–"
    digits, _, power = f"{route['error']:.0e}".partition("e")
    return f"{digits}&nbsp;×&nbsp;10<sup>{int(power)}</sup>".replace("-", "−") if route["error"] else "0"


def _memory(route: dict[str, Any]) -> str:
    return "not measured" if route["peak"] is None else f"{route['peak'] / 2**20:.0f}&nbsp;MiB"


def machine_facts(measured: dict[str, Any]) -> nodes.Node:
    machine = measured["machine"]
    packages = ", ".join(f"{name} {number}" for name, number in machine["packages"].items())
    facts = {
        "Processor": f"{machine['cpu']}, {machine['cores']} cores, threads used: {machine['threads']}",
        "GPU": machine["gpu"] or "none",
        "Software": f"{machine['system']}, Python {machine['python']}, {packages}",
        "Measured": f"{measured['date']}, commit {measured['commit']}",
    }
    items = "".join(f"<dt>{name}</dt><dd>{html.escape(fact)}</dd>" for name, fact in facts.items())
    return nodes.raw("", f"<dl>{items}</dl>", format="html")


def speed_plot(measured: dict[str, Any]) -> nodes.Node:
    from vitcnn_utils.plots.style import figure, panels, styled

    pairs = speed_pairs(measured, "other")
    machine = measured["machine"]
    said = "; ".join(f"{pair.measure}, {pair.name}: {pair.ratio:.2g}" for pair in pairs)
    picture = figure(
        styled(_draw_speed)(pairs, panels),
        name="",
        alt=f"Dots on a logarithmic axis: how many times as long as this package another way takes. {said}.",
        caption="How many times as long as this package another way takes for the same work. Large dots are medians, "
        "small ones single rounds; right of the line this package is faster.",
        provenance=f"{measured['date']} · {machine['cpu']}, threads: {machine['threads']} · "
        f"commit {measured['commit']}",
    )
    return nodes.raw("", picture._repr_html_(), format="html")


def _draw_speed(pairs: list[Pair], panels: Any) -> Any:
    from vitcnn_utils.plots.style import BLUE, GREY

    drawing, axes = panels(1, 1, height=0.8 + 0.32 * len(pairs))
    ax = axes[0, 0]
    for row, pair in enumerate(pairs):
        ax.plot(pair.ratios, [row] * len(pair.ratios), ".", color=GREY, markersize=3)
        ax.plot(pair.ratio, row, "o", color=BLUE, markersize=6)
    ax.axvline(1, color=GREY, linewidth=1)
    ax.set(xscale="log", xlabel="times as long as this package", ylim=(len(pairs) - 0.5, -0.5))
    ax.set_yticks(range(len(pairs)), [f"{pair.name}: {pair.measure}" for pair in pairs])
    ax.xaxis.set_major_formatter("{x:g}")
    return drawing
