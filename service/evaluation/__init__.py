"""Measures of ranking and of forgetting, protocols, and the gate."""
