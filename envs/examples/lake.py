"""What happens on Gymnasium's FrozenLake, in words."""

from envs.gymnasium.game import Transition


def say(step: Transition) -> str:
    """The squares are numbered 0 to 15, the goal is the last one."""
    if step.terminated:
        return "You reach the goal." if step.reward > 0 else "You fall into the water."
    return "You slip and stay where you are." if step.obs == step.before else ""
