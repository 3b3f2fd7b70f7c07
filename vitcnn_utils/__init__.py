"""`import vitcnn_utils as vu` gives all that a user calls; each name is loaded when it is first used."""

import os
from typing import Any

# OpenMP's threads spin while they wait for work, which makes every measure many times slower beside busy processes.
# A short spin costs nothing on an idle machine. The runtimes read this once, when torch is loaded: GOMP_SPINCOUNT is
# read by libgomp (torch on Linux), KMP_BLOCKTIME (milliseconds) by libomp (macOS) and by Intel's runtime. Where torch
# is imported before this package, this comes too late: import this package first, or set the variables yourself.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
os.environ.setdefault("KMP_BLOCKTIME", "1")

try:
    import lazy_loader
except ModuleNotFoundError as missing:
    _needs = f"vitcnn_utils needs {missing.name}: `vitcnn handout --check` names all that is missing"

    def __getattr__(name: str) -> Any:
        raise AttributeError(_needs)
else:
    __getattr__, __dir__, __all__ = lazy_loader.attach(
        __name__,
        submodules=["claims", "explorers", "measures", "models", "plots", "zoo"],
        submod_attrs={
            "editions.parameters": ["check_parameters"],
            "errors": ["VitcnnError"],
            "explorers": [
                "explore_attention", "explore_localization", "explore_probes", "explore_receptive_field",
                "explore_similarity", "explore_skip_ratios",
            ],
            "images": ["load_images"],
            "measures.accuracy": ["accuracy"],
            "measures.attention": ["attention_maps", "head_distances", "head_subset_similarity"],
            "measures.cka": ["layer_similarities", "layer_similarity", "linear_cka"],
            "measures.intervals": ["jackknife"],
            "measures.localization": ["layer_patch_similarity"],
            "measures.probes": ["layer_probes"],
            "measures.receptive_field": ["effective_receptive_fields"],
            "measures.residual": ["skip_ratios"],
            "models.load": ["load_model"],
        },
    )  # fmt: skip
