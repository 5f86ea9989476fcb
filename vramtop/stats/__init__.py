"""Numbers in, numbers out: the mathematics of the analyzers, with the papers named."""
