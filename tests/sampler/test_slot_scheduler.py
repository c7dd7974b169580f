"""The scheduler without a model: every request once, and no slot idle for long."""

import random

import pytest

from jaxrl_reason.sampler.slot_scheduler import FREE, SlotScheduler


@pytest.mark.parametrize(
    ("prompts", "samples", "groups", "width"),
    [(5, 4, 2, 2), (1, 1, 4, 3), (7, 3, 1, 1), (3, 8, 6, 2)],
)
def test_every_request_gets_a_slot_once(
    prompts: int, samples: int, groups: int, width: int
) -> None:
    scheduler, rng = (
        SlotScheduler(range(prompts), samples, groups, width),
        random.Random(0),
    )
    seen: list[int] = []
    group_prompts = [FREE] * groups
    while True:
        installs, fresh = scheduler.assign()
        for group, prompt in installs:
            group_prompts[group] = prompt
        for slot, request in fresh:
            assert request // samples == group_prompts[slot // width]
            seen.append(request)
        occupied = scheduler.occupied()
        if not occupied:
            break
        if not scheduler.waiting and scheduler.groups_needed() < groups:
            before = [scheduler.requests[slot] for slot in occupied]
            order, sources = scheduler.shrink(scheduler.groups_needed())
            assert (
                len(order) == len(sources) * width == scheduler.groups_needed() * width
            )
            group_prompts = [group_prompts[group] for group in sources]
            groups = len(sources)
            for slot in scheduler.occupied():
                assert (
                    scheduler.requests[slot] // samples == group_prompts[slot // width]
                )
            occupied = scheduler.occupied()
            assert sorted(scheduler.requests[slot] for slot in occupied) == sorted(
                before
            )
        scheduler.free(rng.choice(occupied))
    assert sorted(seen) == list(range(prompts * samples))
    assert scheduler.waiting == 0


def test_groups_of_one_slot_are_never_idle_while_requests_wait() -> None:
    scheduler, rng = SlotScheduler(range(3), 8, 4, 1), random.Random(1)
    while scheduler.assign() and scheduler.occupied():
        assert len(scheduler.occupied()) == 4 or not scheduler.waiting
        scheduler.free(rng.choice(scheduler.occupied()))
