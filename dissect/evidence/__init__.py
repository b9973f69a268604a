"""Is it gone? What brings an ability back that was cut: further training, fewer bits, examples, benchmarks."""
