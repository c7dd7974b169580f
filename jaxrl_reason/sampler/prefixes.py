"""What prompts begin with in common: most often the template and worked examples."""

from collections.abc import Iterable, Sequence
from itertools import takewhile

# Fewer tokens cost a step as much, by another product, as they save.
WORTH_SHARING = 16


def common_prefix(
    prompts: Iterable[Sequence[int]], at_least: int = WORTH_SHARING
) -> tuple[int, ...]:
    """The longest beginning of all prompts from which every one goes on.

    Args:
      prompts: token ids of each prompt.
      at_least: tokens; a shorter beginning is none.

    Returns:
      The ids for `BatchSettings.common_prefix`; none for fewer than two prompts,
      which have nothing to share.

    >>> common_prefix([[5, 6, 7, 8], [5, 6, 9]], at_least=1)
    (5, 6)
    >>> common_prefix([[5, 6, 7, 8], [5, 6, 9]])
    ()
    """
    rows = list(prompts)
    if len(rows) < 2:
        return ()
    # Without each one's last token; strict=False ends with the shortest.
    columns = zip(*(row[:-1] for row in rows), strict=False)
    alike = takewhile(lambda column: len(set(column)) == 1, columns)
    shared = tuple(column[0] for column in alike)
    return shared if len(shared) >= at_least else ()


class SharedSoFar:
    """The common prefix of the prompts of all calls; it only gets shorter.

    A sampler is compiled for one prefix, so calls whose prompts happen to have more in
    common keep the one they have.

    >>> shared = SharedSoFar(at_least=1)
    >>> shared([[5, 6, 7], [5, 6, 8]]), shared([[5, 6, 7, 8]]), shared([[5, 7]])
    ((5, 6), (5, 6), (5,))
    """

    def __init__(self, at_least: int = WORTH_SHARING) -> None:
        self.at_least = at_least
        self._shared: tuple[int, ...] | None = None

    def __call__(self, prompts: Sequence[Sequence[int]]) -> tuple[int, ...]:
        """Take in a call's prompts; one alone, as the first, says nothing."""
        rows = list(prompts)
        if self._shared is not None:
            rows.append([*self._shared, -1])  # no token, so that it is not dropped
        elif len(rows) < 2:
            return ()
        self._shared = common_prefix(rows, self.at_least)
        return self._shared
