"""`oni relabel`: another labeler's answers beside those of the run, and the table; `oni inspect` with parts."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from llm_annotator.backends import create_backend
from llm_annotator.client import AnnotatorClient
from llm_annotator.config import AnnotatorConfig, BackendConfig, LabelerConfig
from llm_annotator.labeler import Labeler, resolve_labeler
from llm_annotator.store import Store, StoreReader
from llm_annotator.supervisor import ServiceProcess
from llm_annotator.types import Occurrence
from oni.cli.main import main
from oni.config import TrainConfig
from oni.configfile import to_yaml
from oni.rundir import create
from tests.answered_store import answer_into

# (caption, how often it came up, what it earned); the scripted backend of the run finds "open" helpful.
SEEN = [
    (b"You open the box.", 50, 20.0),
    (b"You open a tin.", 40, 5.0),
    (b"You open a door.", 2, 30.0),
    (b"It rains.", 30, 0.0),
    (b"You take the key.", 20, 1.0),
    (b"nul \x00 \xff", 10, 0.0),
]

SPEC = resolve_labeler(LabelerConfig())

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    def run(*arguments: object) -> tuple[int, str, str]:
        status = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return status, out, err

    return run


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run whose labeler is the scripted backend with the goal `minigrid`; two captions are labelled by hand."""
    run = create(tmp_path / "run", TrainConfig())
    config = yaml.safe_load(to_yaml(TrainConfig()))
    config["annotator"]["backend"] |= {"kind": "scripted", "options": {"helpful_pattern": "open"}}
    run.config_file.write_text(yaml.safe_dump(config))
    backend = BackendConfig(kind="scripted", options={"helpful_pattern": "open"})
    labeler = Labeler(SPEC, create_backend(backend).model)
    answer_into(run.store, [caption for caption, _, _ in SEEN], backend, SPEC)
    with Store(run.store) as store:
        store.add_run(run.meta()["run_id"], "run", {}, labeler_id=labeler.id, goal=SPEC.goal)
        store.add_occurrences(
            run.meta()["run_id"],
            [
                Occurrence(caption=caption, count=count, first_step=1, last_step=9, reward_sum=reward)
                for caption, count, reward in SEEN
            ],
        )
        store.override(b"You open a tin.", labeler.id, helpful=False)
        store.override(b"It rains.", labeler.id, helpful=False)
    return run.path


def relabel(cli: Cli, run: Path, *more: object) -> tuple[int, dict[str, Any]]:
    """The other labeler finds boxes, doors and keys helpful."""
    goal = ("--goal", "Find boxes and keys.", "--annotator.backend.options.helpful_pattern", "box|door|key")
    status, out, _ = cli("relabel", run, *goal, "--json", *more)
    return status, json.loads(out)


def test_the_table_by_hand(cli: Cli, run_dir: Path) -> None:
    status, found = relabel(cli, run_dir)
    assert status == 0
    # The run: box, tin and door. The other: box, door and key.
    assert (found["captions"], found["compared"], found["questions"]) == (6, 6, 6)
    counts = ("both_helpful", "only_labeler_helpful", "only_other_helpful", "both_unhelpful")
    assert [found[name] for name in counts] == [2, 1, 1, 2]
    assert found["agreement"] == pytest.approx(4 / 6)
    assert found["agreement_by_count"] == pytest.approx((50 + 2 + 30 + 10) / 152)
    assert found["kappa"] == pytest.approx(1 / 3)
    assert found["kappa_interval"][0] < 1 / 3 < found["kappa_interval"][1]
    # A person turned down the tin, which the run's LLM finds helpful, and agrees with both about the rain.
    assert found["people"] == {"captions": 2, "agreement_of_labeler": 0.5, "agreement_of_other": 1.0}
    assert [(item["caption"], item["labeler_helpful"], item["person_helpful"]) for item in found["disputes"]] == [
        ("You open a tin.", True, False),
        ("You take the key.", False, None),
    ]
    assert found["other"]["goal"] == "Find boxes and keys."


def test_the_table_for_people(cli: Cli, run_dir: Path) -> None:
    options = ("--goal", "Find boxes and keys.", "--annotator.backend.options.helpful_pattern", "box|door|key")
    status, out, err = cli("relabel", run_dir, *options, "--disputes", "1")
    assert status == 0
    for words in (
        "0.33 (95%:",
        "66.7% of captions",
        "60.5% of the times",
        "1 of 2 captions in dispute",
        "agrees on 50.0%",
    ):
        assert words in out
    assert "You open a tin." in out
    assert "You take the key." not in out
    assert "6 of 6 questions" in err


def test_the_run_is_left_as_it_is_and_nothing_is_asked_twice(cli: Cli, run_dir: Path) -> None:
    with StoreReader(run_dir / "annotations.sqlite") as reader:
        before = (reader.runs(), reader.captions(), reader.summary())
    _, first = relabel(cli, run_dir, "--limit", "2")
    assert (first["captions"], first["questions"]) == (2, 2)
    _, rest = relabel(cli, run_dir)
    assert (rest["captions"], rest["questions"]) == (6, 4)
    _, again = relabel(cli, run_dir)
    assert (again["questions"], again["kappa"]) == (0, rest["kappa"])
    with StoreReader(run_dir / "annotations.sqlite") as reader:
        assert (reader.runs(), reader.captions(), reader.summary()) == before
        assert [row.labelled for row in reader.labelers()] == [6, 6]


