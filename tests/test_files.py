"""Files that are replaced as a whole, and locks."""

from pathlib import Path

import pytest

from vitcnn_utils.errors import VitcnnError
from vitcnn_utils.files import alone, replace_text, replacing


def test_a_text_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    for text in ("one ½", "two"):
        replace_text(path, text)
        assert path.read_text(encoding="utf-8") == text
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail() -> None:
        with replacing(path) as partial:
            partial.write_text("half of the n")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_lock_is_held_once_and_let_go(tmp_path: Path) -> None:
    lock = tmp_path / "new" / "a.lock"
    for _ in range(2):
        with (
            alone(lock, "somebody is at work"),
            pytest.raises(VitcnnError, match=r"^somebody is at work: wait until it ends$"),
            alone(lock, "somebody is at work"),
        ):
            pass
