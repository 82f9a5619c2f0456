"""From the cells of `expunge evaluate` to docs/results: tables, plots, a summary, case studies."""
