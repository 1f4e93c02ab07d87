"""Whole runs with an annotator: what their stores hold of moments and scores, and that sampling changes nothing."""

import dataclasses
import importlib.util
import json
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from probing import config as probe_config

from llm_annotator.config import AnnotatorConfig, BackendConfig, LabelerConfig
from llm_annotator.moments import NO_ACTION
from llm_annotator.pictures import picture_text
from llm_annotator.store import Store, StoreReader
from llm_annotator.store.moments import MomentReader
from llm_annotator.types import LabelStatus
from oni.annotation import AnnotationSession
from oni.checkpoint import Checkpoints
from oni.config import EnvConfig, NetworkConfig, PPOConfig, RewardConfig, SamplingConfig, TrainConfig
from oni.configfile import load_config
from oni.rundir import create
from oni.sampling.recording import Recording
from oni.sampling.sampler import Look
from oni.train import train
from oni.trainer import Trainer

pytestmark = [pytest.mark.slow, pytest.mark.e2e]

SCRIPTED = BackendConfig(kind="scripted", options={"helpful_pattern": "(?i)you (kill|see here|pick|find|collect)"})
SAMPLING = SamplingConfig(per_s=1000.0, before=5, after=3, scores_every_s=0.1)
NETWORK = NetworkConfig(hidden_size=16, core="gru", core_size=16)


def needs(package, *values):
    missing = importlib.util.find_spec(package) is None
    return pytest.param(*values, marks=pytest.mark.skipif(missing, reason=f"{package} is not installed"), id=values[0])


FAMILIES = [
    needs("xminigrid", "xminigrid:MiniGrid-BlockedUnlockPickUp", {"talkative": True}, "cells"),
    needs("craftax", "craftax:Craftax-Classic", {"num_worlds": 2, "max_steps": 40}, "cells"),
    needs("gymnax", "gymnax:Breakout-MinAtar", {}, "cells"),
    needs("envpool", "envpool:BabyAI-GoToLocal-v0", {}, "cells"),
    needs("nle", "nethack:score", {"max_episode_steps": 30}, "tty"),
    needs("minihack", "minihack:Room-5x5", {}, "tty"),
    needs("xminigrid", "probe:intrinsic", {}, "text"),
    needs("xminigrid", "hostprobe:intrinsic", {}, "text"),
]


def settings_of(env_id, options, **changes):
    base = TrainConfig(
        total_env_steps=4 * 16 * 12,
        env=EnvConfig(id=env_id, num_envs=4, num_workers=2, options=options),
        network=NETWORK,
        ppo=PPOConfig(num_steps=16, num_epochs=1, num_minibatches=2),
        reward=RewardConfig(kind="retrieval", intrinsic_coef=1.0),
        annotator=AnnotatorConfig(backend=SCRIPTED, labeler=LabelerConfig(goal="Find coins.")),
        sampling=SAMPLING,
    )
    return dataclasses.replace(base, **changes)


def figures(run):
    """The lines of metrics.jsonl without those figures that are times, or of the annotator."""
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    times = ("wall_s", "steps_per_s", "annotator/")
    return [{name: value for name, value in line.items() if not name.startswith(times)} for line in lines]


def moments_in(path):
    """Returns caption, run and moment of everything that a store holds."""
    with StoreReader(path) as reader, MomentReader(path) as moments:
        rows = reader.captions(limit=-1)
        return [(row, one) for row in rows for one in moments.moments(row.caption_id)]


class Kept:
    """What a trainer showed its sampler, on the host."""

    def __init__(self, trainer):
        self.looks = {}
        sampler = trainer._sampler
        look = sampler.look

        def keep(seen: Look):
            host = jax.device_get(seen.rollout)
            self.looks[seen.env_step] = (host, np.asarray(seen.intrinsic), np.asarray(seen.caption_id))
            look(seen)

        sampler.look = keep


