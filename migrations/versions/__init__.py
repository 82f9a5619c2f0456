"""One file a migration, in order; each goes up and down."""
