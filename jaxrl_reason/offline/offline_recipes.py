"""Offline systems as values: fine-tuning, preference methods, rounds of samples.

`OFFLINE["irpo"].run` is the training function with its published settings bound;
`OFFLINE["irpo"].method` is the loss on pairs for `build_preference_learner`, if there
is one. Learning rates, batches and epochs belong to a run: take them from `settings`.

Example:
  >>> from jaxrl_reason.offline.offline_recipes import OFFLINE
  >>> OFFLINE["irpo"].run.keywords, OFFLINE["irpo"].method.settings
  ({'max_pairs': 10}, {'beta': 0.1, 'alpha': 1.0})
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any

from jaxrl_reason.data.rejection_sampling import equation_signature
from jaxrl_reason.offline.iterative import (
    iterative_dpo_round,
    rft_round,
    star_round,
    train_on_examples,
)
from jaxrl_reason.offline.preference_methods import (
    PreferenceMethod,
    dpo,
    hinge,
    ipo,
    irpo,
    length_normalised_dpo,
    nca,
    orpo,
    robust_dpo,
    simpo,
)
from jaxrl_reason.offline.preference_training import train_on_pairs

_RUN = "learning rate, batch, epochs: not in our sources"


@dataclass(frozen=True)
class OfflineRecipe:
    """A published method of training on examples or pairs.

    Attributes:
      name: for tables and logs.
      sources: arXiv ids.
      run: the training function with its published arguments bound.
      method: the loss on pairs, None for training on examples.
      settings: of a run, as published, by name.
      not_published: what the sources do not give, and what is done here instead.
    """

    name: str
    sources: tuple[str, ...]
    run: Callable[..., Any]
    method: PreferenceMethod | None = None
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)
    not_published: tuple[str, ...] = ()


SFT = OfflineRecipe(
    name="sft",
    sources=("2505.00551",),
    run=train_on_examples,
    settings={"learning rate": "1e-5 or 5e-5", "batch": "96 or 128"},
    not_published=("epochs: those of a survey's systems differ",),
)
LIGHT_R1_SFT = OfflineRecipe(
    name="light_r1_sft",
    sources=("2503.10460",),
    run=train_on_examples,
    settings={
        "learning rate": "5e-5 with cosine decay, then 1e-5",
        "examples": "76000, then the 3000 hardest",
        "tokens": 20_000,
        "betas": (0.9, 0.95),
        "weight decay": 0.1,
        "warm-up": 0.01,
        "gradient clip": 1.0,
    },
    not_published=("batch", "epochs: picked by validation, 4 and 8"),
)
RFT = OfflineRecipe(
    name="rft",
    sources=("2308.01825",),
    run=partial(rft_round, signature=equation_signature),
    settings={"samples per problem": 100, "temperature": 0.7},
    not_published=("responses kept per problem: 4 here", _RUN),
)
STAR = OfflineRecipe(
    name="star",
    sources=("2203.14465",),
    run=partial(star_round, max_per_prompt=1),
    settings={"samples per problem": 1, "start of each round": "the base model"},
    not_published=(_RUN,),
)


def _pairs(
    method: PreferenceMethod,
    *sources: str,
    not_published: tuple[str, ...] = (_RUN,),
    name: str | None = None,
    **settings: Any,
) -> OfflineRecipe:
    named = {key.replace("_", " "): value for key, value in settings.items()}
    return OfflineRecipe(
        name or method.name, sources, train_on_pairs, method, named, not_published
    )


DPO = _pairs(
    dpo(beta=0.1),
    "2305.18290",
    learning_rate=1e-6,
    pairs_an_update=64,
    not_published=("epochs",),
)
CDPO = _pairs(dpo(beta=0.1, label_smoothing=0.1), name="cdpo")
ROBUST_DPO = _pairs(robust_dpo(beta=0.1, label_smoothing=0.1), "2403.00409")
IPO = _pairs(ipo(), "2310.12036", not_published=("beta: 0.1 here", _RUN))
HINGE = _pairs(hinge(), "2309.06657", not_published=("beta: TRL's 0.1 here", _RUN))
LENGTH_NORMALISED_DPO = _pairs(length_normalised_dpo(), "2411.15124")
SIMPO = _pairs(
    simpo(beta=2.5, gamma=1.375),
    "2405.14734",
    learning_rate=1e-6,
    not_published=("batch, epochs: not in our sources",),
)
ORPO = _pairs(
    orpo(lam=0.1),
    "2403.07691",
    learning_rate=5e-6,
    not_published=("batch, epochs: not in our sources",),
)
NCA = _pairs(nca(beta=0.01), "2402.05369")
LIGHT_R1_DPO = _pairs(
    nca(beta=0.3),
    "2503.10460",
    name="light_r1_dpo",
    learning_rate=5e-7,
    epochs=3,
    tokens=32_768,
    chosen="of DeepSeek-R1",
    rejected="wrong responses of its own",
    not_published=("batch",),
)
IRPO = OfflineRecipe(
    name="irpo",
    sources=("2404.19733",),
    run=partial(iterative_dpo_round, max_pairs=10),
    method=irpo(beta=0.1, alpha=1.0),
    settings={"samples per prompt": 30, "rounds": 4},
    not_published=(_RUN,),
)

OFFLINE: Mapping[str, OfflineRecipe] = MappingProxyType(
    {
        recipe.name: recipe
        for recipe in (
            SFT,
            LIGHT_R1_SFT,
            RFT,
            STAR,
            DPO,
            CDPO,
            ROBUST_DPO,
            IPO,
            HINGE,
            LENGTH_NORMALISED_DPO,
            SIMPO,
            ORPO,
            NCA,
            LIGHT_R1_DPO,
            IRPO,
        )
    }
)
