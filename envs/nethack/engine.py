"""One NetHack in this process: seeded, without a trace of the wall clock or of earlier episodes, writing where told.

NLE's class `Nethack` owns a copy of the game library and a scratch folder. Its `_pynethack` object, the compiled part,
is driven directly: NLE's Python around it would return every array anew at each key.
"""

import _ctypes
import ctypes
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from envs.errors import EnvError

ROLES = ("arc", "bar", "cav", "hea", "kni", "mon", "pri", "rog", "ran", "sam", "tou", "val", "wiz")
RACES = ("hum", "elf", "dwa", "gno", "orc")
ALIGNMENTS = ("law", "neu", "cha")
GENDERS = ("mal", "fem")

# When every hero was born, in seconds. NetHack names its shopkeepers (and decides their sex) by this (`nameshk` of
# shknam.c), and takes it from the clock; NLE's fix_moon_phase does not reach it.
_BIRTHDAY = 0
_LIBRARY_FLAGS = os.RTLD_NOW | getattr(os, "RTLD_NOLOAD", 4)


class Setup(NamedTuple):
    """What is fixed about a game. autopickup: classes of objects that are picked up by walking over them."""

    character: str
    autopickup: str
    wizard: bool = False


def check_character(character: str) -> str:
    """Checks a character such as `mon-hum-neu-mal` (role, race, alignment, gender), or `@` for one drawn by the seed.

    Raises:
        EnvError: a part of it is not known.
    """
    parts = character.split("-")
    known = (ROLES, RACES, ALIGNMENTS, GENDERS)
    if character != "@" and not (len(parts) == 4 and all(p in k for p, k in zip(parts, known, strict=True))):
        raise EnvError(
            f"character is {character!r}, expected role-race-alignment-gender such as mon-hum-neu-mal, or @ for a "
            f"random one; roles: {' '.join(ROLES)}; races: {' '.join(RACES)}; alignments: {' '.join(ALIGNMENTS)}"
        )
    return character


def _options(setup: Setup) -> list[str]:
    """NLE's default options, with no look back at the inventory and attributes when the hero dies."""
    from nle import nethack

    kept = [option for option in nethack.NETHACKOPTIONS if not option.startswith(("disclose", "pickup_types"))]
    return [*kept, "disclose:-i -a -v -g -c -o", f"pickup_types:{setup.autopickup}"]


class Engine:
    """A running NetHack. Raises what NLE raises; `close` gives back its library, folder and recording."""

    def __init__(self, setup: Setup, arrays: Mapping[str, np.ndarray], seed: int, recording: Path | None) -> None:
        from nle import nethack

        make: Any = nethack.Nethack  # its signature is narrower than what it takes
        self._nle: Any = make(
            observation_keys=(),
            playername=f"Agent-{setup.character}",
            ttyrec=None if recording is None else str(recording),
            options=_options(setup),
            wizard=setup.wizard,
            fix_moon_phase=True,
        )
        self.native: Any = self._nle._pynethack  # noqa: SLF001 - see above
        self._folder = Path(self._nle._vardir)  # noqa: SLF001
        self.native.set_buffers(**arrays)
        self.reset(seed, None)

    def reset(self, seed: int, recording: Path | None) -> None:
        """Starts the game of a seed, in a fresh copy of the library, which ends the one before.

        recording: file the keys and the screen are written to from here on.
        """
        # The list of high scores is read for the names of corpses and statues (`get_rnd_toptenentry` of topten.c).
        for name in ("record", "logfile", "xlogfile"):
            os.truncate(self._folder / name, 0)
        core, display = (int(word) >> 1 for word in np.random.SeedSequence(seed).generate_state(2, np.uint64))
        self.native.set_initial_seeds(core, display, False, None)
        if recording is None:
            self.native.reset()
        else:
            self.native.reset(str(recording))
        self._pin_birthday()

    def attach(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Ends the running game; the next one writes to other arrays. NLE does not take them while a game runs."""
        self.native.close()
        self.native.set_buffers(**arrays)

    def death(self) -> str:
        """Reads how the hero died off the line that NetHack wrote about it, empty if it wrote none."""
        lines = (self._folder / "xlogfile").read_text("latin-1").splitlines()
        fields = dict(field.split("=", 1) for field in lines[-1].split("\t") if "=" in field) if lines else {}
        cause = fields.get("death", "")
        return f"{cause}, while {fields['while']}" if "while" in fields else cause

    def close(self) -> None:
        """Ends the game."""
        self.native = None  # the recording is only complete when the last reference is gone
        self._nle.close()

    def _pin_birthday(self) -> None:
        # The handle is given back at once: one that is kept would keep the library, and with it the old game, alive.
        library = ctypes.CDLL(self._nle.dlpath, mode=_LIBRARY_FLAGS)
        try:
            ctypes.c_long.in_dll(library, "ubirthday").value = _BIRTHDAY
        finally:
            _ctypes.dlclose(library._handle)  # noqa: SLF001 - ctypes has no other way
