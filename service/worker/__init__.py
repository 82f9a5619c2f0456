"""The worker: batches erasures, forgets them, publishes the version that has."""
