"""Versions, their lineage, and the aliases that point at them."""
