"""The code of `MathVerifier`'s worker process; imported only there."""

import contextlib
import importlib
import logging

MEMORY_BYTES = 4 * 2**30


def prepare() -> None:
    """Imports slow packages and limits the memory, once per worker."""
    with contextlib.suppress(ImportError):  # Windows has no limits
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    importlib.import_module("math_verify")
    # It warns about the limits that are disabled in favour of ours.
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)


def equal(gold: str, answer: str) -> bool:
    """Whether math-verify considers two LaTeX expressions equal.

    Its own parser of plain expressions is not used: it evaluates Python.

    Args:
      gold: the reference.
      answer: the answer to compare.

    Returns:
      Its verdict; False if it cannot read the answer.

    Raises:
      Exception: any that it raises.
    """
    checks = importlib.import_module("math_verify")
    parsed = [
        checks.parse(
            f"${text}$",
            extraction_config=[checks.LatexExtractionConfig()],
            fallback_mode="no_fallback",
            parsing_timeout=None,  # SIGALRM; we have our own deadline
        )
        for text in (gold, answer)
    ]
    if not all(parsed):
        return False
    return bool(
        checks.verify(*parsed, strict=True, timeout_seconds=None, raise_on_error=True)
    )
