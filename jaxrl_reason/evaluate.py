"""Evaluates a model on a benchmark: `python -m jaxrl_reason.evaluate --help`."""

# Imported again by the worker process that checks LaTeX answers: nothing stands here.
if __name__ == "__main__":
    import os

    try:
        from jaxrl_reason.evaluation.cli import main

        main()
    except KeyboardInterrupt:
        # No orderly end: interrupted while it compiles, JAX crashes in one. What was
        # recorded is on the disk; the same call goes on from there.
        os.write(2, b"\n")
        os._exit(130)
