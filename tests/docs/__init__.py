"""What README and the pages say is so: their examples run, and the tests and names they mention exist."""
