"""The scores of another run's reward model as the rewards of RL."""

from typing import Any

import numpy as np

from jaxrl_reason.learner.state import TrainState, abstract, init_value_state
from jaxrl_reason.models import ValueModel
from jaxrl_reason.reward_models.reward_model import (
    build_reward_model_learner,
    reward_model_scores,
)
from jaxrl_reason.rl.rollouts import Rollouts
from jaxrl_reason.runs.run_folder import to_plain
from jaxrl_reason.train.methods import REWARD_MODELS
from jaxrl_reason.train.offline_pairs import pair_sizes
from jaxrl_reason.train.run_setup import RunSetup
from jaxrl_reason.train.session import checkpoints_of

# Settings of a policy's training, which a reward model of the same transformer need not
# share.
_OF_THE_POLICY = ("lora_rank", "lora_alpha")


class ModelReward:
    """Rewards of rollouts by a trained reward model, for `Method.rewards`.

    Args:
      setup: of the RL run; `reward_model` in its settings is the other run's folder.

    Raises:
      ValueError: the folder has no reward model, or one of another model or task.
    """

    def __init__(self, setup: RunSetup) -> None:
        self.setup = setup
        folder = setup.settings.reward_model
        assert folder is not None  # checked by the caller
        self.checkpoints = checkpoints_of(folder, "reward_model")
        if not self.checkpoints.steps():
            raise ValueError(
                f"reward_model must be the folder of a run that trained one, got "
                f"{folder}"
            )
        self.fingerprint = self.checkpoints.fingerprint()
        check_same_model(setup, self.fingerprint)
        method = REWARD_MODELS[self.fingerprint["method"]]()
        self.learner = build_reward_model_learner(
            ValueModel(setup.model.config, setup.model.constrain),
            method,
            pair_sizes(setup, epochs=1, candidates=sum(method.candidates)),
            setup.settings.optimizer,
            setup.batch_sharding,
        )
        self.params: Any = None

    def load(self, policy: TrainState) -> None:
        """Reads the newest reward model.

        Args:
          policy: for the transformer's shapes and shardings.
        """
        places = self.setup.batch_sharding
        like = init_value_state(policy, self.setup.settings.optimizer, places)
        found = self.checkpoints.restore(abstract(like), self.fingerprint)
        self.params = found.state.params

    def __call__(self, rollouts: Rollouts) -> np.ndarray:
        """Scores [P, G]."""
        return reward_model_scores(self.learner, self.params, rollouts)


def check_same_model(setup: RunSetup, fingerprint: dict[str, Any]) -> None:
    """Raises for a reward model with another transformer or other tokens."""
    ours, theirs = (
        {**found, "model": without_policy(found["model"])}
        for found in (to_plain(setup.fingerprint()), fingerprint)
    )
    names = ["model", "model_digest"]
    if setup.settings.model.is_new:  # its tokenizer is made from the questions
        names += ["task", "train_rows"]
    for name in names:
        if ours.get(name) != theirs.get(name):
            raise ValueError(
                f"reward_model must be of this run's {name} ({ours.get(name)}), got "
                f"{theirs.get(name)}"
            )


def without_policy(model: dict[str, Any]) -> dict[str, Any]:
    """Settings of a model without those of its policy's training."""
    return {name: x for name, x in model.items() if name not in _OF_THE_POLICY}
