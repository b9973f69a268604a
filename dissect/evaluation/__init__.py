"""What a model predicts of a data set: metrics, targets, sums by document, intervals."""
