"""Make the two samples of images that ship with the package, in vitcnn_utils/samples/.

    python scripts/make_samples.py CIFAR10.parquet FASHION_MNIST_FOLDER        (2 minutes)

CIFAR10.parquet: the test images of `uoft-cs/cifar10`. FASHION_MNIST_FOLDER: `t10k-images-idx3-ubyte.gz` and
`t10k-labels-idx1-ubyte.gz`, for example /usr/share/datasets/fashion-mnist of Debian's `dataset-fashion-mnist`.

The choice of images depends on SEED alone. WebP without loss holds the same pixels as PNG in a fifth less space; how
many bytes it takes depends on the version of libwebp, the pixels do not. A row's path has the image's index in the
original test set.
"""

import argparse
import gzip
import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from vitcnn_utils.images import SAMPLES, balanced_order, read_parquet
from vitcnn_utils.zoo.architectures import CLASS_NAMES

SEED = 0
CLOTHES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cifar10", type=Path)
    parser.add_argument("fashion_mnist", type=Path)
    arguments = parser.parse_args()
    write_sample(SAMPLES["cifar10"], *read_parquet(arguments.cifar10), CLASS_NAMES, n=2500)
    write_sample(SAMPLES["fashion-mnist"], *read_idx(arguments.fashion_mnist), CLOTHES, n=1500)


def read_idx(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Test images, uint8 (N, 28, 28), and labels of the MNIST family, after headers of 16 and 8 bytes."""
    pixels = gzip.decompress((folder / "t10k-images-idx3-ubyte.gz").read_bytes())[16:]
    labels = gzip.decompress((folder / "t10k-labels-idx1-ubyte.gz").read_bytes())[8:]
    return np.frombuffer(pixels, np.uint8).reshape(-1, 28, 28), np.frombuffer(labels, np.uint8).astype(np.int64)


def write_sample(path: Path, pixels: np.ndarray, labels: np.ndarray, classes: tuple[str, ...], n: int) -> None:
    chosen = np.sort(balanced_order(labels, SEED)[:n])
    cells = [{"bytes": encode(pixels[i]), "path": f"test-{i:05}.webp"} for i in chosen]
    features = {"img": {"_type": "Image"}, "label": {"names": classes, "_type": "ClassLabel"}}
    schema = pa.schema(
        {"img": pa.struct({"bytes": pa.binary(), "path": pa.string()}), "label": pa.int64()},
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    table = pa.table({"img": cells, "label": labels[chosen]}, schema=schema)
    # the images are compressed: dictionaries and statistics of their bytes would only add to the file
    pq.write_table(table, path, compression="none", use_dictionary=False, write_statistics=False)
    print(f"{path}: {n:,} images, {path.stat().st_size / 1e6:.2f} MB")


def encode(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="WEBP", lossless=True, quality=100, method=6)
    return file.getvalue()


if __name__ == "__main__":
    main()
