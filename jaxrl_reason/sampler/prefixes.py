"""The common prefix of prompts: usually the template and worked examples."""

from collections.abc import Iterable, Sequence
from itertools import takewhile

# Below this, the extra product costs a step as much as the prefix saves.
WORTH_SHARING = 16


def common_prefix(
    prompts: Iterable[Sequence[int]], at_least: int = WORTH_SHARING
) -> tuple[int, ...]:
    """The longest common prefix of all prompts after which each has more tokens.

    Args:
      prompts: token ids of each prompt.
      at_least: in tokens; a shorter prefix counts as none.

    Returns:
      The ids for `BatchSettings.common_prefix`; empty for fewer than two prompts.

    >>> common_prefix([[5, 6, 7, 8], [5, 6, 9]], at_least=1)
    (5, 6)
    >>> common_prefix([[5, 6, 7, 8], [5, 6, 9]])
    ()
    """
    rows = list(prompts)
    if len(rows) < 2:
        return ()
    # Without the last token of each; strict=False stops at the shortest.
    columns = zip(*(row[:-1] for row in rows), strict=False)
    alike = takewhile(lambda column: len(set(column)) == 1, columns)
    shared = tuple(column[0] for column in alike)
    return shared if len(shared) >= at_least else ()


class SharedSoFar:
    """The common prefix of the prompts of all calls; it can only get shorter.

    A sampler is compiled for one prefix, so calls whose prompts share more keep the
    current one.

    >>> shared = SharedSoFar(at_least=1)
    >>> shared([[5, 6, 7], [5, 6, 8]]), shared([[5, 6, 7, 8]]), shared([[5, 7]])
    ((5, 6), (5, 6), (5,))
    """

    def __init__(self, at_least: int = WORTH_SHARING) -> None:
        self.at_least = at_least
        self._shared: tuple[int, ...] | None = None

    def __call__(self, prompts: Sequence[Sequence[int]]) -> tuple[int, ...]:
        """Adds a call's prompts; a single prompt in the first call gives no prefix."""
        rows = list(prompts)
        if self._shared is not None:
            rows.append([*self._shared, -1])  # no token, so that it is not dropped
        elif len(rows) < 2:
            return ()
        self._shared = common_prefix(rows, self.at_least)
        return self._shared
