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
