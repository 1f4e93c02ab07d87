"""Actors whose games step inside jit, next to the policy."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Array, Int

from envs.types import Renders
from envs.vector import VectorEnv
from oni.actors.scenes import Scenes
from oni.captions import CaptionTable, EventIndex, lookup
from oni.devices import GAMES, ROLLOUT, SAME, STEPS, Devices
from oni.errors import OniError
from oni.evaluation import MAX_GAMES, Choose, Episodes, play, record
from oni.networks import ActorCritic, Params
from oni.recording import write_episode
from oni.rollout import make_collect, start
from oni.types import ActorState, Rollout


class AnakinActors:
    """A `VectorEnv` and a rollout that is one jitted function; each device has its share of the games.

    env: all games.
    """

    def __init__(self, env: VectorEnv[Any], network: ActorCritic, devices: Devices, *, num_steps: int) -> None:
        self.env = env
        self._network = network
        self._devices = devices
        across = devices.across
        share = VectorEnv(env.env, env.num_envs // devices.count)
        self._start = devices.jit(lambda key: start(share, network, key, across=across), takes=(SAME,), gives=GAMES)
        self._collect = devices.jit(
            make_collect(share, network, num_steps=num_steps, across=across),
            takes=(SAME, GAMES, SAME),
            gives=(GAMES, ROLLOUT, STEPS),
        )

        def find(index: EventIndex, said: Array) -> tuple[Array, Array]:
            caption_id, num_unknown = lookup(index, said)
            return caption_id, across.sum(num_unknown)

        self._find = devices.jit(find, takes=(SAME, STEPS), gives=(STEPS, SAME))

    def start(self, key: Array) -> ActorState:
        """Starts an episode in every game."""
        return self._start(key)

    def collect(self, params: Params, state: ActorState, key: Array) -> tuple[ActorState, Rollout, Array]:
        """Begins a rollout and returns at once; what was said are event codes `uint8[T, B, E]`."""
        return self._collect(params, state, key)

    def caption_ids(self, said: Array, captions: CaptionTable) -> tuple[Int[Array, "T B"], list[bytes]]:
        """Finds captions on the device; only codes never seen before come to the host."""
        caption_id, num_unknown = self._find(captions.index, said)
        if int(num_unknown) == 0:
            return caption_id, []
        unknown = np.asarray(said)[np.asarray(caption_id) < 0]
        new = captions.intern_events(unknown, self.env.env.describe)
        caption_id, _ = self._find(captions.index, said)
        return caption_id, [captions.texts[i] for i in new]

    def watch(self) -> None:
        """Does nothing: what the policy sees is all that there is to see."""

    def take_scenes(self) -> Scenes | None:
        """Returns None."""
        return None

    def play(self, params: Params, *, num_episodes: int, seed: int, choose: Choose) -> Episodes:
        """Plays episodes, many at once."""
        games = VectorEnv(self.env.env, min(num_episodes, MAX_GAMES))
        params = self._devices.on_first(params)
        return play(games, self._network, params, num_episodes=num_episodes, seed=seed, choose=choose)

    def record(self, params: Params, folder: Path, *, num_episodes: int, seed: int, choose: Choose) -> list[str]:
        """Draws every step: an animated GIF and a text file with actions, rewards and captions for each episode."""
        if not isinstance(self.env.env, Renders):
            raise OniError(f"{self.env.spec.id} cannot draw itself, so there is nothing to record: leave --record out")
        one = VectorEnv(self.env.env, 1)
        params = self._devices.on_first(params)
        episodes = record(one, self._network, params, num_episodes=num_episodes, seed=seed, choose=choose)
        paths: list[str] = []
        for number, frames in enumerate(episodes):
            path = folder / f"episode-{number:03d}"
            write_episode(frames, path)
            paths.append(f"{path}.gif")
        return paths

    def figures(self) -> dict[str, float | int]:
        """Nothing: games inside jit have no life of their own."""
        return {}

    def snapshot(self) -> dict[str, Any]:
        """Nothing: the games are in `ActorState`."""
        return {}

    def restore(self, state: ActorState, snapshot: dict[str, Any]) -> ActorState:
        """Returns the state, each game on its device."""
        return self._devices.place(state, GAMES)

    def close(self) -> None:
        """Does nothing."""
