"""The unlearning methods behind one `Unlearner` protocol. Pure torch."""
