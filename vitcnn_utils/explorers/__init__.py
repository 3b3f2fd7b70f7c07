"""Interactive views of the figures' arrays: ipywidgets in a notebook, and without a kernel in the static book."""

from vitcnn_utils.explorers.attention import AttentionExplorer, explore_attention
from vitcnn_utils.explorers.localization import LocalizationExplorer, explore_localization
from vitcnn_utils.explorers.probes import ProbesExplorer, explore_probes
from vitcnn_utils.explorers.receptive_field import ReceptiveFieldExplorer, explore_receptive_field
from vitcnn_utils.explorers.similarity import SimilarityExplorer, explore_similarity
from vitcnn_utils.explorers.skip_ratios import SkipRatiosExplorer, explore_skip_ratios

__all__ = [
    "AttentionExplorer",
    "LocalizationExplorer",
    "ProbesExplorer",
    "ReceptiveFieldExplorer",
    "SimilarityExplorer",
    "SkipRatiosExplorer",
    "explore_attention",
    "explore_localization",
    "explore_probes",
    "explore_receptive_field",
    "explore_similarity",
    "explore_skip_ratios",
]
