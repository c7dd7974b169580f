"""Sizes taken from the questions, for settings left at 0."""

import dataclasses

from jaxrl_reason.train.train_settings import TrainSettings

# Prompts are padded to a multiple of this.
_WIDTH_STEP = 16


def fit_sizes(
    settings: TrainSettings, longest_prompt: int, longest_response: int
) -> TrainSettings:
    """The settings with every size set.

    Args:
      settings: of the run.
      longest_prompt: tokens of the longest prompt.
      longest_response: tokens of the longest response to train on; 0 for none.
    """
    rl, sft = settings.rl, settings.sft
    prompt_width = rl.prompt_width or -(-longest_prompt // _WIDTH_STEP) * _WIDTH_STEP
    limit = max(settings.stages.limits, default=rl.max_new_tokens)
    max_response = sft.max_response or longest_response or limit
    return dataclasses.replace(
        settings,
        rl=dataclasses.replace(
            rl,
            prompt_width=prompt_width,
            max_new_tokens=limit,
            row_width=rl.row_width or 2 * (prompt_width + limit),
        ),
        sft=dataclasses.replace(
            sft,
            max_response=max_response,
            row_width=sft.row_width or prompt_width + max_response,
        ),
    )
