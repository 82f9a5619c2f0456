"""Versioned embeddings: manifests, atomic publish, checksums, aliases, purge."""
