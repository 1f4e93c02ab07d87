"""One level of MiniHack as a worker plays it: NetHack with another dungeon, other options and other goals."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from envs.host.types import GameStep
from envs.minihack.actions import APPLY, ASKING_HERE, YES, actions_of
from envs.minihack.definitions import Definition, Event
from envs.minihack.levels import compile_level
from envs.minihack.rules import DOORS_CLOSED, Rules, cmap_offset
from envs.nethack import prompts
from envs.nethack.actions import ESC
from envs.nethack.engine import Engine, Setup, check_character
from envs.nethack.game import NetHackGame
from envs.nethack.prompts import Kind, Prompt
from envs.nethack.recording import Recorder
from envs.nethack.tasks import X, Y

# As minihack.base.MH_NETHACKOPTIONS, with no look back at the inventory when the hero dies.
_OPTIONS = (
    "color", "showexp", "nobones", "nolegacy", "nocmdassist", "runmode:teleport", "mention_walls", "nosparkle",
    "showscore", "pettype:none", "disclose:-i -a -v -g -c -o",
)  # fmt: skip
_INVENTORY_SLOTS, _INVENTORY_BYTES = 55, 80  # nle.nethack.INV_STRS_SHAPE
_AROUND = b"ykuh.lbjn"  # keys of the squares around the hero, row by row
_PUSHES = 20  # against a door that is stuck, until the agent is asked again
_UNLOCK = b"Unlock it?"
_LOCKED = (b"locked", b"give up", b"stop")  # the lock has not given in
# The key is an artifact that tells rumors, and the archive of a level has none: this is not the game that speaks.
_RUMORS = re.compile(
    rb"(Can't open 'rumors' file\.  Program in disorder!\s*)?"
    rb"(The [^\"]* whispers:\s*)?\"NetHack rumors file closed for renovation\.\"\s*"
)
_RING_FINGER = b"ring-finger"
_ABOUT_FINGERS = b"rl"


def make_game(
    *,
    definition: Mapping[str, Any],
    step_penalty: float = 0.0,
    record_dir: str | None = None,
) -> "MiniHackGame":
    """Makes a game in a worker process.

    Args:
        definition: fields of a `Definition`, as JSON gives them back.
        step_penalty, record_dir: as in `envs.minihack.adapter.make`.

    Raises:
        EnvError: the level cannot be compiled.
    """
    events = [Event(*event) for event in definition["events"]]
    recorder = None if record_dir is None else Recorder(Path(record_dir))
    return MiniHackGame(Definition(**{**definition, "events": events}), step_penalty, recorder)


class LevelEngine(Engine):
    """A NetHack whose dungeon is one level. Also reads the inventory: `letters` and `names` of what is carried."""

    def __init__(self, definition: Definition, arrays: Mapping[str, np.ndarray], *, records: bool) -> None:
        from nle import nethack

        self.letters = np.zeros(_INVENTORY_SLOTS, np.uint8)
        self.names = np.zeros((_INVENTORY_SLOTS, _INVENTORY_BYTES), np.uint8)
        make: Any = nethack.Nethack  # its signature is narrower than what it takes
        self._nle: Any = make(
            observation_keys=(),
            playername=f"Agent-{check_character(definition.character)}",
            ttyrec="/dev/null" if records else None,  # each episode names its own file when it begins
            options=[*_OPTIONS, *(() if definition.autopickup else ("!autopickup",))],
            spawn_monsters=False,
            fix_moon_phase=True,
        )
        self.native: Any = self._nle._pynethack  # noqa: SLF001 - as in Engine
        self._folder = Path(self._nle._vardir)  # noqa: SLF001
        archive = self._folder / "nhdat"
        archive.unlink()  # a link to that of the whole game
        archive.write_bytes(compile_level(definition.description))
        self.native.set_buffers(**self._with_inventory(arrays))

    def _with_inventory(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {**arrays, "inv_letters": self.letters, "inv_strs": self.names}

    def attach(self, arrays: Mapping[str, np.ndarray]) -> None:
        super().attach(self._with_inventory(arrays))

    def letter_of(self, name: bytes) -> int:
        """Returns the key of the first thing carried whose name has these bytes, 0 if there is none."""
        for letter, row in zip(self.letters.tolist(), self.names, strict=True):
            if not letter:
                break
            if name in row.tobytes().partition(b"\0")[0]:
                return letter
        return 0


class MiniHackGame(NetHackGame):
    """Plays a level: captions, questions and recordings are those of `NetHackGame`.

    In the tasks about keys, `apply` takes the key to a closed door beside the hero, unlocks it if need be and pushes it
    open, all in one action, and the caption is all that was said on the way. (The library does so too, but locks a door
    that was only shut.) Without key or door it does nothing: a rogue's lock pick, which would spare the way to the key,
    is never used.
    """

    def __init__(self, definition: Definition, step_penalty: float, recorder: Recorder | None) -> None:
        self._rules = Rules(definition, step_penalty)
        setup = Setup(definition.character, autopickup="")
        super().__init__(setup, self._rules, [action.key for action in actions_of(definition.keys)], recorder)
        self._definition = definition
        self._level: LevelEngine | None = None
        self._doors = [cmap_offset() + door for door in DOORS_CLOSED]

    def reset(self, seed: int) -> None:
        if self._engine is None:
            if not self._arrays:
                raise RuntimeError("attach the arrays of the game before its first reset")
            self._level = LevelEngine(self._definition, self._arrays, records=self._recorder is not None)
            self._engine = self._level
        super().reset(seed)

    def step(self, action: int) -> GameStep:
        key = self._keys[action]
        if self._definition.unlocks and key == APPLY and self._prompt is None:
            result = self._unlock()
        else:
            result = super().step(action)
        if result.terminated and not result.success:
            return result  # the hero died
        paid, over = self._rules.hear(key, result.caption, asked=self._prompt is not None)
        reward = result.reward + paid
        terminated = result.terminated or over
        success = terminated and reward > 0
        if over:
            self._outcome = "reached the goal" if success else "failed the task"
        return GameStep(reward, terminated, result.caption, success)

    def _handle_question(self, text: bytes, asks: bool) -> int | None:
        if asks and self._command in ASKING_HERE:
            if _RING_FINGER in text:
                self._prompt = Prompt(Kind.CHOICE, text, _ABOUT_FINGERS)
            else:
                self._prompt = prompts.read_question(text)
            return ESC if self._prompt is None else None
        return super()._handle_question(text, asks)

    def _door_beside(self) -> int:
        """Returns the key of the direction of a closed door beside the hero, 0 if there is none."""
        x, y = self._blstats[X], self._blstats[Y]
        glyphs = self._views.glyph_array
        for i, key in enumerate(_AROUND):
            row, column = y + i // 3 - 1, x + i % 3 - 1
            if 0 <= row < glyphs.shape[0] and 0 <= column < glyphs.shape[1] and glyphs[row, column] in self._doors:
                return key
        return 0

    def _unlock(self) -> GameStep:
        assert self._level is not None
        key, direction = self._level.letter_of(b"key"), self._door_beside()
        if not key or not direction:
            return self._idle()
        self._command = ESC  # whatever else is asked on the way is declined
        self._before = self._blstats.tobytes()
        asked = b""
        for press in (APPLY, key, direction):
            self._press(press)
            if not self._misc[0]:
                break  # nothing more is asked: the hands are not free, or the like
            asked = self._text()
        if self._misc[0]:
            self._press(YES if asked.startswith(_UNLOCK) else ESC)  # "Lock it?" of a door that is only shut
        pages = self._settle(asked)
        for _ in range(_PUSHES):
            if self._is_done() or not self._opens(direction, pages):
                break
            self._press(direction)
            pages += self._settle(b"")
        caption = self._show(_RUMORS.sub(b"", b"  ".join(pages)))
        if self._is_done():
            return self._end(caption)
        reward, reached = self._task.step(APPLY)
        if reached:
            self._outcome = "reached the goal"
        return GameStep(reward, reached, caption, reached)

    def _opens(self, direction: int, pages: list[bytes]) -> bool:
        """Whether to push on: the door is shut but gives, and it is not at a corner of the hero, where none opens."""
        locked = bool(pages) and any(word in pages[-1] for word in _LOCKED)
        return direction in b"hjkl" and not locked and self._door_beside() == direction
