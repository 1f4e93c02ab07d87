"""What a run keeps for people to look at: moments in which captions were said, and scores over training.

Nothing here has a say in the training: its randomness is its own, and the training never waits for it.
"""
