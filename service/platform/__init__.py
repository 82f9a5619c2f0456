"""What every domain stands on: database, Redis, metrics, logging, auth, problems, clock."""
