"""The compactor: runs compactions, one at a time, beside serving. Torch lives in a child process of each training."""
