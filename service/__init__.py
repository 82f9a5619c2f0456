"""Expunge: an online unlearning microservice for recommenders."""
