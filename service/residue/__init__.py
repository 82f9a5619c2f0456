"""The search for what is left of erased subjects: every byte of every store in scope, and its structure."""
