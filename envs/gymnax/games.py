"""The registered games of gymnax 1.0.1, by id."""

from collections.abc import Mapping

from envs.gymnax import mazes, minatar
from envs.gymnax.sentences import Game, rewarded, terminated

GAMES: Mapping[str, Game] = {
    "CartPole-v1": Game(won=lambda s: s.truncated, actions=("push left", "push right")),
    "Pendulum-v1": Game(),
    "Acrobot-v1": Game(won=terminated, actions=("torque -1", "no torque", "torque 1")),
    "MountainCar-v0": Game(won=terminated, actions=("push left", "nothing", "push right")),
    "MountainCarContinuous-v0": Game(won=terminated),
    "Asterix-MinAtar": minatar.ASTERIX,
    "Breakout-MinAtar": minatar.BREAKOUT,
    "Freeway-MinAtar": minatar.FREEWAY,
    "Seaquest-MinAtar": minatar.SEAQUEST,
    "SpaceInvaders-MinAtar": minatar.SPACE_INVADERS,
    "Catch-bsuite": mazes.CATCH,
    "DeepSea-bsuite": mazes.DEEP_SEA,
    "MemoryChain-bsuite": mazes.MEMORY_CHAIN,
    "UmbrellaChain-bsuite": mazes.UMBRELLA_CHAIN,
    "DiscountingChain-bsuite": Game(),
    "MNISTBandit-bsuite": Game(won=rewarded, actions=tuple(str(digit) for digit in range(10))),
    "SimpleBandit-bsuite": Game(),
    "FourRooms-misc": mazes.FOUR_ROOMS,
    "MetaMaze-misc": mazes.META_MAZE,
    "PointRobot-misc": Game(),
    "BernoulliBandit-misc": Game(),
    "GaussianBandit-misc": Game(),
    "Reacher-misc": Game(),
    "Swimmer-misc": Game(),
    "Pong-misc": mazes.PONG,
    "FrozenLake-misc": mazes.FROZEN_LAKE,
}
"""In the library's order; that none is missing is tested. Listing them here spares `oni envs` the 2 s that importing
gymnax takes."""

REWARDS: Mapping[str, str] = {
    "CartPole-v1": "1 a step until it falls",
    "Pendulum-v1": "minus angle, speed and torque, squared",
    "Acrobot-v1": "-1 a step until it swings up",
    "MountainCar-v0": "-1 a step until it is up",
    "MountainCarContinuous-v0": "100 at the top, minus force squared",
    "Asterix-MinAtar": "1 for gold",
    "Breakout-MinAtar": "1 a brick",
    "Freeway-MinAtar": "1 a crossing",
    "Seaquest-MinAtar": "1 for a fish or submarine shot; oxygen left when the divers are brought up",
    "SpaceInvaders-MinAtar": "1 an alien",
    "Catch-bsuite": "1 for catching, -1 for missing",
    "DeepSea-bsuite": "1 for the treasure, a little less for each move to the right",
    "MemoryChain-bsuite": "1 for recalling, -1 for not",
    "UmbrellaChain-bsuite": "1 or -1 at the end; before it 1 or -1 at random",
    "DiscountingChain-bsuite": "1 after 1, 3, 10, 30 or 100 steps; for one of these 1.1",
    "MNISTBandit-bsuite": "1 for the right digit, -1 for another",
    "SimpleBandit-bsuite": "0 to 1, by arm",
    "FourRooms-misc": "1 at the goal",
    "MetaMaze-misc": "10 at the goal, each time",
    "PointRobot-misc": "1 a step at the goal",
    "BernoulliBandit-misc": "1 or 0, by the odds of the arm",
    "GaussianBandit-misc": "0, or a number drawn",
    "Reacher-misc": "nearness to the goal, each step",
    "Swimmer-misc": "nearness to the goal away from urchins, each step",
    "Pong-misc": "1 a step until somebody misses",
    "FrozenLake-misc": "1 at the goal",
}
"""What pays, in a few words, with the library's own settings."""
