"""What produces every figure in the docs."""