def recount(looks, texts):
    """Counts by hand what each caption did: steps, episodes, reward, first and last step (ends of their rollouts)."""
    totals, running = {}, [set() for _ in range(4)]
    for start in sorted(looks):
        rollout, intrinsic, ids = looks[start]
        for step, row in np.ndindex(ids.shape):
            if rollout.reset[step, row]:
                running[row].clear()
            caption = texts[ids[step, row]]
            if caption:
                steps, episodes, reward, first, _ = totals.get(caption, (0, 0, 0.0, start + ids.size, 0))
                is_new = caption not in running[row]
                reward += float(intrinsic[step, row])
                totals[caption] = (steps + 1, episodes + is_new, reward, first, start + ids.size)
                running[row].add(caption)
    return totals


def check_totals(rows, expected):
    assert {row.text for row in rows} == set(expected)
    for row in rows:
        steps, episodes, reward, first, last = expected[row.text]
        assert (row.count, row.episode_count, row.first_step, row.last_step) == (steps, episodes, first, last)
        assert row.reward_sum == pytest.approx(reward, rel=1e-5)


def check_moment(moment, start, look, texts, kind):
    """Compares a moment with the rollout that began at `start`; returns its pictures as text."""
    rollout, intrinsic, ids = look
    pictures, places = set(), []
    for frame in moment.frames:
        step, rest = divmod(frame.env_step - start, 4)
        assert rest == 0
        picture = moment.picture(frame)
        assert picture["kind"] == kind
        pictures.add(picture_text(picture))
        if frame.action == NO_ACTION:
            assert frame is moment.frames[-1]
            continue
        place = step, moment.row
        places.append(place)
        assert frame.action == rollout.action[place]
        assert (frame.extrinsic, frame.intrinsic) == (rollout.reward[place], intrinsic[place])
        assert (frame.terminated, frame.truncated) == (rollout.terminated[place], rollout.truncated[place])
        assert frame.caption == texts[ids[place]]
    assert not any(rollout.reset[place] for place in places[1:]), "of one episode"
    ended = (rollout.terminated | rollout.truncated) & ~rollout.lost
    last_step, row = places[-1]
    is_host = rollout.endings != () or kind == "tty"
    if is_host and ended[last_step, row] and not ended[last_step + 1 :, row].any():
        assert moment.frames[-1].action == NO_ACTION, "how the episode looked at its end is shown"
    return pictures


@pytest.mark.parametrize(("env_id", "options", "kind"), FAMILIES)
def test_a_run_keeps_moments_that_are_what_was_played(env_id, options, kind, tmp_path):
    settings = settings_of(env_id, options)
    run = create(tmp_path / "run", settings)
    with Trainer(settings) as trainer, AnnotationSession(run, settings, trainer.reward_model) as session:
        session.begin(trainer.captions)
        with Recording(settings.sampling, trainer, session.recorder, seed=0) as recording:
            kept = Kept(trainer)
            for _ in range(12):
                trainer.take_labels(session.poll())
                progress = trainer.update()
                session.ask(trainer.captions, progress.new)
                session.tend(trainer.captions, progress.seen)
                recording.after_update()
                time.sleep(0.12)  # rollouts are looked at ten times a second at most
            session.tend(trainer.captions, trainer.flush().seen)
            recording.finish()
            assert recording.counts[1] == 0
            texts, names = trainer.captions.texts, trainer.spec.action_names
        session.finish(trainer.captions, take=trainer.take_labels)
        assert session.health.records_dropped == 0
    found = moments_in(run.store)
    assert len(found) >= 4
    pictures = set()
    for row, stored in found:
        moment = stored.moment
        assert moment is not None, stored.problem
        assert (moment.env, moment.frames[moment.centre].caption) == (env_id, row.text)
        assert moment.frames[moment.centre].env_step == stored.env_step
        start = max(step for step in kept.looks if step <= stored.env_step)
        pictures |= check_moment(moment, start, kept.looks[start], texts, kind)
        assert all(frame.action_name == names[frame.action] for frame in moment.frames if frame.action != NO_ACTION)
    assert len(pictures) > 1
    with StoreReader(run.store) as reader, MomentReader(run.store) as scores:
        rows = [row for row in reader.captions(limit=-1) if row.count]
        told = {row.text: scores.scores(row.caption_id) for row in rows}
        labelled = [row for row in rows if row.status is LabelStatus.LABELLED and len(told[row.text]) > 1]
    assert all(told.values()), "each caption has a score"
    check_totals(rows, recount(kept.looks, texts))
    assert all(told[row.text][-1].score == float(bool(row.helpful)) for row in labelled)


