"""New consent: what was erased may be recorded again."""
