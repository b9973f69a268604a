"""Cards: what one unit, or one head, does on two data sets. Computed here, drawn by `dissect.views`."""
