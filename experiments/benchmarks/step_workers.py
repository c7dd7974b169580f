"""What each process of the step comparisons runs."""

from typing import Any

from experiments.benchmarks.step_work import Ours, Setting, Tunix, Work


def serve(pipe: Any, work: Work, setting: Setting) -> None:
    """Makes a step for each request; at the end tells the peak memory in GiB."""
    # Each side's libraries are imported in its own process only.
    if isinstance(setting, Ours):
        from experiments.benchmarks.step_ours import serve_ours

        serve_ours(pipe, work, setting)
    elif isinstance(setting, Tunix):
        from experiments.benchmarks.step_tunix import serve_tunix

        serve_tunix(pipe, work, setting)
    else:
        from experiments.benchmarks.step_trl import serve_trl

        serve_trl(pipe, work, setting)
    # Only now: it imports jax, and the memory of the step is free again.
    from jaxrl_reason.runs.monitor import peak_memory_bytes

    pipe.send(peak_memory_bytes() / 2**30)
