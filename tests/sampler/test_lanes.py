"""The host's book, without a model: every request once, and no slot idle for long."""

import random

import pytest

from jaxrl_reason.sampler.lanes import FREE, Lanes


@pytest.mark.parametrize(
    ("prompts", "samples", "lanes", "width"),
    [(5, 4, 2, 2), (1, 1, 4, 3), (7, 3, 1, 1), (3, 8, 6, 2)],
)
def test_every_request_gets_a_slot_once(
    prompts: int, samples: int, lanes: int, width: int
) -> None:
    book, rng = Lanes(range(prompts), samples, lanes, width), random.Random(0)
    seen: list[int] = []
    lane_prompts = [FREE] * lanes
    while True:
        installs, fresh = book.assign()
        for lane, prompt in installs:
            lane_prompts[lane] = prompt
        for slot, request in fresh:
            assert request // samples == lane_prompts[slot // width]
            seen.append(request)
        held = book.held()
        if not held:
            break
        if not book.waiting and book.needed() < lanes:
            before = [book.requests[slot] for slot in held]
            order, sources = book.shrink(book.needed())
            assert len(order) == len(sources) * width == book.needed() * width
            lane_prompts = [lane_prompts[lane] for lane in sources]
            lanes = len(sources)
            for slot in book.held():
                assert book.requests[slot] // samples == lane_prompts[slot // width]
            held = book.held()
            assert sorted(book.requests[slot] for slot in held) == sorted(before)
        book.free(rng.choice(held))
    assert sorted(seen) == list(range(prompts * samples))
    assert book.waiting == 0


def test_lanes_of_one_slot_are_never_idle_while_requests_wait() -> None:
    book, rng = Lanes(range(3), 8, 4, 1), random.Random(1)
    while book.assign() and book.held():
        assert len(book.held()) == 4 or not book.waiting
        book.free(rng.choice(book.held()))
