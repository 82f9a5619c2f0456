"""The append-only log of every transition."""
