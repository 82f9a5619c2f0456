"""Expunge: an online unlearning microservice for recommenders."""

import os

# OpenMP's threads wait in a busy loop and take the core from the one that they wait for: beside another program an
# epoch of training took 15 times as long. Asleep they cost microseconds. It counts only if set before torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
