"""What the paper claims, beside what these models show: rules, one file a section of the paper."""

from vitcnn_utils.claims.cards import table
from vitcnn_utils.claims.ledger import unless

__all__ = ["table", "unless"]