def test_the_screen_of_nethack_is_that_of_the_game(tmp_path):
    pytest.importorskip("nle")
    settings = settings_of("nethack:score", {"max_episode_steps": 25, "observation": "full"})
    run = create(tmp_path / "run", settings)
    train(settings, run, resume=False)
    endings, told = 0, 0
    for _, stored in moments_in(run.store):
        moment = stored.moment
        for before, after in zip(moment.frames, moment.frames[1:], strict=False):
            lines = picture_text(moment.picture(after)).splitlines()
            assert len(lines) > 20, "the status line is there"
            first = before.caption.split(b"  ")[0].decode("latin-1")
            told += bool(first) and first[:40] in "\n".join(lines)
        ending = moment.frames[-1]
        if ending.action == NO_ACTION and (moment.frames[-2].truncated or moment.frames[-2].terminated):
            endings += 1
    assert told >= 5, "what was said stands on the screen after it"
    assert endings >= 1, "the scene at the end of an episode is kept"


def numbers(leaf):
    return np.asarray(jax.random.key_data(leaf) if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf)


SAME_RUN = [
    needs("xminigrid", "xminigrid:MiniGrid-BlockedUnlockPickUp", {"talkative": True}),
    needs("nle", "nethack:score", {"max_episode_steps": 30}),
    ("probe:intrinsic", {}),
    ("hostprobe:intrinsic", {}),
]


@pytest.mark.parametrize(("env_id", "options"), SAME_RUN)
def test_the_same_run_with_and_without_sampling(env_id, options, tmp_path):
    lines, states = [], []
    for name, sampling in (("with", SAMPLING), ("without", SamplingConfig(moments=0))):
        settings = settings_of(env_id, options, sampling=sampling)
        settings = dataclasses.replace(settings, annotator=dataclasses.replace(settings.annotator, deterministic=True))
        run = create(tmp_path / name, settings)
        assert train(settings, run, resume=False).saved
        lines.append(figures(run))
        with Trainer(settings) as trainer:
            with Checkpoints(run.checkpoints, keep=2) as checkpoints:
                restored = checkpoints.restore(like=trainer.state, reward=trainer.reward_arrays())
            states.append((restored.device, {**restored.host, "sampling": None}))
        assert bool(moments_in(run.store)) == (name == "with")
    assert lines[0] == lines[1]
    assert len(lines[0]) > 1
    for ours, theirs in zip(jax.tree.leaves(states[0][0]), jax.tree.leaves(states[1][0]), strict=True):
        np.testing.assert_array_equal(numbers(ours), numbers(theirs))
    assert json.dumps(states[0][1]) == json.dumps(states[1][1])


def test_a_resumed_run_replaces_moments_and_never_keeps_too_many(tmp_path):
    settings = settings_of("probe:intrinsic", {}, sampling=dataclasses.replace(SAMPLING, moments=2))
    settings = dataclasses.replace(settings, total_env_steps=4 * 16 * 200)
    run = create(tmp_path / "run", settings)
    train(settings, run, resume=False)
    before = {one.env_step for _, one in moments_in(run.store)}
    longer = dataclasses.replace(settings, total_env_steps=4 * 16 * 1200)
    train(longer, run, resume=True)
    found = moments_in(run.store)
    assert len(found) == 4, "two of each caption"
    offers = json.loads(next(run.checkpoints.glob("*/host/metadata")).read_text())["sampling"]["reservoir"]["offers"]
    assert min(offers[1:3]) > 2
    assert len(before) == 4


