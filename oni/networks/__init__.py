"""Flax modules of policy and value, made from a config by `make_network`."""

from oni.networks.actor_critic import ActorCritic, init_params, make_network

__all__ = ["ActorCritic", "init_params", "make_network"]
