"""Every statement of the worker, one module per concern."""
