"""Files of the Hugging Face hub, checked and asked for again where that helps.

The hub's client resumes a download that breaks off. It does not compare large files with the checksum that the hub
gives, and a server that fails while it sends one, or a connection that is reset, ends it; that is here.
"""

import hashlib
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from vitcnn_utils.errors import VitcnnError

T = TypeVar("T")

WAITS = (1, 5, 20)
"""Seconds before the second, third and fourth try, unless the hub says how long."""

LONGEST_WAIT = 300
"""Seconds. The hub counts requests in windows of five minutes; what asks for a longer wait is an error."""

PASSING = (408, 429, 500, 502, 503, 504)
"""HTTP statuses of a server that may answer soon."""

_logger = logging.getLogger(__name__)


class _Damaged(Exception):
    """A file arrived with another checksum than the hub gives."""


def fetch(repository: str, file: str, revision: str | None = None, repo_type: str = "model") -> Path:
    """A file of a model, from the hub's cache on this machine or else from the hub, with its checksum compared.

    repo_type: 'dataset' for a file of a data set. Raises what the hub's client raises; `reason` has the words for it.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache

    where: dict[str, Any] = {"filename": file, "revision": revision, "repo_type": repo_type}
    cached = try_to_load_from_cache(repository, **where)
    if isinstance(cached, str) and _is_whole(Path(cached)):
        return Path(cached)
    # One question first: where the hub cannot be reached, hf_hub_download tries six times, which takes 20 seconds.
    patiently(lambda: get_hf_file_metadata(hf_hub_url(repository, **where)), f"{repository} ({file})")

    def download() -> Path:
        path = Path(hf_hub_download(repository, **where))
        if not _is_whole(path):
            raise _Damaged
        return path

    return patiently(download, f"{repository} ({file})")


def _is_whole(path: Path) -> bool:
    """Whether a file in the hub's cache has the SHA-256 that its name there says; one that has not is removed.

    Only large files have such a name, and only where the file system has links.
    """
    if not path.is_symlink():
        return True
    blob = path.parent / os.readlink(path)
    with blob.open("rb") as content:
        if (
            not re.fullmatch("[0-9a-f]{64}", blob.name)
            or hashlib.file_digest(content, "sha256").hexdigest() == blob.name
        ):
            return True
    _logger.warning("%s is damaged: it is fetched again", path)
    path.unlink()
    blob.resolve().unlink()  # the hub's client may share a blob between repositories, by a second link
    blob.unlink(missing_ok=True)
    return False


def patiently(question: Callable[[], T], subject: str) -> T:
    """What `question` gives, asked up to four times while the hub may answer soon; a warning names each wait."""
    for wait in WAITS:
        try:
            return question()
        except Exception as error:  # the hub's client raises errors of several libraries
            asked = _asked_wait(error)
            # A connection that is reset while it is read; the client resumes what breaks off in other ways.
            passes = _status(error) in PASSING or isinstance(error, _Damaged) or type(error).__name__ == "ReadError"
            if not passes or (asked or 0) > LONGEST_WAIT:
                raise
            seconds = wait if asked is None else asked + 1
            _logger.warning("%s: %s; asking again in %d s", subject, reason(error), seconds)
        time.sleep(seconds)
    return question()


def _status(error: BaseException | None) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _asked_wait(error: BaseException) -> int | None:
    """The seconds for which the hub asks, in either of the headers that it uses."""
    if _status(error) not in (429, 503):
        return None
    headers = error.response.headers  # type: ignore[attr-defined]
    asked = re.search(r"\bt=(\d+)", headers.get("ratelimit", ""))
    asked = asked or re.fullmatch(r"(\d+)", headers.get("retry-after", ""))
    return int(asked[1]) if asked else None


def reason(error: BaseException) -> str:
    """Why the hub did not give what was asked of it, in a few words."""
    from huggingface_hub import errors

    asked = _asked_wait(error)
    if isinstance(error, errors.OfflineModeIsEnabled):
        return "not on this machine, and HF_HUB_OFFLINE forbids to ask"
    if isinstance(error, errors.GatedRepoError):
        return "gated: accept its conditions on its page, then log in with `hf auth login`"
    if isinstance(error, errors.RevisionNotFoundError):
        return "no such revision"
    if isinstance(error, _Damaged):
        return "what arrives is damaged: its SHA-256 is not the one that the hub gives"
    if asked:
        return f"the hub asks to wait {asked} s, less for those who log in with `hf auth login`"
    status = _status(error) or _status(error.__cause__)
    if status is not None:
        return "the hub refuses access" if status in (401, 403) else f"the hub answers {status}"
    text = " ".join(str(error).split()).rstrip(".")
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__


@contextmanager
def one_line(problem: str, advice: str = "mend it or take another") -> Iterator[None]:
    """Turn what another library raises into a VitcnnError."""
    try:
        yield
    except VitcnnError:
        raise
    except Exception as error:  # file system, format, network and data set each bring exceptions of their own
        raise VitcnnError(f"{problem} ({reason(error)}): {advice}") from error
