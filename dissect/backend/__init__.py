"""All that knows the inside of a hooked model: sites, hook points, forward passes, weights."""
