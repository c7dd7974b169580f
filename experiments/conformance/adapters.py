"""Losses of other libraries in the form f(logprobs, old, advantages, mask, counts).

Each adapter is given a checkout, takes the functions out of it, and calls them as that
library's trainer does: with the totals of the mini-batch where the library has an
argument for them. Nothing of theirs is copied.
"""

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from experiments.conformance.extract import functions_of
from jaxrl_reason.testing.arrays import ROWS

Loss = Callable[..., Any]


@dataclass(frozen=True)
class Entry:
    """One loss of one library.

    Attributes:
      name: as the library calls it, and how its denominator is given.
      loss: in the form of this library.
    """

    name: str
    loss: Loss


class Settings(SimpleNamespace):
    """Settings as an object and as a dict."""

    def get(self, name: str, default: Any = None) -> Any:
        """The setting, or the default."""
        return getattr(self, name, default)


def namespace(**more: Any) -> dict[str, Any]:
    """What losses use from outside."""
    return {
        "torch": torch,
        "nn": torch.nn,
        "F": torch.nn.functional,
        "np": np,
        "math": math,
        "defaultdict": defaultdict,
        **more,
    }


def accumulated(mask: Any) -> int:
    """Parts of the mini-batch, by whose number a trainer divides a mean of a part."""
    return max(1, ROWS // len(mask))


# verl


def verl_losses(checkout: Path) -> list[Entry]:
    """Its policy losses, with the totals that its engine worker hands to `agg_loss`.

    And the first as `dp_actor` calls it: without totals, divided by the parts.
    """
    core = checkout / "verl" / "trainer" / "ppo" / "core_algos.py"
    known = _verl_namespace(checkout)
    functions_of(core, ["agg_loss"], known)
    settings = {
        "ppo, token-mean": ("compute_policy_loss_vanilla", "token-mean"),
        "ppo, seq-mean-token-mean": (
            "compute_policy_loss_vanilla",
            "seq-mean-token-mean",
        ),
        "gspo": ("compute_policy_loss_gspo", "seq-mean-token-mean"),
        "gpg": ("compute_policy_loss_gpg", "token-mean"),
        "sapo": ("compute_policy_loss_sapo", "seq-mean-token-mean"),
        "cispo": ("compute_policy_loss_cispo", "token-mean"),
        "geo_mean (GMPO)": ("compute_policy_loss_geo_mean", "token-mean"),
    }
    found = []
    for name, (function, mode) in settings.items():
        loss = functions_of(core, [function], known)
        found.append(Entry(name, _verl(loss, mode, known["ActorConfig"])))
    loss = functions_of(core, ["compute_policy_loss_vanilla"], known)
    alone = _verl(loss, "token-mean", known["ActorConfig"], totals=False)
    return [*found, Entry("ppo, token-mean, in dp_actor", alone)]


def verl_advantages(checkout: Path) -> dict[str, Callable[..., Any]]:
    """Its group advantages: f(rewards [B], groups [B]) -> [B]."""
    core = checkout / "verl" / "trainer" / "ppo" / "core_algos.py"
    names = {
        "grpo": "compute_grpo_outcome_advantage",
        "rloo": "compute_rloo_outcome_advantage",
        "gpg": "compute_gpg_outcome_advantage",
    }
    known = _verl_namespace(checkout)

    def adapted(function: Callable[..., Any]) -> Callable[..., Any]:
        def advantages(rewards: Any, groups: Any) -> Any:
            tokens = torch.tensor(rewards)[:, None]
            mask = torch.ones_like(tokens)
            return function(tokens, mask, np.array(groups))[0][:, 0].numpy()

        return advantages

    return {name: adapted(functions_of(core, [x], known)) for name, x in names.items()}


def _verl_namespace(checkout: Path) -> dict[str, Any]:
    helpers = namespace()
    sums = checkout / "verl" / "utils" / "torch_functional.py"
    functions_of(sums, ["masked_sum", "masked_mean"], helpers)
    return namespace(
        verl_F=SimpleNamespace(**helpers),
        ActorConfig=type("ActorConfig", (Settings,), {}),
        AlgoConfig=type("AlgoConfig", (), {}),
    )


def _verl(
    function: Callable[..., Any], mode: str, config: Any, totals: bool = True
) -> Loss:
    def loss(
        logprobs: Any, old_logprobs: Any, advantages: Any, mask: Any, counts: Any
    ) -> Any:
        settings = config(
            clip_ratio=0.2,
            clip_ratio_low=0.2,
            clip_ratio_high=0.28,
            clip_ratio_c=3.0,
            tau_pos=1.0,
            tau_neg=1.05,
            policy_loss=Settings(tau_pos=1.0, tau_neg=1.05),
            global_batch_info={
                "dp_size": 1,
                "batch_num_tokens": counts.tokens,
                "global_batch_size": counts.sequences,
                "loss_scale_factor": None,
            }
            if totals
            else {},
        )
        arrays = (old_logprobs, logprobs, advantages, mask)
        value = function(*arrays, loss_agg_mode=mode, config=settings)[0]
        return (value if totals else value / accumulated(mask)), {}

    return loss


# OpenRLHF


def openrlhf_losses(checkout: Path) -> list[Entry]:
    """`PolicyLoss`, with the totals of the mini-batch and as it is without them."""
    models = checkout / "openrlhf" / "models"
    known = namespace()
    functions_of(models / "utils.py", ["masked_mean"], known)
    names = ["aggregate_loss", "PolicyLoss"]
    functions_of(models / "loss.py", names, known)

    def made(totals: bool, **settings: Any) -> Loss:
        policy_loss = known["PolicyLoss"](**settings)

        def loss(
            logprobs: Any, old_logprobs: Any, advantages: Any, mask: Any, counts: Any
        ) -> Any:
            given = (
                {
                    "batch_num_tokens": counts.tokens,
                    "global_batch_size": counts.sequences,
                }
                if totals
                else {}
            )
            value = policy_loss(logprobs, old_logprobs, advantages, mask, **given)[0]
            return (value if totals else value / accumulated(mask)), {}

        return loss

    return [
        Entry("ppo, token level", made(True)),
        Entry("ppo, sample level", made(True, token_level_loss=False)),
        Entry("gspo", made(True, policy_loss_type="gspo")),
        Entry("ppo without totals, accumulated", made(False)),
    ]


# TRL


def trl_losses(package: Path) -> list[Entry]:
    """`GRPOTrainer._compute_loss` of an installed TRL, on log-probs that are given."""
    path = package / "trainer" / "grpo_trainer.py"
    known = namespace(nanmin=torch.min, nanmax=torch.max)
    compute = functions_of(path, ["GRPOTrainer._compute_loss"], known)
    kinds = ("grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo")
    found = [Entry(kind, _trl(compute, kind)) for kind in kinds]
    return [*found, Entry("gspo", _trl(compute, "grpo", level="sequence"))]


def _trl(compute: Callable[..., Any], kind: str, level: str = "token") -> Loss:
    def loss(
        logprobs: Any, old_logprobs: Any, advantages: Any, mask: Any, counts: Any
    ) -> Any:
        steps = accumulated(mask)
        trainer = Settings(
            loss_type=kind,
            importance_sampling_level=level,
            beta=0.0,
            top_entropy_quantile=1.0,
            off_policy_mask_threshold=None,
            epsilon_low=0.2,
            epsilon_high=5.0 if kind == "cispo" else 0.2,
            max_completion_length=16,
            current_gradient_accumulation_steps=steps,
            use_vllm=False,
            aux_loss_enabled=False,
            use_adaptive_entropy=False,
            _entropy_bonus_enabled=False,
            _metrics={"train": defaultdict(list)},
            model=Settings(training=True),
            args=Settings(
                delta=None,
                use_bias_correction_kl=False,
                steps_per_generation=steps,
                sapo_temperature_pos=1.0,
                sapo_temperature_neg=1.05,
            ),
            accelerator=Settings(
                num_processes=1,
                gather=lambda x: x,
                reduce=lambda x, reduction: x,
            ),
        )
        given = (logprobs, torch.zeros_like(logprobs), None)
        trainer._get_per_token_logps_and_entropies = lambda *args, **kwargs: given
        none = torch.zeros((len(mask), 0))
        inputs = {
            "prompt_ids": none,
            "prompt_mask": none,
            "completion_ids": mask,
            "completion_mask": mask,
            "advantages": advantages,
            "old_per_token_logps": old_logprobs,
            "num_items_in_batch": counts.tokens,
        }
        return compute(trainer, None, inputs), {}

    return loss


# ROLL


def roll_losses(checkout: Path) -> list[Entry]:
    """The PPO loss of its RLVR worker, and its `agg_loss`."""
    known = namespace()
    names = ["masked_mean", "masked_sum", "agg_loss"]
    functions_of(checkout / "roll" / "utils" / "functionals.py", names, known)
    worker = checkout / "roll" / "pipeline" / "rlvr" / "actor_pg_worker.py"
    compute = functions_of(worker, ["ActorPGWorker._compute_ppo_loss"], known)

    def made(mode: str) -> Loss:
        def loss(
            logprobs: Any, old_logprobs: Any, advantages: Any, mask: Any, counts: Any
        ) -> Any:
            settings = Settings(
                pg_clip=0.2,
                pg_clip_low=0.2,
                pg_clip_high=0.28,
                use_pg_clip_range=True,
                dual_clip_loss=False,
            )
            this = Settings(pipeline_config=settings, _cached_metrics={})
            totals = {"final_response_mask": counts.tokens}
            ratio = (logprobs - old_logprobs).exp()
            tokens = compute(this, ratio, advantages, mask, totals, totals)
            value = known["agg_loss"](
                loss_mat=tokens,
                loss_mask=mask,
                loss_agg_mode=mode,
                batch_num_tokens=counts.tokens,
                global_valid_samples=counts.sequences,
            )
            return value, {}

        return loss

    modes = ("token-mean", "seq-mean-token-sum", "seq-mean-token-mean")
    return [Entry(f"ppo, {mode}", made(mode)) for mode in modes]


# slime


def slime_losses(checkout: Path) -> list[Entry]:
    """Its per-token PPO objective; the sum over the mask and its tokens is ours."""
    path = checkout / "slime" / "utils" / "ppo_utils.py"
    compute = functions_of(path, ["compute_policy_loss"], namespace())

    def loss(
        logprobs: Any, old_logprobs: Any, advantages: Any, mask: Any, counts: Any
    ) -> Any:
        tokens, _ = compute(old_logprobs - logprobs, advantages, 0.2, 0.28)
        return (tokens * mask).sum() / counts.tokens.clamp(min=1), {}

    return [Entry("ppo", loss)]


# NeMo-RL


def nemo_rl_losses(checkout: Path) -> list[Entry]:
    """`ClippedPGLossFn`, with the totals that it always asks for."""
    folder = checkout / "nemo_rl" / "algorithms"
    kinds = SimpleNamespace(TOKEN_LEVEL=1, SEQUENCE_LEVEL=2)
    known = namespace(
        LossFunction=object,
        LossType=kinds,
        LossInputType=SimpleNamespace(LOGPROB=1),
        MetricNormalizer=SimpleNamespace(TOKENS=1, SEQUENCES=2, NONE=3),
    )
    functions_of(folder / "utils.py", ["masked_mean", "calculate_kl"], known)
    names = ["ClippedPGLossFn"]
    made = functions_of(folder / "loss" / "loss_functions.py", names, known)
    tokens, rows = {"token_level_loss": True}, {"token_level_loss": False}
    gspo = {**rows, "sequence_level_importance_ratios": True}
    nll = {**tokens, "positive_example_nll_weight": 0.1}
    return [
        Entry("ppo, token level", _nemo_rl(made, **tokens)),
        Entry("ppo, sequence level", _nemo_rl(made, **rows)),
        Entry("gspo", _nemo_rl(made, **gspo)),
        Entry("ppo with positive_example_nll", _nemo_rl(made, **nll)),
    ]


def _nemo_rl(made: Any, **settings: Any) -> Loss:
    given = {
        "disable_ppo_ratio": False,
        "ratio_clip_min": 0.2,
        "ratio_clip_max": 0.28,
        "ratio_clip_c": None,
        "reference_policy_kl_penalty": 0.0,
        "reference_policy_kl_type": "k3",
        "kl_input_clamp_value": 20.0,
        "kl_output_clamp_value": 10.0,
        "use_kl_in_reward": False,
        "use_importance_sampling_correction": False,
        "truncated_importance_sampling_type": None,
        "truncated_importance_sampling_ratio": None,
        "truncated_importance_sampling_ratio_min": None,
        "use_on_policy_kl_approximation": False,
        "force_on_policy_ratio": False,
        "use_cispo": False,
        "sequence_level_importance_ratios": False,
        "positive_example_nll_weight": 0.0,
    }
    policy_loss = made(Settings(**{**given, **settings}))

    def loss(
        logprobs: Any, old_logprobs: Any, advantages: Any, mask: Any, counts: Any
    ) -> Any:
        def shifted(x: Any) -> Any:
            # The first column is of the token that nothing predicts.
            return torch.cat([torch.zeros_like(x[:, :1]), x], dim=1)

        data = {
            "token_mask": shifted(mask),
            "sample_mask": mask.bool().any(1).to(logprobs.dtype),
            "advantages": shifted(advantages),
            "prev_logprobs": shifted(old_logprobs),
            "generation_logprobs": shifted(old_logprobs),
            "rewards": torch.where(mask.bool(), advantages, 0.0).sum(1),
        }
        return policy_loss(logprobs, data, counts.sequences, counts.tokens)[0], {}

    return loss
