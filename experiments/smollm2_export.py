"""The trained model as a folder for others, with a card that says how it came about."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.smollm2_setup import Setup
from jaxrl_reason.evaluation.statistics import Estimate
from jaxrl_reason.pretrained.model_card import Figure, ModelCard
from jaxrl_reason.pretrained.model_folder import export_model
from jaxrl_reason.sampler import SamplingSettings

Figures = Mapping[str, Estimate]


def export(
    setup: Setup, params: Any, steps: int, before: Figures, after: Figures, folder: Path
) -> None:
    """Writes the folder after `steps` steps, and says where it is."""
    source = setup.pretrained
    export_model(
        folder,
        source.config,
        params,
        setup.tokenizer,
        model_card(setup, steps, before, after),
        sampling=SamplingSettings(
            max_new_tokens=setup.config.max_new_tokens,
            eos_token_ids=(),
            temperature=0.0,
        ),
        family=source.family,
    )
    print(f"model: {folder}")


def model_card(setup: Setup, steps: int, before: Figures, after: Figures) -> ModelCard:
    """What the model was trained on, how, and what came of it."""
    c = setup.config
    count = next(iter(after.values())).count
    updates = f"{c.updates_per_rollout} AdamW updates"
    return ModelCard(
        name=f"{Path(c.base_model).name}, DAPO on {c.data}",
        base_model=c.base_model,
        license=c.license,
        data=f"{len(setup.train_problems):,} questions, such as: "
        f'"{setup.train_problems[0].question}"',
        recipe=f"DAPO (arXiv 2503.14476), {steps} steps of {c.prompts_per_step} "
        f"prompts with {c.group_size} responses each and {updates} at a learning rate "
        f"of {c.learning_rate:g}; clip {c.clip_low:g} and {c.clip_high:g}, temperature "
        f"{c.temperature:g}, at most {c.max_new_tokens} new tokens, seed {c.seed}.",
        figures=tuple(
            Figure(f"held-out accuracy, {name.replace('_at_', '@')}", x.value, y.value)
            for (name, x), y in zip(before.items(), after.values(), strict=True)
        ),
        measured=f"{count} questions that training never saw; samples at temperature "
        f"{c.temperature:g}.",
        language=("en",),
    )
