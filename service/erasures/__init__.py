"""Erasures: accepting, tracking and cancelling them."""
