"""What runs inside the worker process of `MathVerifier`; imported there only."""

import contextlib
import importlib
import logging

MEMORY_BYTES = 4 * 2**30


def prepare() -> None:
    """Import what is slow to import and bound the memory, once a worker."""
    with contextlib.suppress(ImportError):  # Windows has no limits
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    importlib.import_module("math_verify")
    # It warns of the limits that it is told to leave to us.
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)


def equal(gold: str, answer: str) -> bool:
    """Whether math-verify holds two LaTeX expressions equal.

    Its own parser of plain expressions is left out: it evaluates Python.

    Args:
      gold: the reference.
      answer: what is judged.

    Returns:
      Its verdict; False where it cannot read the answer.

    Raises:
      Exception: whatever it raises.
    """
    checks = importlib.import_module("math_verify")
    parsed = [
        checks.parse(
            f"${text}$",
            extraction_config=[checks.LatexExtractionConfig()],
            fallback_mode="no_fallback",
            parsing_timeout=None,  # SIGALRM; the deadline is ours
        )
        for text in (gold, answer)
    ]
    if not all(parsed):
        return False
    return bool(
        checks.verify(*parsed, strict=True, timeout_seconds=None, raise_on_error=True)
    )
