"""Settings: what is read, what is refused, and in which words."""

from pathlib import Path

import pytest

from oni.config import TrainConfig
from oni.configfile import load_config, to_yaml
from oni.errors import ConfigError

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


def write(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return path


def test_file_then_command_line(tmp_path):
    path = write(tmp_path, "ppo:\n  learning_rate: 1e-4\n  num_epochs: 3\nenv: {options: {talkative: true}}\n")
    config = load_config(path, ["--ppo.num-epochs", "5", "--annotator.backend.kind", "scripted"])
    assert config.ppo.learning_rate == 1e-4  # a number that YAML takes for text
    assert config.ppo.num_epochs == 5
    assert config.annotator.backend.kind == "scripted"
    assert config.env.options == {"talkative": True}
    assert config.reward == TrainConfig().reward


def test_a_file_says_only_what_differs_from_its_base(tmp_path):
    (tmp_path / "base.yaml").write_text("name: base\nppo: {learning_rate: 0.5, num_epochs: 3}\nenv: {num_envs: 8}\n")
    config = load_config(write(tmp_path, "base: base.yaml\nname: mine\nppo: {num_epochs: 4}\n"))
    assert (config.name, config.ppo.learning_rate, config.ppo.num_epochs, config.env.num_envs) == ("mine", 0.5, 4, 8)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: config.yaml", "config.yaml: base leads back to .*config.yaml"),
        ("base: none.yaml", "cannot read the config .*none.yaml"),
        ("base: 3", "base must be the name of a file, not 3"),
        ("base: ../x\nppo: 3", "cannot read"),
    ],
)
def test_a_base_that_cannot_be_used_is_said(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        load_config(write(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("reward: {add: retrieval}", "reward.add is retrieval, as is reward.kind"),
        ("reward: {add_weight: 2}", "reward.add_weight .2.0. means nothing without reward.add"),
        (
            "reward: {threshold: 0.7}",
            "reward.threshold .0.7. means nothing with reward.kind retrieval: .* classification",
        ),
        ("reward: {path: x.oni}", "reward.path .'x.oni'. means nothing .* choose offline"),
        ("reward: {kind: rnd, add: counts, goal_text: win}", "reward.goal_text .'win'. means nothing"),
    ],
)
def test_settings_of_another_kind_of_reward_are_refused(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        load_config(write(tmp_path, text))


def test_options_with_free_names_on_the_command_line(tmp_path):
    path = write(tmp_path, "annotator: {backend: {options: {helpful_pattern: coin}}}\n")
    config = load_config(path, ["--annotator.backend.options.latency-s", "0.5", "--env.options.talkative=true"])
    assert config.annotator.backend.options == {"helpful_pattern": "coin", "latency_s": 0.5}
    assert config.env.options == {"talkative": True}
    config = load_config(path, ["--annotator.backend.options.helpful-pattern", "[Kk]ey: {"])
    assert config.annotator.backend.options["helpful_pattern"] == "[Kk]ey: {"
    with pytest.raises(ConfigError, match="needs a value"):
        load_config(path, ["--env.options.talkative"])


def test_what_is_written_is_read_back(tmp_path):
    config = load_config(None, ["--seed", "7", "--reward.kind", "none"])
    assert load_config(write(tmp_path, to_yaml(config))) == config


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_of_the_repository_is_valid(path):
    assert load_config(path).name == path.stem


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ppo: {lerning_rate: 1}", r"unknown key ppo.lerning_rate; did you mean ppo.learning_rate\?"),
        ("learning_rate: 1", r"did you mean ppo.learning_rate\?"),
        ("annotator: {backend: {modle: x}}", r"did you mean annotator.backend.model\?"),
        ("zzz: 1", "unknown key zzz$"),
        ("ppo: {discount: 1.5}", "ppo.discount.*less than or equal to 1.*1.5"),
        ("env: {num_envs: many}", "env.num_envs.*integer.*many"),
        ("env: {num_envs: 0}", "env.num_envs.*greater than 0"),
        ("reward: {kind: magic}", "reward.kind.*'magic'"),
        ("ppo: 3", "ppo must hold"),
        ("- a\n- b", "the file must hold"),
        ("a: [", "is not YAML"),
        ("env: {num_envs: 10}\nppo: {num_minibatches: 4}", "must divide"),
        ("reward: {guard: clip}", "reward.guard clip needs reward.guard_limit"),
        ("reward: {guard: gate}", "reward.guard gate needs reward.guard_limit"),
        ("reward: {guard: delta, guard_limit: 1}", "guard_limit.*means nothing with reward.guard delta.*clip or gate"),
        ("reward: {guard: gate, guard_limit: -1}", "guard_limit.*greater than or equal to 0"),
        ("reward: {guard: fence}", "reward.guard.*'fence'"),
        ("reward: {intrinsic_final_coef: 0.1}", "means nothing with reward.intrinsic_schedule constant"),
    ],
)
def test_bad_settings_are_said(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        load_config(write(tmp_path, text))


def test_missing_file_is_said(tmp_path):
    with pytest.raises(ConfigError, match="cannot read the config"):
        load_config(tmp_path / "nothing.yaml")


def test_out_of_range_on_the_command_line():
    with pytest.raises(ConfigError, match=r"ppo.clip_eps"):
        load_config(None, ["--ppo.clip-eps", "-1"])


def test_unknown_option_is_a_usage_error(capsys):
    with pytest.raises(SystemExit) as stop:
        load_config(None, ["--ppo.lerning-rate", "1"])
    assert stop.value.code == 2
    assert "--ppo.learning-rate" in capsys.readouterr().err
