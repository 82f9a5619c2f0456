"""Compactions: a base trained from scratch on what remains, after which what was erased is purged. No torch here."""
