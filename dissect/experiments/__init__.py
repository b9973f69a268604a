"""Many runs: grids, the paper's experiments, what they cost, how stable a choice is."""
