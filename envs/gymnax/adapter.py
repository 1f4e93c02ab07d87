"""The environments of gymnax 1.0 as `JaxEnv`s.

Only `reset_env` and `step_env` of the library are used: its `step` resets by itself, which here is the vector's part
(`envs.vector`), and builds a new world in every step for that.
"""

import difflib
import functools
import inspect
import itertools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from envs.errors import EnvError, EnvUnavailable
from envs.gymnax import pictures
from envs.gymnax.games import GAMES, REWARDS
from envs.gymnax.sentences import Game, Step
from envs.pictures import Picture
from envs.types import EnvSpec, JaxEnv, ObsSpec, TimeStep

LEVELS = 5
"""Values of each dimension of a continuous action that can be chosen, by default."""

_MAX_ACTIONS = 1_000
"""Combinations of continuous values above which picking among them makes no sense."""

Option = bool | int | float | str
"""What a config file can give for an option."""


def names() -> list[str]:
    """Lists the environments: the part of the id after `gymnax:`."""
    return list(GAMES)


def make(name: str, *, max_steps: Option | None = None, levels: Option | None = None, **options: Option) -> JaxEnv[Any]:
    """Creates an environment.

    Args:
        max_steps: step limit of an episode, default the environment's own.
        levels: the policy picks among discrete actions; where the environment's are continuous, it picks one of so
            many values for each dimension, evenly spaced over their range.
        options: what else the library takes for this environment, by its own names: arguments of its class (`size` of
            DeepSea) and parameters (`memory_length` of MemoryChain).

    Raises:
        EnvError: an option is not known to this environment or cannot be used.
        EnvUnavailable: the environment needs data that is not on this machine.
    """
    import gymnax

    if name == "MNISTBandit-bsuite":
        _require_mnist()
    env, params = gymnax.make(name)
    parameters = inspect.signature(type(env)).parameters.values()
    of_class = {parameter.name: parameter.default for parameter in parameters if isinstance(parameter.default, Option)}
    of_params = {key: value for key, value in vars(params).items() if isinstance(value, Option)}
    _check_known(name, options, of_class | of_params)
    if options.keys() & of_class.keys():
        arguments = {key: value for key, value in options.items() if key in of_class}
        try:
            env, params = gymnax.make(name, **arguments)
        except (AssertionError, TypeError, ValueError) as error:
            raise EnvError(f"env.options of gymnax:{name}: {arguments} cannot be used ({error})") from error
    changes = {key: value for key, value in options.items() if key in of_params}
    if max_steps is not None:
        if type(max_steps) is not int or max_steps < 1:
            raise EnvError(f"env.options.max_steps must be a whole number of at least 1, not {max_steps!r}")
        changes["max_steps_in_episode"] = max_steps
    return _wrap(name, env, params.replace(**changes), levels)


def _check_known(name: str, options: dict[str, Option], known: dict[str, Option]) -> None:
    """Returns if every option is known and of the type of its default, or a whole number for a fraction."""
    for key, value in options.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f": did you mean {near[0]!r}?" if near else f", it has {', '.join(sorted(known))}"
            raise EnvError(f"env.options of gymnax:{name}: there is no option {key!r}{hint}")
        default = known[key]
        if type(value) is not type(default) and not (type(default) is float and type(value) is int):
            raise EnvError(
                f"env.options.{key} of gymnax:{name} is {value!r}, expected {type(default).__name__} as is its "
                f"default {default!r}"
            )


def _require_mnist() -> None:
    """Returns if the images are there: the library would fetch them from the network in the middle of a run.

    Raises:
        EnvUnavailable: they are not.
    """
    from gymnax.utils import load_mnist

    folder = Path(inspect.signature(load_mnist.load_mnist).parameters["directory"].default)
    if not any(folder.glob("train-images*")):
        raise EnvUnavailable(
            f"gymnax:MNISTBandit-bsuite needs the MNIST images in {folder}: fetch them once with "
            'python -c "from gymnax.utils import load_mnist; load_mnist.load_mnist()"'
        )


def _wrap(name: str, env: Any, params: Any, levels: Option | None) -> JaxEnv[Any]:
    space = env.action_space(params)
    continuous = not hasattr(space, "n")
    if levels is not None and not continuous:
        raise EnvError(f"env.options.levels: the actions of gymnax:{name} are discrete already")
    table = _action_table(name, space, LEVELS if levels is None else levels) if continuous else None
    game = GAMES[name]
    wrapper = Gymnax if game.draw is None else DrawnGymnax
    return wrapper(f"gymnax:{name}", env, params, game, table)


def _action_table(name: str, space: Any, levels: Option) -> np.ndarray:
    """Returns the vectors that the policy picks among, `float32[num_actions, dimensions]`."""
    if type(levels) is not int or levels < 2:
        raise EnvError(f"env.options.levels must be a whole number of at least 2, not {levels!r}")
    size = int(np.prod(space.shape))
    if levels**size > _MAX_ACTIONS:
        raise EnvError(
            f"env.options.levels {levels}: gymnax:{name} has {size} dimensions of action, which makes {levels**size} "
            f"actions, and the policy picks among at most {_MAX_ACTIONS}"
        )
    low, high = (
        np.broadcast_to(np.asarray(bound, np.float32), space.shape).ravel() for bound in (space.low, space.high)
    )
    values = [np.linspace(a, b, levels, dtype=np.float32) for a, b in zip(low, high, strict=True)]
    return np.array(list(itertools.product(*values)), np.float32).reshape(-1, *space.shape)


