"""Which sequence goes into which slot: the host side of a batch sampler."""

from collections import deque
from collections.abc import Sequence

FREE = -1


class SlotScheduler:
    """Requests in slots; request p*G + g is sample g of prompt p.

    Neighbouring slots form prompt groups, which read one prompt each. A free slot takes
    a sample of its group's prompt. A group without a sequence takes a prompt that no
    group reads yet, or else the one with the most samples left per group that reads it,
    so that groups finish at about the same time.

    Args:
      order: prompts in the order in which to start them.
      num_samples: G, samples per prompt.
      groups: N.
      width: slots per group.

    >>> scheduler = SlotScheduler([0, 1], num_samples=2, groups=1, width=2)
    >>> scheduler.assign()
    ([(0, 0)], [(0, 0), (1, 1)])
    >>> scheduler.free(0)
    >>> scheduler.assign()
    ([], [])
    >>> scheduler.free(1)
    >>> scheduler.assign()
    ([(0, 1)], [(0, 2), (1, 3)])
    """

    def __init__(
        self, order: Sequence[int], num_samples: int, groups: int, width: int
    ) -> None:
        self.width = width
        self.requests = [FREE] * (groups * width)
        self.unread = deque(order)
        self.waiting = len(order) * num_samples
        self._samples = num_samples
        self._prompts = [FREE] * groups
        self._left: dict[int, deque[int]] = {}

    def occupied(self) -> list[int]:
        """The slots with a request."""
        return [s for s, request in enumerate(self.requests) if request != FREE]

    def free(self, slot: int) -> None:
        """Takes the request out of a slot."""
        self.requests[slot] = FREE

    def waiting_prompts(self) -> set[int]:
        """The prompts with samples that still wait for a slot."""
        return {*self.unread, *self._left}

    def assign(self) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """Fills free slots.

        Returns:
          The groups that take a prompt, [(group, prompt)], and the slots that take a
          request, [(slot, request)].
        """
        installs, fresh = [], []
        for group in range(len(self._prompts)):
            if not self.waiting:
                break
            slots = range(group * self.width, (group + 1) * self.width)
            free = [slot for slot in slots if self.requests[slot] == FREE]
            if len(free) == self.width and self._prompts[group] not in self._left:
                self._prompts[group] = FREE
                self._prompts[group] = self._next_prompt()
                installs.append((group, self._prompts[group]))
            for slot in free:
                if self._prompts[group] in self._left:
                    self.requests[slot] = self._take(self._prompts[group])
                    fresh.append((slot, self.requests[slot]))
        return installs, fresh

    def groups_needed(self) -> int:
        """The number of groups that the requests need when grouped by prompt."""
        return len(self._packed())

    def shrink(self, groups: int) -> tuple[list[int], list[int]]:
        """Moves the requests into `groups` groups, at least `groups_needed`.

        Returns:
          The old slot and the old group of each remaining slot and group.
        """
        packed = self._packed()
        active = {slot for slots in packed for slot in slots}
        idle = iter(s for s in range(len(self.requests)) if s not in active)
        packed += [[] for _ in range(groups - len(packed))]
        sources = [slots[0] // self.width if slots else 0 for slots in packed]
        for slots in packed:
            slots += [next(idle) for _ in range(self.width - len(slots))]
        order = [slot for slots in packed for slot in slots]
        self.requests = [self.requests[slot] for slot in order]
        self._prompts = [self._prompts[group] for group in sources]
        return order, sources

    def _packed(self) -> list[list[int]]:
        """The slots with a request, by prompt, in groups as full as possible."""
        by_prompt: dict[int, list[int]] = {}
        for slot in self.occupied():
            by_prompt.setdefault(self._prompts[slot // self.width], []).append(slot)
        return [
            slots[at : at + self.width]
            for slots in by_prompt.values()
            for at in range(0, len(slots), self.width)
        ]

    def _next_prompt(self) -> int:
        if self.unread:
            prompt = self.unread.popleft()
            first = prompt * self._samples
            self._left[prompt] = deque(range(first, first + self._samples))
            return prompt

        def left_per_group(prompt: int) -> float:
            return len(self._left[prompt]) / (1 + self._prompts.count(prompt))

        return max(self._left, key=left_per_group)

    def _take(self, prompt: int) -> int:
        self.waiting -= 1
        request = self._left[prompt].popleft()
        if not self._left[prompt]:
            del self._left[prompt]
        return request
