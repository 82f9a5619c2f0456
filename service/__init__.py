"""Expunge: an online unlearning microservice for recommenders."""

import os

# Threads of OpenMP that wait in a busy loop take the core from the one that they wait for: with another program on the
# machine an epoch of training took 15 times as long. Asleep they cost microseconds. It counts if set before torch comes.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
