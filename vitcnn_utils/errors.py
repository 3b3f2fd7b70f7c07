"""The one kind of error that users cause and can mend."""

import difflib
import numbers
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


class VitcnnError(ValueError):
    """Something the caller gave cannot be used; the message says what is wrong and what to do.

    The `vitcnn` command prints the message, one line for each thing that is wrong, and exits with status 1. What would
    break a line, or steer the terminal, such as a line break in the name of a file, stands there escaped.
    """

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(map(_printable, lines)))


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def near(name: str, known: Sequence[str]) -> str:
    """The end of a message about an unknown name: the known names that are near it, or all if they are few."""
    close = difflib.get_close_matches(name, known, cutoff=0.5)
    if close:
        return f"; did you mean {' or '.join(close)}?"
    return f"; there are: {', '.join(known)}" if len(known) <= 20 else ""


LARGEST = 2**32 - 1
"""The largest whole number that an edition can give: what numpy and torch both take as a seed."""


def whole_number(what: str, value: Any, least: int = 1, most: int | None = None) -> int:
    """`value` as an int; VitcnnError, which calls it `what`, if it is not a whole number from `least` to `most`."""
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not whole or value < least or (most is not None and value > most):
        until = "or more" if most is None else f"to {most}"
        # Python refuses to print numbers of thousands of digits.
        given = "a huge number" if isinstance(value, int) and abs(value) >= 2**64 else repr(value)
        raise VitcnnError(f"{what}={given}: it must be a whole number, {least} {until}")
    return int(value)


def check_finite(name: str, *values: "Tensor") -> None:
    """VitcnnError where there is NaN or Inf in the values of what is called `name`."""
    if not all(each.isfinite().all() for each in values):
        raise VitcnnError(f"there is NaN or Inf in {name}: leave it out, or find the image or weight that causes it")
