"""The diagrams of the course and the chapters, book/images/diagrams/*.svg.

    python scripts/diagrams.py

Each has its own dark ground, as the picture of the front page has, so both themes show it alike.
"""

from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parents[1] / "book" / "images" / "diagrams"
INK, SOFT, GROUND, VIT, CNN, GREEN = "#efeafc", "#b9aee0", "#14101f", "#6db1e8", "#f0a060", "#6fd0a8"


def text(x: float, y: float, words: str, size: int = 17, anchor: str = "middle", fill: str = INK) -> str:
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size}" text-anchor="{anchor}" fill="{fill}" '
        f'font-family="system-ui, sans-serif">{words}</text>'
    )


def box(x: float, y: float, width: float, height: float, words: str = "", stroke: str = SOFT, size: int = 17) -> str:
    frame = (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="8" fill="{stroke}" '
        f'fill-opacity="0.14" stroke="{stroke}" stroke-width="2"/>'
    )
    return frame + (text(x + width / 2, y + height / 2 + size * 0.35, words, size) if words else "")


def arrow(x1: float, y1: float, x2: float, y2: float, stroke: str = SOFT) -> str:
    """A straight arrow with its head at (x2, y2)."""
    along = np.array([x2 - x1, y2 - y1]) / np.hypot(x2 - x1, y2 - y1)
    across = np.array([-along[1], along[0]])
    left, right = (np.array([x2, y2]) - 11 * along + side * 6 * across for side in (1, -1))
    head = f"M{left[0]:.1f} {left[1]:.1f}L{x2:g} {y2:g}L{right[0]:.1f} {right[1]:.1f}"
    path = f'd="M{x1:g} {y1:g}L{x2:g} {y2:g}{head}"'
    return f'<path {path} fill="none" stroke="{stroke}" stroke-width="2.2" stroke-linecap="round"/>'


def grid(x: float, y: float, values: np.ndarray, cell: float, fill: str) -> str:
    """A table of shaded cells; values from 0 to 1."""
    return "".join(
        f'<rect x="{x + j * cell:g}" y="{y + i * cell:g}" width="{cell - 1.5:g}" height="{cell - 1.5:g}" rx="2" '
        f'fill="{fill}" fill-opacity="{0.12 + 0.85 * value:.2f}"/>'
        for (i, j), value in np.ndenumerate(values)
    )


def svg(width: int, height: int, title: str, *parts: str) -> str:
    ground = f'<rect width="{width}" height="{height}" rx="14" fill="{GROUND}"/>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="{title}">'
        f"<title>{title}</title>{ground}{''.join(parts)}</svg>\n"
    )


def cka() -> str:
    """Images, features, Gram matrices, one number: with features drawn at random, the Grams are really theirs."""
    random = np.random.default_rng(3)
    kinds = np.repeat(np.eye(3), 2, axis=0)
    parts = [text(70, 40, "6 images", 17, fill=SOFT), text(285, 40, "features", 17, fill=SOFT)]
    parts += [text(505, 40, "which images are alike", 17, fill=SOFT)]
    parts += [box(45, 62 + 46 * i, 50, 38, f"{i + 1}") for i in range(6)]
    for top, fill, columns, name in ((62, VIT, 9, "a layer of the ViT"), (222, CNN, 6, "a layer of the CNN")):
        x = kinds @ random.normal(size=(3, columns)) + 0.35 * random.normal(size=(6, columns))
        centred = x - x.mean(0)
        gram = centred @ centred.T
        size = 108 / 6
        parts += [grid(220, top, (x - x.min()) / np.ptp(x), size, fill)]
        parts += [grid(451, top, (gram - gram.min()) / np.ptp(gram), size, fill)]
        parts += [arrow(112, 198, 206, top + 54, fill), arrow(228 + columns * size, top + 54, 438, top + 54, fill)]
        parts += [
            text(220, top + 130, name, 15, "start", fill),
            arrow(572, top + 54, 640, 190 + (top > 100) * 16, fill),
        ]
    parts += [box(652, 168, 100, 60, "CKA", GREEN, 22), text(702, 254, "0 … 1", 17, fill=SOFT)]
    return svg(790, 380, "From images to features to Gram matrices to CKA", *parts)


