"""What the book's pages need of Sphinx: formulas as MathML, docstrings as plain text, and directives
for the zoo's tables and learning curves and the API reference, from the package itself, for explorers, and for what
the benchmark measured."""

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
    app.add_directive("zoo-tuning", ZooTuning)
    app.add_directive("api", Api)
    app.add_directive("families-table", FamiliesTable)
    app.add_directive("explorer", Explorer)
    app.add_directive("speed", Speed)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _without_thebe(app: Sphinx, config: Any) -> None:
    """Jupyter Book always loads sphinx-thebe, whose script, emitted twice, is an error on every page."""
    from sphinx_thebe import init_thebe_core

    for listeners in app.events.listeners.values():
        for listener in [one for one in listeners if one.handler is init_thebe_core]:
            app.disconnect(listener.id)


def _without_barriers(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Mend what pandas, Markdown and docutils write that a screen reader stumbles over."""
    if "body" in context:
        # The corner of a table is no heading, and the role of references is deprecated: they are items of a list.
        body = re.sub(r"<th\b[^>]*>(?:\s|</?p>)*</th>", "<td></td>", context["body"])
        context["body"] = body.replace('role="doc-biblioentry"', 'role="listitem"')


def _open_sources(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Let the buttons of an edition's chapter open its notebook, which is one for all editions."""
    folder = re.match(r"editions/[^/]+/(?=\d)", page)
    for button in context.get("header_buttons", []) if folder else []:
        for item in button.get("buttons", [button]):
            if item.get("url", "").startswith("https:"):  # what is downloaded is the edition's
                item["url"] = item["url"].replace(folder[0], "notebooks/")


def _icons_once(app: Sphinx, error: Exception | None) -> None:
    """The theme has its icons as fonts, and again in a script of half a megabyte that every page would load."""
    script = Path(app.outdir) / "_static" / "scripts" / "fontawesome.js"
    if script.exists():
        script.write_text("// The icons are fonts.\n", encoding="utf-8")


# Formulas are turned into MathML while the book is built: no script, no fonts, and nothing from another host.


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
        return tex2mathml(tex, as_block=as_block)
    except MathError as error:
        logger.warning("formula is not understood: %s: %s", error, tex, location=node)
        return f"<code>{html.escape(tex)}</code>"


def _plain_text(app: Sphinx, what: str, name: str, obj: object, options: Any, lines: list[str]) -> None:
    """Docstrings are plain text with `code`: other marks of reStructuredText stand for themselves."""
    text = "\n".join(lines)
    parts = re.split(r"(`[^`\n]+`)", text)
    parts[::2] = [re.sub(r"([*|\\]|(?<=\w)_(?!\w))", r"\\\1", part) for part in parts[::2]]
    parts[1::2] = [f"``{part[1:-1]}``" for part in parts[1::2]]
    lines[:] = _blocks("".join(parts).splitlines())


def _blocks(lines: list[str]) -> list[str]:
    """Every change of indentation starts a paragraph of its own, so that no layout is an error."""
    out: list[str] = []
    for line in lines:
        indent = len(line) - len(line.lstrip())
        if out and line.strip() and out[-1].strip() and indent != len(out[-1]) - len(out[-1].lstrip()):
            out.append("")
        out.append(line)
    return out


class ZooTable(SphinxDirective):
    """A table of all zoo models, from their cards: what they are ('models'), or how they were made ('training')."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        from vitcnn_utils import zoo

        cards = sorted((zoo.card(name) for name in zoo.names()), key=self.order)
        if self.arguments[0] == "models":
            heads = ["Model", "What it is", "Parameters", "Training images", "Steps", "Test accuracy"]
            return [scrolling_table(heads, [self.model(card) for card in cards])]
        heads = ["Model", "Minutes", "Images/s", "Share of the device's speed", "Device", "sha256"]
        return [scrolling_table(heads, [self.training(card) for card in cards])]

    @staticmethod
    def order(card: dict[str, Any]) -> tuple[Any, ...]:
        """Families one after another; in each, what is compared with one another side by side."""
        recipe = card["recipe"]
        family = ["vit", "vit-small", "resnet"].index(recipe["family"])
        skipless = -1 if recipe["skipless_block"] is None else recipe["skipless_block"]
        return family, recipe["readout"] == "avg", skipless, -recipe["data_fraction"], recipe["seed"]

    @staticmethod
    def model(card: dict[str, Any]) -> list[str]:
        return [
            f"<code>{card['name']}</code>",
            what_differs(card["recipe"]),
            f"{card['parameters']:,}",
            f"{card['training_images']:,}",
            f"{card['steps']:,}",
            f"{100 * card['test_accuracy']:.1f}&nbsp;%",
        ]

    @staticmethod
    def training(card: dict[str, Any]) -> list[str]:
        measured = "flops" in card
        return [
            f"<code>{card['name']}</code>",
            f"{card['minutes']:g}",
            f"{card['images_per_second']:,}",
            f"{100 * card['flops'] / card['flops_of_a_product']:.0f}&nbsp;%" if measured else "not measured",
            html.escape(card["device"]),
            f'<code title="{card["sha256"]}">{card["sha256"][:8]}</code>',
        ]


def scrolling_table(heads: list[str], rows: list[list[str]]) -> nodes.Node:
    """A table of HTML cells that scrolls by itself where the page is narrow."""
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    table = f'<table class="table vitcnn-zoo"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return nodes.raw("", f'<div class="vitcnn-scroll" tabindex="0">{table}</div>', format="html")


class ZooTuning(SphinxDirective):
    """What `vitcnn tune` measured, and in which values of the recipe the runs of a model differ."""

    def run(self) -> list[nodes.Node]:
        from vitcnn_utils import zoo

        runs = [json.loads(line) for line in zoo.TUNING.read_text(encoding="utf-8").splitlines()]
        keys = [key for key in runs[0]["recipe"] if self.tried(key, runs)]
        tried = [key.replace("_", " ").capitalize() for key in keys]
        heads = ["Model", "Epochs", *tried, "Held-out accuracy", "Minutes"]
        rows = [
            [f"<code>{run['name']}</code>", *(str(run["recipe"][key]) for key in ("epochs", *keys)),
             f"{100 * run['held_out_accuracy']:.1f}&nbsp;%", f"{run['minutes']:g}"]
            for run in runs
        ]  # fmt: skip
        return [scrolling_table(heads, rows)]

    @staticmethod
    def tried(key: str, runs: list[dict[str, Any]]) -> bool:
        """Whether runs of one model differ in this value, which is not just what tells the models apart."""
        values: dict[str, set[Any]] = {}
        for run in runs:
            values.setdefault(run["name"], set()).add(run["recipe"][key])
        return key != "epochs" and max(map(len, values.values())) > 1


def what_differs(recipe: dict[str, Any]) -> str:
    """A recipe in words: the family, and whatever sets it apart within the family."""
    family = {"vit": "ViT", "vit-small": "smaller ViT", "resnet": "ResNet, bottleneck units"}[recipe["family"]]
    marks = [family]
    if recipe["family"] != "resnet":
        marks.append({"token": "CLS read-out", "avg": "GAP read-out"}[recipe["readout"]])
    if recipe["skipless_block"] is not None:
        marks.append(f"no skips in block {recipe['skipless_block']}")
    if recipe["data_fraction"] < 1:
        marks.append(f"{100 * recipe['data_fraction']:.0f}&nbsp;% of the training images")
    if recipe["seed"] != 1:
        marks.append(f"seed {recipe['seed']}")
    return ", ".join(marks)


class ZooCurves(SphinxDirective):
    """Training accuracy of all zoo models by step, a panel a family, from their logs."""

    def run(self) -> list[nodes.Node]:
        from vitcnn_utils import zoo
        from vitcnn_utils.plots.style import Figure, figure
        from vitcnn_utils.provenance import commit

        logs = {name: zoo.log(name) for name in zoo.names()}
        ends = ", ".join(f"{name} {log[-1]['train_accuracy']:.2f}" for name, log in logs.items())
        picture: Figure = figure(
            learning_curves(logs),
            name="",
            alt="Three panels of curves that rise with the training step: vision transformers, smaller vision "
            f"transformers and ResNets. Training accuracy at the end: {ends}.",
            caption="Training accuracy (share of the augmented training images that are named rightly) against steps, "
            "on a logarithmic axis; a point after each epoch.",
            provenance=f"From the training logs that ship with the package · commit {commit()}",
        )
        return [nodes.raw("", picture._repr_html_(), format="html")]


def learning_curves(logs: dict[str, list[dict[str, float]]]) -> Any:
    from vitcnn_utils.plots.style import panels, styled

    return styled(_draw_curves)(logs, panels)


def _draw_curves(logs: dict[str, list[dict[str, float]]], panels: Any) -> Any:
    families = {"zoo/vit-small": "smaller ViT", "zoo/vit": "ViT", "zoo/resnet": "ResNet"}
    grouped: dict[str, list[str]] = {title: [] for title in sorted(families.values(), reverse=True)}
    for name in logs:
        grouped[next(title for prefix, title in families.items() if name.startswith(prefix))].append(name)
    drawing, axes = panels(1, len(grouped), height=3.4, sharex=True, sharey=True)
    for ax, (title, names) in zip(axes[0], grouped.items(), strict=True):
        for index, name in enumerate(names):
            steps = [row["step"] for row in logs[name]]
            style = (".-", ".--", ".:")[index // 6]
            ax.plot(steps, [row["train_accuracy"] for row in logs[name]], style, label=name.removeprefix("zoo/"))
        ax.set(title=title, xlabel="steps", xscale="log", ylim=(0, 1))
        ax.set_xticks([1000, 3000, 10000], ["1,000", "3,000", "10,000"])
        ax.minorticks_off()
        ax.legend(fontsize=6.5)
    axes[0, 0].set_ylabel("training accuracy")
    return drawing


class Api(SphinxDirective):
    """The public parts of every module of the package, from their docstrings."""

    def run(self) -> list[nodes.Node]:
        import vitcnn_utils

        found = pkgutil.walk_packages(vitcnn_utils.__path__, "vitcnn_utils.")
        names = sorted(module.name for module in found if not module.name.rpartition(".")[2].startswith("_"))
        text = "\n\n".join(f"{name}\n{'-' * len(name)}\n\n.. automodule:: {name}\n   :members:\n" for name in names)
        return self.parse_text_to_nodes(text, allow_section_headings=True)


class Explorer(SphinxDirective):
    """An explorer of the executed notebooks once more, by its kind, and a link to the chapter; for pages at the top."""

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


class FamiliesTable(SphinxDirective):
    """Families of models × measures, from families.json, which `python tests/families.py` writes; reasons below it."""

    def run(self) -> list[nodes.Node]:
        path = Path(self.env.srcdir) / "families.json"
        self.env.note_dependency(str(path))
        rows = json.loads(path.read_text(encoding="utf-8"))
        cells = [text for row in rows for text in list(row.values())[2:]]
        # What is no short word is a reason, which a column would be too narrow for.
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
    """A route beside ours. ratios: its time by ours, or ours by its where it is a pass, round by round."""

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
    """Every route of a kind, 'other' or 'pass', beside ours."""
    found = []
    for one in measured["comparisons"].values():
        ours = next(route for route in one["routes"].values() if route["kind"] == "ours")
        for name, route in one["routes"].items():
            if route["kind"] == kind:
                # A route may have had fewer rounds than ours, and then has had the first.
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
    """A quantity of the other way, and below it, bold, of this package."""
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
