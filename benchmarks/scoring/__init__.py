"""How well the analyzers foresee: a simulated corpus, the engine's answers, and their score."""
