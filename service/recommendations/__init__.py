"""Top-N recommendations from the live version."""
