"""How long the formula takes, beside others that do the same job on the same host."""
