"""Turns what was cut out of a rollout into moments for people."""

import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from envs.host.types import HostEnv, ShowsScenes
from envs.pictures import Picture, depict, plain_picture
from envs.types import JaxEnv
from llm_annotator.moments import NO_ACTION, Frame, Moment
from oni.actors.scenes import ScenesOfGame
from oni.sampling.reservoir import Pick
from oni.sampling.windows import Span, Window

_log = logging.getLogger(__name__)


class Cut(NamedTuple):
    """One moment as it was cut out of a rollout.

    window: of this game alone, on the host. span: which of its steps count. scenes: what the game showed at these
    steps; None where pictures are made of observations.
    """

    pick: Pick
    window: Window
    span: Span
    scenes: ScenesOfGame | None


class Source(NamedTuple):
    """What is known of the rollout that a moment was cut out of.

    env_step: steps done before it, over all games. num_envs, num_steps: games, and steps of each. caption_of: the text
    of a caption id.
    """

    env_step: int
    num_envs: int
    num_steps: int
    caption_of: Callable[[int], bytes]


class Renderer:
    """Makes moments. For one thread.

    Args:
        before: steps in a window before the one in the middle.
        breathe: called between two pictures, so that other threads get their turn.
    """

    def __init__(
        self, env: JaxEnv[Any] | HostEnv, *, before: int, breathe: Callable[[], object] = lambda: None
    ) -> None:
        self._env = env
        self._depict_scene = env.depict_scene if isinstance(env, ShowsScenes) else None
        self._before = before
        self._breathe = breathe
        self._has_failed = False

    def moment(self, cut: Cut, source: Source) -> Moment:
        """Returns a moment with its pictures, equal ones once."""
        pictures: list[Picture] = []
        places: dict[bytes, int] = {}

        def place_of(seen: Any) -> int:
            key = b"".join(np.ascontiguousarray(leaf).tobytes() for leaf in jax.tree.leaves(seen))
            if key not in places:
                places[key] = len(pictures)
                pictures.append(self._picture(seen, of_scene=cut.scenes is not None))
                self._breathe()
            return places[key]

        span = cut.span
        frames = [self._frame(cut, source, step) for step in range(span.first, span.last + 1)]
        seen = self._seen(cut)
        if len(seen) > len(frames):
            frames.append(_last_frame(frames[-1].env_step + source.num_envs))
        return Moment(
            env=self._env.spec.id,
            row=cut.pick.row,
            centre=cut.pick.step - span.first,
            frames=tuple(frame._replace(picture=place_of(one)) for frame, one in zip(frames, seen, strict=True)),
            pictures=tuple(pictures),  # pyright: ignore[reportArgumentType] - environments do not know the annotator
        )

    def _frame(self, cut: Cut, source: Source, step: int) -> Frame:
        window, i = cut.window, self._place(cut, step)
        action = int(window.action[i])
        return Frame(
            env_step=source.env_step + step * source.num_envs,
            action=action,
            action_name=self._env.spec.action_names[action],
            extrinsic=float(window.extrinsic[i]),
            intrinsic=float(window.intrinsic[i]),
            caption=source.caption_of(int(window.caption_id[i])),
            terminated=bool(window.terminated[i]),
            truncated=bool(window.truncated[i]),
            picture=None,
        )

    def _place(self, cut: Cut, step: int) -> int:
        return step - cut.pick.step + self._before

    def _seen(self, cut: Cut) -> list[Any]:
        """Returns what is drawn for each step, and for what came after the last one if that is known."""
        span = cut.span
        last = span.last + (1 if span.shows_after else 0)
        if cut.scenes is not None:
            shown = [cut.scenes.before[step] for step in range(span.first, last + 1)]
            ending = cut.scenes.endings.get(span.last) if span.ended else None
            return shown if ending is None else [*shown, ending]
        places = [self._place(cut, step) for step in range(span.first, last + 1)]
        seen = [jax.tree.map(lambda leaf, place=place: leaf[place], cut.window.obs) for place in places]
        ending = cut.window.ending
        return [*seen, ending.obs] if ending and span.ended and int(ending.step) == span.last else seen

    def _picture(self, seen: Any, *, of_scene: bool) -> Picture:
        try:
            if of_scene:
                assert self._depict_scene is not None
                return dict(self._depict_scene(seen))
            return depict(self._env, seen)
        except Exception:  # noqa: BLE001 - an environment of the user's own may raise anything, and this is no reason to end
            if not self._has_failed:
                _log.exception("%s cannot draw what it shows; it is shown as numbers", self._env.spec.id)
            self._has_failed = True
            return plain_picture(seen)


def _last_frame(env_step: int) -> Frame:
    return Frame(
        env_step=env_step,
        action=NO_ACTION,
        action_name="",
        extrinsic=0.0,
        intrinsic=0.0,
        caption=b"",
        terminated=False,
        truncated=False,
        picture=None,
    )
