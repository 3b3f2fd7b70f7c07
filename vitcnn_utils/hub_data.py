"""Rows of a data set on the hub: drawn from its stream, written to a parquet file."""

import re
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitcnn_utils import hub
from vitcnn_utils.errors import VitcnnError

if TYPE_CHECKING:
    import datasets
    from huggingface_hub import DatasetInfo

SPLITS = ("test", "validation", "val", "valid", "train")
"""Names of splits, best first: images that no model was trained on."""

DOWNLOAD = "download it and pass a folder or a .parquet file"


def address(name: str) -> tuple[str, str | None, str | None]:
    """The id, configuration and revision that a name of a hub data set consists of."""
    parts = re.fullmatch(r"([^:@]*)(?::([^@]+))?(?:@(.+))?", name)
    return (parts[1], parts[2], parts[3]) if parts else (name, None, None)


def ask(name: str, files_metadata: bool = False) -> "DatasetInfo":
    """What the hub knows of a data set, among that the commit that its revision is now, and the sizes of its files.

    Asked before `datasets` is, which retries for half a minute where no hub answers.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

    hint = "pass a folder of pictures, a .parquet file, a hub id or 'cifar10'"
    id, _, revision = address(name)
    if Path(id).exists():
        raise VitcnnError(f"{name}: {id} is a file or folder here, which has no configurations or revisions: {hint}")
    options: dict[str, Any] = {"revision": revision, "timeout": 10, "files_metadata": files_metadata}
    try:
        return hub.patiently(lambda: HfApi().dataset_info(id, **options), name)
    except HFValidationError:
        raise VitcnnError(f"no folder or file {name}, and no hub id has this form: {hint}") from None
    except Exception as error:  # which exceptions say so depends on the version of the HTTP client
        if isinstance(error, RepositoryNotFoundError) and not isinstance(error, GatedRepoError):
            raise VitcnnError(f"no folder, file or public data set on the hub is called {id}: {hint}") from None
        problem = f"{name} is not a folder or file, and could not be fetched from the hub ({hub.reason(error)})"
        raise VitcnnError(f"{problem}: {hint}") from None


def draw(name: str, info: "DatasetInfo", n: int | None, seed: int, path: Path) -> None:
    """Write `n` rows of a shuffled stream, or without `n` all rows, to a parquet file, see `images.load_images`."""
    with _bounded():
        stream = _stream(name, info)
        if n is not None:
            stream = stream.shuffle(seed=seed, buffer_size=n).take(n)
        _write(stream, f"hf://datasets/{address(name)[0]}@{info.sha}/", path)


def best_split(splits: Collection[str]) -> str:
    """The best of `SPLITS` that is there, or else the first."""
    return next((known for known in SPLITS if known in splits), next(iter(splits)))


def listed(names: Iterable[Any]) -> str:
    """Names in alphabetic order, for an error."""
    return ", ".join(sorted(map(str, names)))


def _stream(name: str, info: "DatasetInfo") -> "datasets.IterableDataset":
    import datasets

    id, config, _ = address(name)
    _stay_on_the_hub(id, info.sha)
    try:
        splits = hub.patiently(lambda: datasets.load_dataset(id, config, revision=info.sha, streaming=True), name)
    except ValueError:
        configs = datasets.get_dataset_config_names(id, revision=info.sha)
        if config in configs or (config is None and len(configs) == 1):
            raise
        there = ", ".join(f"{id}:{known}" for known in configs)
        wrong = "has several configurations" if config is None else f"has no configuration {config}"
        raise VitcnnError(f"{id} {wrong}: pass one of {there}") from None
    return splits[best_split(splits)]


def _stay_on_the_hub(id: str, commit: str | None) -> None:
    """VitcnnError where a data set's card names files of this machine or of other hosts as its own."""
    import yaml
    from huggingface_hub import metadata_load
    from huggingface_hub.errors import EntryNotFoundError

    for file in ("README.md", ".huggingface.yaml"):
        try:
            path = hub.fetch(id, file, commit, "dataset")
        except EntryNotFoundError:
            continue
        card = metadata_load(path) if file == "README.md" else yaml.safe_load(path.read_text(encoding="utf-8"))
        # Dumped, a list that is repeated without end stands there once.
        for event in yaml.parse(yaml.safe_dump((card or {}).get("configs"))):
            text = event.value if isinstance(event, yaml.ScalarEvent) else ""
            if text.startswith(("/", "\\", "~")) or any(sign in text for sign in ("::", "://", "..")):
                raise VitcnnError(f"{id} wants to read {text}, which is not in it: take another data set")


@contextmanager
def _bounded() -> Iterator[None]:
    """Make `datasets` quiet, and brief: after a fault it reads again 3 times, not 20 times, which takes 20 minutes.

    It would also tell another host which data set is loaded, and show bars that no built page can hold.
    """
    import datasets

    settings = {"STREAMING_READ_MAX_RETRIES": 3, "HF_UPDATE_DOWNLOAD_COUNTS": False}
    before = {key: getattr(datasets.config, key) for key in settings}
    bars = datasets.is_progress_bar_enabled()
    vars(datasets.config).update(settings)
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        vars(datasets.config).update(before)
        if bars:
            datasets.enable_progress_bars()


def _write(stream: "datasets.IterableDataset", home: str, path: Path) -> None:
    """Write rows to a parquet file, with pictures that lie in files of the data set `home`."""
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq

    writer = None
    for piece in stream.with_format("arrow").iter(batch_size=100):
        for i, (column, feature) in enumerate(datasets.Features.from_arrow_schema(piece.schema).items()):
            if isinstance(feature, datasets.Image):
                field = piece.schema.field(i)
                with ThreadPoolExecutor() as threads:  # where each picture is a file, there are hundreds to fetch
                    fetched = list(threads.map(_fetched, piece[column].to_pylist(), repeat(home)))
                piece = piece.set_column(i, field, pa.array(fetched, field.type))
        writer = writer or pq.ParquetWriter(path, piece.schema, write_page_checksum=True)
        writer.write_table(piece)
    if writer is not None:
        writer.close()


def _fetched(value: dict[str, Any] | None, home: str) -> dict[str, Any] | None:
    """An image with its bytes, where these are a file of the data set `home`, perhaps in a zip archive there.

    A row of a data set could name any other file of this machine or of other hosts: these are not opened.
    """
    import fsspec

    own = rf"(zip://[^:]*::)?{re.escape(home)}((?!::|\.\.).)*"
    if value is None or value["bytes"] is not None or not re.fullmatch(own, value["path"] or ""):
        return value
    with fsspec.open(value["path"], "rb") as file:
        return value | {"bytes": file.read()}
