"""`check_env` over games on the host: those that are registered, and those that break one rule each."""

import itertools

import numpy as np
import pytest
from host_games import Hall, QuietHallEnv

import envs
from envs.errors import EnvContractError
from envs.host.probes import PROBES
from envs.host.types import GameStep
from envs.testing import check_env

PROCESS_WIDE = itertools.count()


@pytest.mark.slow
@pytest.mark.parametrize("name", PROBES)
def test_host_probes_keep_the_contract(name):
    assert check_env(envs.make(f"hostprobe:{name}")) == (2 if name == "intrinsic" else 0)


@pytest.mark.slow
def test_the_hall_keeps_the_contract():
    assert check_env(CheckedEnv()) > 50


class CheckedEnv(QuietHallEnv):
    """A hall with something spoiled."""

    def __init__(self, rule="", **spec):
        super().__init__()
        self.factory, self.options = f"{__name__}:make_spoiled", {"rule": rule}
        self.spec = self.spec._replace(**spec)
        self._kept = None
        self._rule = rule

    def observe(self, raw):
        obs = {name: array.copy() for name, array in raw.items()}
        match self._rule:
            case "observe leaves out":
                del obs["screen"]
            case "observe another dtype":
                obs["state"] = obs["state"].astype(np.int32)
            case "observe another shape":
                obs["state"] = obs["state"][:, :2]
            case "observe changes raw":
                raw["state"][:] = 0
            case "observe keeps":
                if self._kept is None or len(self._kept["state"]) < len(obs["state"]):
                    self._kept = obs
                for name, array in obs.items():
                    self._kept[name][: len(array)] = array + (len(array) == 1)
                obs = {name: array[: len(obs[name])] for name, array in self._kept.items()}
            case "observe by neighbours":
                obs["state"] -= obs["state"].min(axis=0)
        return obs


class Spoiled(Hall):
    """A hall that breaks a rule."""

    def __init__(self, rule):
        super().__init__()
        self._rule = rule
        self._seed = 0
        self._resets = 0

    def reset(self, seed):
        self._seed = seed
        self._resets += 1
        if self._rule == "remembers the episode before":
            seed += min(self._resets, 2)
        if self._rule == "shares state with other games":
            seed += next(PROCESS_WIDE)
        if self._rule == "differs in every process":
            seed += hash("hall") % 1000
        super().reset(seed)
        if self._rule == "leaves bytes unwritten":
            self._raw["screen"][1] = self._stale

    def attach(self, raw):
        super().attach(raw)
        self._stale = raw["screen"][1]  # a view: what is there stays there

    def _write(self):
        if self._rule == "leaves bytes unwritten":
            self._raw["state"][:] = self._mind, self._steps, self._version
            self._raw["screen"][0] = self._mind % 256
        else:
            super()._write()

    def step(self, action):
        result = super().step(action)
        match self._rule:
            case "resets by itself" if result.terminated:
                super().reset(self._seed)
            case "success before the end":
                return result._replace(success=True)
            case "text caption":
                return result._replace(caption="You hear the wind.")
            case "long caption":
                return result._replace(caption=b"x" * 1025)
            case "infinite reward":
                return result._replace(reward=float("nan"))
            case "tuple":
                return tuple(result)
            case "terminated as number":
                return result._replace(terminated=int(result.terminated))
        return result._replace(caption=result.caption[:1024])

    def stats(self):
        if self._rule == "missing figure":
            return {"steps": self._steps}
        return super().stats()

    def ending(self):
        return None if self._rule == "no words" else super().ending()


class Halfway:
    """No game."""

    def reset(self, seed):
        pass

    def step(self, action):
        return GameStep(0.0, False, b"")


def make_spoiled(rule):
    return Halfway() if rule == "no game" else Spoiled(rule)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("observe leaves out", r"observe returns \['state'\]"),
        ("observe another dtype", r"obs 'state' of 8 rows is int32\[8, 3\], the spec promises int64\[8, 3\]"),
        ("observe another shape", r"obs 'state' of 8 rows is int64\[8, 2\]"),
        ("observe changes raw", "changes the raw arrays"),
        ("observe keeps", "changes what it returned before"),
        ("observe by neighbours", "a row alone otherwise than among others"),
        ("remembers the episode before", "two different episodes: games that had played before"),
        ("shares state with other games", "two different episodes: games that had played before"),
        ("leaves bytes unwritten", "arrays that held something else, gave other raw observations"),
        ("resets by itself", "they reset by themselves"),
        ("success before the end", "success is true before the end"),
        ("text caption", "caption is 'You hear the wind.', expected bytes"),
        ("long caption", "a caption has 1025 bytes"),
        ("infinite reward", "not finite: nan"),
        ("tuple", "step returned tuple"),
        ("terminated as number", "terminated is 0, expected a bool"),
        ("missing figure", "stats gives None for 'mind'"),
        ("no words", "ending is None"),
        ("no game", "made a Halfway, which lacks methods"),
    ],
)
def test_every_broken_rule_of_games_is_named(rule, message):
    with pytest.raises(EnvContractError, match=message):
        check_env(CheckedEnv(rule))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rule", "message"), [("differs in every process", "two different episodes: worker processes gave other")]
)
def test_games_that_differ_in_workers_are_found(rule, message):
    with pytest.raises(EnvContractError, match=message):
        check_env(CheckedEnv(rule))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"obs": {}}, "spec.obs must name its arrays"),
        ({"obs": QuietHallEnv().spec.obs["state"]}, "spec.obs must name its arrays"),
        ({"action_names": ()}, "action_names is empty"),
        ({"max_episode_steps": 0}, "max_episode_steps is 0"),
        ({"event_size": 2}, "event_size is 2"),
        ({"says_text": False}, "the spec says that there are none"),
        (
            {"obs": {n: s._replace(num_values=(9,) * s.shape[-1]) for n, s in QuietHallEnv().spec.obs.items()}},
            "the spec promises values below",
        ),
    ],
)
def test_wrong_specs_are_named(spec, message):
    with pytest.raises(EnvContractError, match=message):
        check_env(CheckedEnv(**spec))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"raw": {}}, "raw must name at least one array"),
        ({"options": {"rule": b"bytes"}}, "options must be JSON values"),
        ({"options": {"rule": ("a", "b")}}, "options must be JSON values"),
        ({"factory": "host_games:nothing"}, "'host_games:nothing' must be a function that can be imported"),
        ({"factory": "no_such_module:make"}, "must be a function"),
        ({"factory": "host_games"}, "must be a function"),
    ],
)
def test_wrong_descriptions_are_named(changes, message):
    env = CheckedEnv()
    for name, value in changes.items():
        setattr(env, name, value)
    with pytest.raises(EnvContractError, match=message):
        check_env(env)


def test_own_host_environment_by_module_and_name():
    env = envs.make("host_games:QuietHallEnv", limit=7)
    assert isinstance(env, envs.HostEnv)
    assert env.spec.max_episode_steps == 7
