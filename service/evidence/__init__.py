"""Evidence of an erased erasure: what the new base was trained on, that the erased is not in it, what was searched."""
