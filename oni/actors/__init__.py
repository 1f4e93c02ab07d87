"""What plays the games: Anakin inside jit, Sebulba around worker processes (Hessel et al., arXiv 2104.06272)."""

from oni.actors.base import Actors, Said
from oni.actors.factory import make_actors, make_env

__all__ = ["Actors", "Said", "make_actors", "make_env"]
