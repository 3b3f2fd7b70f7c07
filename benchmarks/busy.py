"""How the measures fare beside busy processes: prints a table of seconds, with and without short spinning.

    python benchmarks/busy.py [--busy 1] [--rounds 5]

Threads of OpenMP that wait for work spin. Beside another process they spin where that one, or the work they wait for,
could run. The package therefore sets GOMP_SPINCOUNT and KMP_BLOCKTIME, unless they are set, before torch is loaded. The
machine should do nothing else. The two ways take turns, each in a process of its own, as they are read only once.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys

MEASURE = """
import json, time, vitcnn_utils as vu
vit, cnn = (vu.load_model(name, device="cpu") for name in ("zoo/vit-cls", "zoo/resnet"))
images = vu.load_images(n=256)
seconds = {}
for name, measure in {
    "CKA": lambda: vu.layer_similarity(vit, cnn, images),
    "localization": lambda: vu.token_patch_similarity(vit, images),
    "probes": lambda: vu.layer_probes(vit, images, draws=1),
}.items():
    measure()
    start = time.perf_counter()
    measure()
    seconds[name] = time.perf_counter() - start
print(json.dumps(seconds))
"""

WAYS = {"as the package sets it": {}, "as torch comes": {"GOMP_SPINCOUNT": "300000", "KMP_BLOCKTIME": "200"}}
"""The latter are the defaults of the runtimes, given so that the package leaves them as they are."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--busy", type=int, default=1, help="busy processes beside the measures")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    print("| Busy processes | Spinning | CKA | Localization | Probes |\n|---|---|---|---|---|")
    for count in sorted({0, arguments.busy}):
        others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
        try:
            print_rows(count, arguments.rounds)
        finally:
            for other in others:
                other.kill()


def print_rows(count: int, rounds: int) -> None:
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("GOMP_", "KMP_", "OMP_"))}
    for _ in range(rounds):
        for way, variables in WAYS.items():
            run = [sys.executable, "-c", MEASURE]
            said = subprocess.run(run, env=plain | variables, capture_output=True, text=True, check=True).stdout
            found[way].append(json.loads(said))
    for way, seconds in found.items():
        medians = (f"{statistics.median(one[name] for one in seconds):.2f} s" for name in seconds[0])
        print(f"| {count} | {way} | {' | '.join(medians)} |", flush=True)


if __name__ == "__main__":
    main()
