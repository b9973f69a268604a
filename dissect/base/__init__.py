"""What everything else stands on: errors, checks of input, files on disk, processes that share work."""