def tokens() -> str:
    parts = [text(105, 40, "image", 17, fill=SOFT), text(330, 40, "tokens", 17, fill=SOFT)]
    cell = 40
    for i in range(4):
        for j in range(4):
            x, y = 25 + j * cell, 62 + i * cell
            parts.append(f'<rect x="{x}" y="{y}" width="37" height="37" rx="4" fill="{VIT}" fill-opacity="0.3"/>')
            parts.append(text(x + 18.5, y + 24, str(4 * i + j), 14))
    parts += [
        arrow(196, 141, 262, 141, VIT),
        box(280, 60, 100, 34, "CLS", CNN),
        text(396, 83, "no place", 15, "start", CNN),
    ]
    for row, label in enumerate(("0", "1", "2", "…", "15")):
        parts.append(box(280, 106 + 40 * row, 100, 32, label, VIT))
    parts += [
        text(396, 129, "upper left patch", 15, "start", VIT),
        text(396, 289, "lower right patch", 15, "start", VIT),
    ]
    parts += [arrow(520, 186, 566, 186), box(580, 66, 110, 240, "", SOFT), text(635, 180, "blocks:", 16)]
    parts += [text(635, 202, "every token", 15), text(635, 222, "looks at all", 15)]
    parts += [arrow(690, 83, 742, 83, CNN), text(750, 88, "class, read", 15, "start", CNN)]
    parts += [text(750, 107, "from CLS", 15, "start", CNN), arrow(690, 230, 742, 230, VIT)]
    parts += [text(750, 235, "or from their", 15, "start", VIT), text(750, 254, "mean (GAP)", 15, "start", VIT)]
    return svg(860, 330, "An image becomes patches, patches become tokens, and CLS stands before them", *parts)


def block() -> str:
    y = 90
    parts = [f'<path d="M30 {y}H800" stroke="{GREEN}" stroke-width="5" fill="none"/>', arrow(780, y, 830, y, GREEN)]
    parts += [text(30, y - 26, "residual stream z", 17, "start", GREEN)]
    for left, name, hidden in ((150, "self-attention", ""), (480, "MLP", "hidden")):
        parts += [
            arrow(left, y, left, y + 62, SOFT),
            box(left - 52, y + 64, 104, 36, "norm"),
            arrow(left, y + 100, left, y + 128),
        ]
        parts += [box(left - 75, y + 130, 150, 42, name, VIT)]
        parts += [
            f'<path d="M{left + 75} {y + 151}H{left + 190}V{y + 22}" stroke="{VIT}" stroke-width="2.2" fill="none"/>'
        ]
        parts += [
            arrow(left + 190, y + 40, left + 190, y + 14, VIT),
            text(left + 206, y + 92, "branch", 15, "start", VIT),
        ]
        parts += [text(left + 206, y + 110, "f(z)", 15, "start", VIT)]
        parts += [f'<circle cx="{left + 190}" cy="{y}" r="13" fill="{GROUND}" stroke="{GREEN}" stroke-width="3"/>']
        parts += [text(left + 190, y + 7, "+", 20)]
        points = [(left + 52, y + 82), (left + 75, y + 151)] + ([(left, y + 172)] if hidden else [])
        parts += [f'<circle cx="{a}" cy="{b}" r="5.5" fill="{CNN}"/>' for a, b in points]
        parts += [text(left, y + 196, hidden, 14, fill=CNN)] if hidden else []
    parts += [f'<circle cx="740" cy="{y}" r="5.5" fill="{CNN}"/>', f'<circle cx="40" cy="300" r="5.5" fill="{CNN}"/>']
    parts += [text(56, 305, "measured as a layer: six in each block", 15, "start", CNN)]
    return svg(850, 325, "A block of a vision transformer with its two skips and branches", *parts)


def probe() -> str:
    parts = [text(100, 40, "few labelled images", 17, fill=SOFT)]
    parts += [box(30 + 48 * (i % 3), 60 + 48 * (i // 3), 42, 42) for i in range(9)]
    parts += [arrow(182, 130, 232, 130), text(300, 40, "a layer, frozen", 17, fill=SOFT)]
    parts += [
        box(246, 62 + 34 * i, 108, 26, "" if i != 2 else "features", VIT if i == 2 else SOFT, 15) for i in range(4)
    ]
    parts += [arrow(354, 143, 446, 143, VIT), box(460, 108, 140, 68, "", GREEN), text(530, 138, "linear", 17)]
    parts += [
        text(530, 160, "classifier", 17),
        text(530, 40, "trained", 17, fill=SOFT),
        arrow(600, 142, 660, 142, GREEN),
    ]
    parts += [text(672, 132, "accuracy on", 17, "start"), text(672, 154, "other images", 17, "start")]
    parts += [text(30, 232, "High: flat cuts through the features tell the classes apart.", 15, "start", SOFT)]
    return svg(800, 255, "A linear probe: features of a frozen layer train a linear classifier", *parts)


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for draw in (cka, tokens, block, probe):
        (FOLDER / f"{draw.__name__}.svg").write_text(draw(), encoding="utf-8")


if __name__ == "__main__":
    main()