def test_frequent_captions_alone(cli: Cli, run_dir: Path) -> None:
    _, found = relabel(cli, run_dir, "--min-count", "20")
    assert found["captions"] == 4


def test_a_budget_that_ends_is_said_and_what_was_answered_is_shown(cli: Cli, run_dir: Path) -> None:
    arguments = ("relabel", run_dir, "--goal", "Find boxes and keys.", "--json", "--annotator.engine.max-requests")
    with Store(run_dir / "annotations.sqlite") as store:
        spent = store.spent().requests
    status, out, err = cli(*arguments, spent + 2)
    assert status == 1
    assert (json.loads(out)["questions"], json.loads(out)["compared"]) == (2, 2)
    said = f"stopped, for the budget of {spent + 2} requests (engine.max_requests) is used up: raise it to go on"
    assert said in err
    status, out, err = cli(*arguments, spent + 6)
    assert (status, json.loads(out)["questions"]) == (0, 4)
    assert "used up" not in err


def test_captions_without_a_label_are_counted_and_asked_again(cli: Cli, run_dir: Path) -> None:
    status, found = relabel(cli, run_dir, "--annotator.backend.options.garble_rate", "1.0")
    assert status == 1
    assert (found["compared"], found["other"]["unparsed"], found["kappa"]) == (0, 6, None)
    status, found = relabel(cli, run_dir)
    assert (status, found["questions"], found["other"]["unparsed"]) == (0, 6, 0)


def test_by_parts(cli: Cli, run_dir: Path) -> None:
    with StoreReader(run_dir / "annotations.sqlite") as reader:
        (run,) = reader.runs()
    whole = b"It rains.  You take the key."
    with Store(run_dir / "annotations.sqlite") as store:
        store.add_occurrences(
            run.run_id, [Occurrence(caption=whole, count=1, first_step=1, last_step=9, reward_sum=0.0)]
        )
    _, found = relabel(cli, run_dir, "--annotator.labeler.parts", "sentences")
    assert (found["captions"], found["questions"]) == (7, 6)
    with StoreReader(run_dir / "annotations.sqlite") as reader:
        key = reader.find(whole)
    status, out, _ = cli("inspect", run_dir, "--show", key)
    assert status == 0
    assert "Asked by parts" in out
    assert "part 2 of 2 decided" in out
    _, out, _ = cli("inspect", run_dir, "--show", key, "--json")
    (annotation,) = json.loads(out)["annotations"]
    assert [(part["caption"], part["helpful"]) for part in annotation["parts"]] == [
        ("It rains.", False),
        ("You take the key.", True),
    ]
    part_id = annotation["parts"][1]["caption_id"]
    _, out, _ = cli("inspect", run_dir, "--show", part_id)
    assert "Captions that it is a part of: 1." in out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--goal", "minigrid"], "are those of labeler"),
        (["--goal", "minigird"], "minigrid"),
        (["--labeler", "zz", "--goal", "Find keys."], "no labeler 'zz'"),
        (["--run-id", "zz", "--goal", "Find keys."], "no run 'zz'"),
        (["--backend", "scriptd"], "scripted"),
        (["--min-count", "-1"], ""),
    ],
)
def test_what_cannot_be_asked_is_said_in_words(cli: Cli, run_dir: Path, options: list[str], words: str) -> None:
    status, _, err = cli("relabel", run_dir, *options)
    assert status in (1, 2)
    assert words in err


def test_preferences_are_refused_in_words(cli: Cli, run_dir: Path) -> None:
    spec = resolve_labeler(LabelerConfig(), "preference")
    with StoreReader(run_dir / "annotations.sqlite") as reader:
        (run,) = reader.runs()
    with Store(run_dir / "annotations.sqlite") as store:
        store.add_labeler("pairs", spec.to_wire(), "m")
        store.add_run(run.run_id, "run", {}, labeler_id="pairs", goal=spec.goal)
    status, _, err = cli("relabel", run_dir, "--goal", "Find keys.")
    assert status == 2
    assert "compares captions two by two" in err


def test_a_shared_store_needs_settings(cli: Cli, run_dir: Path) -> None:
    store = run_dir / "annotations.sqlite"
    status, _, err = cli("relabel", store, "--goal", "Find keys.")
    assert (status, "--config" in err) == (2, True)
    status, found = relabel(cli, store, "--config", run_dir / "config.yaml")
    assert (status, found["captions"]) == (0, 6)


@pytest.mark.slow
def test_beside_a_service_that_writes(cli: Cli, run_dir: Path) -> None:
    """A run goes on and is given its labels while its captions are asked about again."""
    with StoreReader(run_dir / "annotations.sqlite") as reader:
        (run,) = reader.runs()
    backend = BackendConfig(kind="scripted", options={"helpful_pattern": "open", "latency_s": 0.01})
    path = run_dir / "annotations.sqlite"
    with (
        ServiceProcess(path, AnnotatorConfig(backend=backend), run_dir / "log") as service,
        AnnotatorClient(service.url, run.run_id, "run", {}, SPEC, token=service.token) as client,
    ):
        client.submit([b"new %d" % number for number in range(200)])
        status, found = relabel(cli, run_dir, "--annotator.backend.options.latency_s", "0.05")
        assert (status, found["questions"], found["compared"]) == (0, 6, 6)
        assert client.drain(30)
        assert {update.caption for update in client.poll()} == {b"new %d" % number for number in range(200)}
