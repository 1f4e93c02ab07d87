"""Plays NetHack by hand for the tests: actions by name, one after another."""

import numpy as np

from envs.nethack.actions import EXTENDED_ACTIONS
from envs.nethack.game import RAW, NetHackGame, make_game

INDEX = {action.name: i for i, action in enumerate(EXTENDED_ACTIONS)}
BY_KEY = {chr(action.key): i for i, action in enumerate(EXTENDED_ACTIONS)}


def new_arrays():
    return {name: np.zeros(shape, dtype) for name, (shape, dtype) in RAW.items()}


class Player:
    """One game and its arrays. The keys of a `path` are NetHack's own, `hjklyubn` and so on, each one an action."""

    def __init__(self, task="score", **options):
        self.game: NetHackGame = make_game(**{"task": task, "actions": "extended"} | options)
        self.raw = new_arrays()
        self.game.attach(self.raw)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.game.close()

    def reset(self, seed):
        self.game.reset(seed)
        return self

    def do(self, *names):
        return [self.game.step(INDEX[name]) for name in names]

    def path(self, keys):
        return [self.game.step(BY_KEY[key]) for key in keys]

    def press(self, keys):
        """Presses keys that are no actions, such as those of the wizard mode, past the game."""
        for key in keys:
            self.game._engine.native.step(ord(key))
        while self.game._misc[2]:
            self.game._engine.native.step(ord(" "))

    @property
    def message(self):
        return self.raw["message"].tobytes().rstrip(b"\0")

    @property
    def depth(self):
        return int(self.raw["blstats"][12])


def captions(steps):
    return [step.caption for step in steps]


def random_play(player, seed, num_steps):
    """Plays at random, episode after episode; returns all that came back, with a copy of the arrays of each step."""
    rng = np.random.default_rng(seed)
    episode, history = 0, []
    player.reset(episode)
    for action in rng.integers(len(INDEX), size=num_steps):
        step = player.game.step(int(action))
        history.append((step, {name: array.copy() for name, array in player.raw.items()}))
        if step.terminated:
            episode += 1
            player.reset(episode)
    return history
