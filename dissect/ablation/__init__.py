"""Pruning: by hooks, in the weights, and the rotation of attention to its singular basis."""
