"""Trainers on probe environments, for tests."""

from oni.config import AnnotatorConfig, EnvConfig, NetworkConfig, PPOConfig, RewardConfig, TrainConfig
from oni.trainer import Trainer

TINY = NetworkConfig(hidden_size=16, core="none", core_size=16)


def config(probe, *, seed=0, network=TINY, reward=None, annotator=None, **ppo):
    """Settings small enough that a probe is solved in seconds."""
    return TrainConfig(
        name="probe",
        seed=seed,
        total_env_steps=10_000,
        env=EnvConfig(id=f"probe:{probe}", num_envs=32),
        network=network,
        ppo=PPOConfig(**{"num_steps": 8, "num_epochs": 4, "num_minibatches": 2, "learning_rate": 5e-3} | ppo),
        reward=reward or RewardConfig(kind="none"),
        annotator=annotator or AnnotatorConfig(),
    )


def trained(config, updates, *, labels=None):
    """Trains for some updates; `labels` turns new captions into news from an annotator."""
    trainer = Trainer(config)
    for number in range(updates):
        progress = trainer.update(last=number == updates - 1)
        if labels is not None and progress.new:
            trainer.take_labels(labels(progress.new))
    trainer.flush()
    return trainer
