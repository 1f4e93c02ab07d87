"""Games outside JAX, in worker processes."""
