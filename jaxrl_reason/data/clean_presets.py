"""Published ways to clean a set, as settings. Only what is published is set."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from jaxrl_reason.data.strategies import LIGHT_R1_BAND


@dataclass(frozen=True)
class CleanPreset:
    """The settings that a paper gives.

    Attributes:
      source: the paper.
      settings: of `CleanSettings`, by name.
      decontamination: of `DecontaminationSettings`, by name.
      pass_rates: of `PassRateSettings`, by name; they need a model.
    """

    source: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    decontamination: Mapping[str, Any] = field(default_factory=dict)
    pass_rates: Mapping[str, Any] = field(default_factory=dict)


PRESETS: Mapping[str, CleanPreset] = MappingProxyType(
    {
        # Equality except for digits and signs, and 32-grams of words split at white
        # space (here of words and numbers), against AIME 2024 and 2025, MATH-500 and
        # GPQA Diamond; for RL the questions whose pass rate is in the band.
        "light-r1": CleanPreset(
            "Light-R1, arXiv 2503.10460",
            decontamination={"n": 32, "coverage": 0.0, "digit_free": True},
            pass_rates={"low": LIGHT_R1_BAND[0], "high": LIGHT_R1_BAND[1]},
        ),
        # No questions with external addresses or figures, only answers that can be
        # verified, and 1 to 15 right responses of 16.
        "skywork-or1": CleanPreset(
            "Skywork-OR1, arXiv 2505.22312",
            settings={"drop": ("url", "image", "figure"), "golds": True},
            pass_rates={"samples": 16, "mixed": True},
        ),
    }
)
