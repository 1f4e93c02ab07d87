"""gymnax 1.0 with captions for those of its games that have something to say."""
