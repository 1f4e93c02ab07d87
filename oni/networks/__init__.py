"""Flax modules of policy and value, made from a config by `make_network`."""

from oni.networks.actor_critic import ActorCritic, Params, act, init_params, make_network, unroll

__all__ = ["ActorCritic", "Params", "act", "init_params", "make_network", "unroll"]
