"""Tables of numbers for notebooks and pages."""

import html
import re
from collections.abc import Mapping
from typing import Any

import pandas as pd
from pandas.io.formats.style import Styler


class NumberTable(Styler):
    """A pandas Styler that says, for screen readers, which cells are heads, and scrolls by itself on a phone."""

    def _repr_html_(self) -> str:
        text = self.to_html()
        for side in ("row", "col"):
            text = text.replace(f'class="{side}_heading', f'scope="{side}" class="{side}_heading')
        text = re.sub(r'<th class="blank[^"]*"\s*>&nbsp;</th>', "<td></td>", text)  # an empty head
        return f'<div class="vitcnn-numbers" style="overflow-x:auto" tabindex="0">{text}</div>'

    def __repr__(self) -> str:
        return self.data.to_string(na_rep="–")


def number_table(
    rows: pd.DataFrame | Mapping[str, Mapping[str, str | float]], caption: str, digits: int = 2
) -> NumberTable:
    """Named rows of named numbers or words as a table; '–' stands where a number is missing (NaN).

    rows: a frame, or row name -> column name -> value. caption: what the table shows, above it.
    """
    frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame.from_dict(rows, orient="index")
    frame = frame.rename_axis(index=None, columns=None)

    def text(value: Any) -> str:
        return value if isinstance(value, str) else f"{value:z,.{digits}f}".replace("-", "−")

    table = NumberTable(frame, caption=html.escape(caption), uuid=_uuid(caption), cell_ids=False)
    return table.format(text, na_rep="–", escape="html").format_index(escape="html").format_index(escape="html", axis=1)


def _uuid(caption: str) -> str:
    """The same id for the same table in every run; ids of HTML must not hold spaces."""
    return "".join(letter if letter.isalnum() else "-" for letter in caption.lower())
