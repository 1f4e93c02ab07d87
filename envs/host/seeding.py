"""Which seed an episode gets."""

import numpy as np


def episode_seed(seed: int, row: int, episode: int) -> int:
    """Returns the seed, in [0, 2^63), of the nth episode (from 0) of a row of a run.

    It depends on nothing else, so neither the number of workers nor that of groups changes what is played.
    """
    words = np.random.SeedSequence(seed, spawn_key=(row, episode)).generate_state(1, np.uint64)
    return int(words[0]) >> 1
