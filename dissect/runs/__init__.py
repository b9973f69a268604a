"""The pruning procedure, and a run on disk: configuration, steps, rerun, export."""
