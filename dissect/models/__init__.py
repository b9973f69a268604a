"""Models by name or folder, with the weights that transformers has."""
