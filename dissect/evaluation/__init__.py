"""What a model predicts of a data set: targets, metrics, sums by document, intervals."""
