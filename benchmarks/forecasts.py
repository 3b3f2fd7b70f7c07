"""What `vitcnn check` forecasts against what then happens: prints the table of CONTRIBUTING.md.

    python benchmarks/forecasts.py [--large] [--shared] [--notebook 1 --notebook 3]

Runs the edition zoo, or, with --large, two timm models that take 224 x 224 pixels, with random weights and few images.
Needs Linux, which tells the most memory that a kernel ever held, and a machine that does nothing else; with --shared,
and OMP_NUM_THREADS=1, minutes are of processor time, which others disturb less (but for starts and loading).
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

LARGE = {
    "images": "cifar10", "image_size": 224, "n_images": 64, "n_control_images": 32, "cka_batch_size": 32,
    "n_few_images": 48, "n_attention_images": 32, "n_patch_images": 64, "n_erf_images": 4, "erf_channels": 2,
    "n_cka_images": 32, "shots": 2, "draws": 2, "n_transfer_images": 60, "vit": "hf-hub:large/vit",
    "cnn": "hf-hub:large/cnn", "vit_seed_2": None, "vit_gap": None, "vit_gap_twin": None, "vit_small_data": None,
    "cnn_small_data": None, "noskip": [], "data_series": {}, "small_series": {}, "device": "cpu",
}  # fmt: skip
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "large/vit": ("vit_small_patch16_224", {}),
    "large/cnn": ("resnet50", {}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--large", action="store_true", help="larger models instead of the edition zoo")
    parser.add_argument("--shared", action="store_true", help="processor time, where the machine has other work")
    parser.add_argument("--notebook", action="append", default=[], metavar="N", help="only this chapter")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.large:  # before anything asks the hub's client where its cache is
            os.environ |= {"HF_HOME": folder, "HF_HUB_OFFLINE": "1"}
            from hub_cache import fill

            fill(Path(folder), MODELS, size=224, classes=10)
        root = _checkout(Path(folder) / "checkout", arguments.notebook)
        compare(root, "large" if arguments.large else "zoo", arguments.shared)


def _checkout(folder: Path, numbers: list[str]) -> Path:
    """Notebooks, all or those of the numbers, and the editions zoo and large."""
    (folder / "book").mkdir(parents=True)
    editions = shutil.copytree(ROOT / "notebooks" / "editions", folder / "notebooks" / "editions")
    (editions / "large.yml").write_text(json.dumps(LARGE))  # which is YAML too
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        if not numbers or path.name.partition("_")[0] in numbers:
            shutil.copy(path, folder / "notebooks")
    return folder


def compare(root: Path, edition: str, shared: bool) -> None:
    """Print the table of all chapters; shared: with processor time."""
    from kernel_memory import run

    from vitcnn_utils.book import default_parameters, read_edition
    from vitcnn_utils.check import check_edition

    notebooks = sorted((root / "notebooks").glob("*.ipynb"))
    known = set().union(*map(default_parameters, notebooks))
    parameters = {name: value for name, value in read_edition(root, edition).items() if name in known}
    (root / "notebooks" / "editions" / f"{edition}.yml").write_text(json.dumps(parameters))
    clock = time.process_time if shared else time.perf_counter
    costs = {cost.title: cost for cost in check_edition(edition, root=root, clock=clock)}
    print("| Edition, chapter | Minutes, forecast | measured | Memory, forecast | measured |")
    print("|---|---|---|---|---|")
    for notebook in notebooks:
        elapsed, computed, peak = run(notebook, parameters)
        seconds = computed if shared else elapsed
        cost = costs[notebook.stem]
        cells = [f"{cost.seconds / 60:.1f}", f"{seconds / 60:.1f}", *(f"{x / 1e9:.2f} GB" for x in (cost.bytes, peak))]
        print("|", " | ".join([f"{edition}, {notebook.stem[0]}", *cells]), "|", flush=True)


if __name__ == "__main__":
    main()
