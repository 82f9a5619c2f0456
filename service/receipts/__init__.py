"""Receipts: what became of an erasure, signed, and proven by the log."""
