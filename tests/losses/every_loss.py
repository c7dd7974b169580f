"""All lines of the battery in one list, which every test of all losses goes through."""

from tests.losses import (
    battery,
    battery_distillation,
    battery_objectives,
    battery_off_policy,
    battery_rollout,
)

LOSSES = [
    *battery.LOSSES,
    *battery_objectives.CASES,
    *battery_off_policy.CASES,
    *battery_rollout.CASES,
    *battery_distillation.CASES,
]
