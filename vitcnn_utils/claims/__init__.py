"""What the paper claims, beside what these models show: rules, one file a section of the paper."""

from vitcnn_utils.claims.cards import table

__all__ = ["table"]
