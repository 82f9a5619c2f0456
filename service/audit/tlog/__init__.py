"""Transparency logs as C2SP and RFC 9162 have them: hashes, notes, checkpoints, tiles, proofs. Bytes in, bytes out."""
