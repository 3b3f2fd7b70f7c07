"""Interactive views of the figures' arrays: ipywidgets in a notebook, and without a kernel in the static book."""

from vitcnn_utils.explorers.attention import explore_attention
from vitcnn_utils.explorers.localization import explore_localization
from vitcnn_utils.explorers.probes import explore_probes
from vitcnn_utils.explorers.receptive_field import explore_receptive_field
from vitcnn_utils.explorers.similarity import explore_similarity
from vitcnn_utils.explorers.skip_ratios import explore_skip_ratios

__all__ = [
    "explore_attention", "explore_localization", "explore_probes", "explore_receptive_field", "explore_similarity",
    "explore_skip_ratios",
]  # fmt: skip
