"""Evaluates a model on a benchmark: `python -m jaxrl_reason.evaluate --help`."""

# Imported again by the worker process that checks LaTeX answers: nothing stands here.
if __name__ == "__main__":
    from jaxrl_reason.evaluation.cli import main

    main()