def test_moments_are_printed_for_one_caption(tmp_path):
    settings = settings_of("xminigrid:MiniGrid-BlockedUnlockPickUp", {"talkative": True})
    run = create(tmp_path / "run", settings)
    train(settings, run, resume=False)
    row, stored = moments_in(run.store)[0]
    command = [sys.executable, "-m", "oni.cli.main", "inspect", str(run.path), "--caption", str(row.caption_id)]
    done = subprocess.run([*command, "--moments"], capture_output=True, text=True, timeout=60, check=True)
    assert row.text.decode() in done.stdout
    assert picture_text(stored.moment.pictures[0]).splitlines()[-1] in done.stdout
    assert stored.moment.frames[0].action_name in done.stdout


def said_elsewhere(path, caption, labeler_id, verdict):
    """Overrules the LLM from another process; returns the number of the override."""
    code = "import sys\nfrom pathlib import Path\nfrom llm_annotator.store import Store\n"
    code += "with Store(Path(sys.argv[1])) as store:\n"
    code += f"    print(store.override(sys.argv[2].encode(), sys.argv[3], {verdict}))\n"
    command = [sys.executable, "-c", code, str(path), caption.decode(), labeler_id]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_a_person_reaches_a_running_training_within_seconds(tmp_path):
    settings = probe_config(
        "intrinsic",
        reward=RewardConfig(kind="retrieval", intrinsic_coef=1.0),
        annotator=AnnotatorConfig(backend=SCRIPTED, labeler=LabelerConfig(goal="Find coins.")),
    )
    run = create(tmp_path / "run", settings)
    coin = b"You find a coin."
    with Trainer(settings) as trainer, AnnotationSession(run, settings, trainer.reward_model) as session:

        def update():
            trainer.take_labels(session.poll())
            progress = trainer.update()
            session.ask(trainer.captions, progress.new)
            session.tend(trainer.captions, progress.seen)

        def until(condition, within_s):
            begun = time.monotonic()
            while not condition():
                update()
                assert time.monotonic() - begun < within_s
            return time.monotonic() - begun

        update()
        caption_id = trainer.captions.id_of(coin)
        until(lambda: trainer.captions.helpful[caption_id] == 1, 20.0)
        with StoreReader(run.store) as reader:
            (labeler,) = reader.labelers()
        first = said_elsewhere(run.store, coin, labeler.labeler_id, "helpful=False")
        until(lambda: trainer.captions.helpful[caption_id] == 0, 3.0 + 2.0)  # 3 s, and what a busy machine adds
        update()
        assert trainer.rewarding.latest_scores[caption_id] == 0
        assert not trainer.captions.muted[caption_id]
        second = said_elsewhere(run.store, coin, labeler.labeler_id, "helpful=False, muted=True")
        until(lambda: trainer.captions.muted[caption_id], 3.0 + 2.0)
        host = json.loads(json.dumps(trainer.host_state() | {"x": trainer.flush().metrics}))
        device = jax.device_get(trainer.state)
        with Store(run.store) as store:
            store.revoke_override(second)
            store.revoke_override(first)
        until(lambda: trainer.captions.helpful[caption_id] == 1, 3.0 + 2.0)
        assert not trainer.captions.muted[caption_id]
    with Trainer(settings) as resumed:
        resumed.load(device, host, resumed.reward_arrays())
        assert resumed.captions.helpful[caption_id] == 0, "it is in the checkpoint"
        assert resumed.captions.by_hand[caption_id]
        assert resumed.captions.muted[caption_id]
        with AnnotationSession(run, settings, resumed.reward_model) as session:
            session.begin(resumed.captions)
            deadline = time.monotonic() + 20
            while resumed.captions.helpful[caption_id] != 1:
                resumed.take_labels(session.poll())
                time.sleep(0.05)
                assert time.monotonic() < deadline, "what was taken back while it stood still is heard after a resume"
        assert not resumed.captions.muted[caption_id]


def test_the_quickstart_samples_without_being_asked():
    assert load_config(None).sampling.moments == 4
