"""Training of a transformers model: steps, what is held at zero, adapters, and a state on disk to resume from."""
