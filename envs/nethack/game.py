"""One NetHack game as a worker plays it: `envs.host.types.Game`."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from envs.errors import EnvError
from envs.host.types import Arrays, GameStep
from envs.nethack import prompts
from envs.nethack.actions import ASKING, CAST, ESC, MORE, PICK_UP, RETURN, SPACE, action_set
from envs.nethack.engine import Engine, Setup, check_character
from envs.nethack.prompts import Kind, Prompt
from envs.nethack.recording import Recorder
from envs.nethack.tasks import TASKS, TIME, Task, Views

MAP_SHAPE = (21, 79)
SCREEN_SHAPE = (24, 80)
MESSAGE_BYTES = 256
CAPTION_BYTES = 1024

# What the trainer sees of a game, as NLE names, shapes and fills it. misc: whether the game asks for a key, for a line
# of text, or waits for a window to be answered.
RAW: Mapping[str, tuple[tuple[int, ...], type[np.generic]]] = {
    "chars": (MAP_SHAPE, np.uint8),
    "colors": (MAP_SHAPE, np.uint8),
    "blstats": ((27,), np.int64),
    "message": ((MESSAGE_BYTES,), np.uint8),
    "misc": ((3,), np.int32),
}
# What only the game itself reads.
_PRIVATE: Mapping[str, tuple[tuple[int, ...], type[np.generic]]] = {
    "glyphs": (MAP_SHAPE, np.int16),
    "internal": ((9,), np.int32),
    "program_state": ((6,), np.int32),
}
# What the game reads, and people see where the trainer asks for scenes.
_SCREEN: Mapping[str, tuple[tuple[int, ...], type[np.generic]]] = {
    "tty_chars": (SCREEN_SHAPE, np.uint8),
    "tty_cursor": ((2,), np.uint8),
}
_GAME_OVER, _IN_MOVE_LOOP = 0, 3  # places in program_state
_DEEPEST = 0  # place in internal

_MAX_KEYS = 1_000  # pressed to get through pages of text before the game counts as stuck; NLE allows as many
_SELECT_ALL = ord(".")
STATS = ("score", "depth", "max_depth", "experience_level", "gold", "turns")
_STAT_PLACES = {"score": 9, "depth": 12, "experience_level": 18, "gold": 13, "turns": TIME}


def make_game(
    *,
    task: str,
    actions: str = "task",
    character: str = "mon-hum-neu-mal",
    record_dir: str | None = None,
    wizard: bool = False,
) -> "NetHackGame":
    """Makes a game in a worker process; the options are those of `envs.nethack.adapter.make`.

    wizard: NetHack's debug mode, for tests.

    Raises:
        EnvError: an option has a value that cannot be used.
    """
    if task not in TASKS:
        raise EnvError(f"task is {task!r}, expected one of: {', '.join(TASKS)}")
    keys = [action.key for action in action_set(actions)]
    setup = Setup(
        check_character(character),
        autopickup="$" if task == "gold" else "$?!/",  # as NLE
        wizard=wizard,
    )
    recorder = None if record_dir is None else Recorder(Path(record_dir) / task)
    return NetHackGame(setup, TASKS[task](), keys, recorder)


class NetHackGame:
    """Plays NetHack: one action is one command or one answer, and all that the game says to it is one caption.

    Pages behind `--More--` are turned by itself. A caption is all of them, two spaces apart as NetHack puts several
    messages on a line, followed by what a text window shows ("Things that are here:"), at most 1,024 bytes; on the last
    step it ends with "You die..." or the like. The raw message is the first 256 bytes of it.

    `more` when there is nothing to answer does nothing, and no key reaches the game.

    The scene of death stays in the arrays when an episode is over (NLE would blank them).

    A recording of an episode is complete when the next one has begun or the game is closed.
    """

    def __init__(self, setup: Setup, task: Task, keys: list[int], recorder: Recorder | None) -> None:
        self._setup = setup
        self._task = task
        self._keys = keys
        self._recorder = recorder
        self._engine: Engine | None = None
        self._arrays: dict[str, np.ndarray] = {}

    def attach(self, raw: Arrays) -> None:
        # NLE insists on the very dtype objects, which arrays over shared memory need not have.
        arrays = {name: raw[name].view(dtype) for name, (_, dtype) in RAW.items()}
        for name, (shape, dtype) in _PRIVATE.items():
            arrays[name] = np.zeros(shape, dtype)
        self._shows = all(name in raw for name in _SCREEN)
        for name, (shape, dtype) in _SCREEN.items():
            arrays[name] = raw[name].view(dtype) if self._shows else np.zeros(shape, dtype)
        self._arrays = arrays
        self._message = arrays["message"]
        self._blstats = arrays["blstats"].data
        self._text_view = arrays["message"].data
        self._misc = arrays["misc"].data
        self._program_state = arrays["program_state"].data
        self._internal = arrays["internal"].data
        self._views = Views(self._blstats, self._internal, arrays["glyphs"].data, arrays["glyphs"])
        if self._engine is not None:
            self._engine.attach(arrays)

    def reset(self, seed: int) -> None:
        if not self._arrays:
            raise RuntimeError("attach the arrays of the game before its first reset")
        recording = self._recorder.next_path(seed) if self._recorder else None
        if self._engine is None:
            self._engine = Engine(self._setup, self._arrays, seed, recording)
        else:
            self._engine.reset(seed, recording)
        if self._recorder and recording:
            self._recorder.begin(recording)
        self._press = self._engine.native.step
        self._is_done = self._engine.native.done
        self._prompt: Prompt | None = None
        self._command = ESC
        self._scene: dict[str, np.ndarray] | None = None
        self._outcome = "still alive"
        pages: list[bytes] = []
        for _ in range(_MAX_KEYS):
            pages += self._settle(b"")
            if self._program_state[_IN_MOVE_LOOP]:
                break
            self._press(SPACE)
        else:
            raise EnvError(f"NetHack did not start with character {self._setup.character!r} and seed {seed}")
        self._show(b"  ".join(pages))
        self._task.start(self._views)

    def step(self, action: int) -> GameStep:
        key, prompt = self._keys[action], self._prompt
        if prompt is not None:
            key = prompts.answer(prompt, key)
            self._prompt = prompt if prompts.still_open(prompt, key) else None
        elif key == MORE:
            return self._idle()
        else:
            self._command = key
        self._before = self._blstats.tobytes()
        self._press(key)
        misc, asked = self._misc, prompt.text if prompt else b""
        if misc[0] or misc[1] or misc[2] or asked or self._is_done():
            caption = self._show(b"  ".join(self._settle(asked)))
            if self._is_done():
                return self._end(caption)
        else:  # nothing to turn or answer: the usual case, made short
            caption = self._text()
            if prompts.PLACE_HINT in caption:
                caption = self._show(b"  ".join(self._settle(asked)))
        reward, reached = self._task.step(key)
        if reached:
            self._outcome = "reached the goal"
        return GameStep(reward, reached, caption, reached)

    def stats(self) -> Mapping[str, float]:
        figures = {name: float(self._blstats[place]) for name, place in _STAT_PLACES.items()}
        return figures | {"max_depth": float(self._internal[_DEEPEST])}

    def ending(self) -> str:
        return self._outcome

    def close(self) -> None:
        if self._engine is not None:
            del self._press, self._is_done
            self._engine.close()
            self._engine = None
            if self._recorder:
                self._recorder.finish()

    def _idle(self) -> GameStep:
        if self._text_view[0]:
            self._message.fill(0)
        reward, _ = self._task.step(MORE)
        return GameStep(reward, False, b"")

    def _end(self, caption: bytes) -> GameStep:
        if self._scene is None:  # died without a word: the map is gone, the figures of the step before are not
            self._scene = {"blstats": np.frombuffer(self._before, np.int64)}
        for name, array in self._scene.items():
            self._arrays[name][...] = array
        assert self._engine is not None
        self._outcome = self._engine.death() or "the game ended"
        return GameStep(0.0, True, caption)

    def _show(self, caption: bytes) -> bytes:
        """Cuts a caption to its length and puts its beginning where the message is read."""
        caption = caption[:CAPTION_BYTES].strip()
        head = caption[:MESSAGE_BYTES]
        self._message[: len(head)] = np.frombuffer(head, np.uint8)
        self._message[len(head) :] = 0
        return caption

    def _text(self) -> bytes:
        return self._text_view.tobytes().partition(b"\0")[0].strip() if self._text_view[0] else b""

    def _settle(self, asked: bytes) -> list[bytes]:
        """Presses keys until the game waits for a command, or for an answer that is the agent's.

        asked: the question just answered. The game repeats it, with the answer, if there is nothing else to say.

        Returns:
            What the game said on the way, page by page.
        """
        pages: list[bytes] = []
        window: list[bytes] = []
        for _ in range(_MAX_KEYS):
            if self._is_done():
                return pages
            asks, wants_line, waits = self._misc
            text = self._text()
            over = self._program_state[_GAME_OVER] == 1
            if over:
                self._keep_scene()
            named = wants_line and not waits  # asked for a name: nothing said
            if text and not named and (asks or not asked or not text.startswith(asked)):
                pages.append(text)
            if waits and text:
                key = SPACE
            elif waits and over:
                key = SPACE  # tombstone and scores: `ending` has what they say
            elif waits:
                lines = self._read_window()
                key = ESC if lines == window else self._handle_window(lines, pages)
                window = lines
            elif asks or wants_line or prompts.PLACE_HINT in text:
                key = self._handle_question(text, bool(asks))
                asked = text
            else:
                key = None
            if key is None:
                return pages
            self._press(key)
        raise RuntimeError(f"NetHack waits for something that no key ends; it last said {pages[-3:]}")

    def _handle_question(self, text: bytes, asks: bool) -> int | None:
        """Leaves a question to the agent (None) or gives the key that declines it."""
        if asks and (self._command in ASKING or b"attack" in text):
            self._prompt = prompts.read_question(text)
        elif not asks and self._command == CAST:
            self._prompt = Prompt(Kind.PLACE, text)
        return ESC if self._prompt is None else None

    def _read_window(self) -> list[bytes]:
        screen = [row.tobytes() for row in self._arrays["tty_chars"]]
        return prompts.window_lines(screen, int(self._arrays["tty_cursor"][0]))

    def _handle_window(self, lines: list[bytes], pages: list[bytes]) -> int | None:
        """Gives the key that goes on from a window, None to let the agent choose a line."""
        pages.extend(lines)
        offered = prompts.read_menu(lines)
        if offered and self._command == PICK_UP:
            self._press(_SELECT_ALL)
            return RETURN
        if offered and self._command == CAST and lines[0].startswith(b"Choose which spell"):
            self._prompt = Prompt(Kind.CHOICE, lines[0], offered)
            return None
        return SPACE

    def _keep_scene(self) -> None:
        if self._scene is None and self._blstats[TIME]:
            names = ("chars", "colors", "blstats", *(_SCREEN if self._shows else ()))
            self._scene = {name: self._arrays[name].copy() for name in names}