def _action_names(env: Any, params: Any, game: Game, table: np.ndarray | None) -> tuple[str, ...]:
    if table is not None:
        return tuple(", ".join(f"{value:.3g}" for value in vector.ravel()) for vector in table)
    numbers = range(env.action_space(params).n)
    if not game.actions:
        return tuple(f"action {number}" for number in numbers)
    used = np.asarray(getattr(env, "action_set", numbers))  # MinAtar leaves out the actions that do nothing
    return tuple(game.actions[number] for number in used)


class Gymnax:
    """One environment of gymnax.

    obs: what the library observes. Whole numbers of a discrete space (FrozenLake) are one category; the cells of
    MinAtar, which are 0 or 1, are bool planes; all else is float32.
    action: the library's; a number for each combination of levels where the library's is continuous.
    reward: the library's.
    end: terminated where the library terminates, truncated at `max_steps_in_episode`. `success` is what `Game.won`
    says, and false for games that are not won.
    captions: what `envs.gymnax.games` lists.
    """

    def __init__(self, env_id: str, env: Any, params: Any, game: Game, action_table: np.ndarray | None) -> None:
        self._env = env
        self._params = params
        self._game = game
        self._table = action_table
        self._sentences = tuple(game.sentences)
        obs, self._first_state = jax.eval_shape(lambda k: env.reset_env(k, params), jax.random.key(0))
        space = env.observation_space(params)
        self._categories: int | None = getattr(space, "n", None)
        planes = env_id.endswith("-MinAtar")
        if self._categories is not None:
            spec = ObsSpec((1,), np.dtype(np.int32), (self._categories,))
        else:
            spec = ObsSpec(obs.shape, np.dtype(np.bool_ if planes else np.float32))
        self.spec = EnvSpec(
            id=env_id,
            obs=spec,
            action_names=_action_names(env, params, game, action_table),
            max_episode_steps=int(params.max_steps_in_episode),
            event_size=len(self._sentences),
            reward=REWARDS[env_id.partition(":")[2]],
        )

    @functools.cached_property
    def _state_like(self) -> Any:
        """Shapes and types of the state that hold for a first one and for all that follow it.

        Found out when first needed: `oni envs list` does without.
        """
        key = jax.eval_shape(lambda: jax.random.key(0))

        def after(k: PRNGKeyArray, state: Any) -> Any:
            return self._env.step_env(k, state, self._act(jnp.zeros((), jnp.int32)), self._params)[1]

        def dtypes(state: Any) -> Any:
            return jax.tree.map(lambda leaf: leaf.dtype, state)

        state = self._first_state
        while True:
            settled = jax.tree.map(
                lambda a, b: jax.ShapeDtypeStruct(a.shape, jnp.promote_types(a.dtype, b.dtype)),
                state,
                jax.eval_shape(after, key, state),
            )
            if dtypes(settled) == dtypes(state):
                return settled
            state = settled

    def _act(self, action: Array) -> Array:
        return action if self._table is None else jnp.asarray(self._table)[action]

    def _cast(self, state: Any) -> Any:
        # The library starts with Python numbers, whose types are weak and may differ from those of the next step,
        # which would compile the rollout twice.
        return jax.tree.map(lambda leaf, like: jax.lax.convert_element_type(leaf, like.dtype), state, self._state_like)

    def _observe(self, obs: Array) -> Array:
        promised = self.spec.obs
        assert isinstance(promised, ObsSpec)
        return obs.reshape(promised.shape).astype(promised.dtype)

    def reset(self, key: PRNGKeyArray) -> tuple[Any, TimeStep]:
        """Starts an episode."""
        obs, state = self._env.reset_env(key, self._params)
        return self._cast(state), TimeStep(
            obs=self._observe(obs),
            reward=jnp.float32(0.0),
            terminated=jnp.bool_(False),
            truncated=jnp.bool_(False),
            event=jnp.zeros(self.spec.event_size, jnp.uint8),
            info={"success": jnp.bool_(False)},
        )

    def step(self, key: PRNGKeyArray, state: Any, action: Array) -> tuple[Any, TimeStep]:
        """Plays one action."""
        act = self._act(action)
        obs, new_state, reward, terminated, _ = self._env.step_env(key, state, act, self._params)
        new_state = self._cast(new_state)
        reward = jnp.asarray(reward).astype(jnp.float32)
        terminated = jnp.asarray(terminated).astype(jnp.bool_)
        truncated = (self._env.is_truncated(new_state, self._params) & ~terminated).astype(jnp.bool_)
        step = Step(self._env, self._params, state, new_state, act, reward, terminated, truncated)
        happened = [jnp.asarray(check(step), jnp.uint8) for check in self._game.sentences.values()]
        return new_state, TimeStep(
            obs=self._observe(obs),
            reward=reward,
            terminated=terminated,
            truncated=truncated,
            event=jnp.stack(happened) if happened else jnp.zeros(0, jnp.uint8),
            info={"success": (terminated | truncated) & jnp.asarray(self._game.won(step), jnp.bool_)},
        )

    def depict(self, obs: np.ndarray) -> Picture:
        """Returns what is seen: a grid of cells, or numbers."""
        return pictures.picture(self.spec.id.partition(":")[2], obs)

    def describe(self, event: np.ndarray) -> str:
        """Returns the caption of an event: the sentences that apply."""
        return " ".join(sentence for sentence, said in zip(self._sentences, event, strict=True) if said)


class DrawnGymnax(Gymnax):
    """One environment of gymnax that is a grid of cells."""

    def render(self, state: Any) -> np.ndarray:
        """Draws one state."""
        assert self._game.draw is not None
        return self._game.draw(self._env, self._params, jax.device_get(state))
