"""Statistics of activations, importances made of them, scores, and masks of what to prune."""
