"""Interactions: reading data sets, recording feedback, subject access."""
