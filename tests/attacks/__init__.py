"""Ways to lie with a receipt or a log; each must be refused by name, here and by the stand-alone verifier."""
