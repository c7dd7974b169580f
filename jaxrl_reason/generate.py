"""Streams a completion of a model: `python -m jaxrl_reason.generate --help`."""

import os

if __name__ == "__main__":
    try:
        # Inside, so that Ctrl-C while JAX is imported ends like any other.
        from jaxrl_reason.generate_cli import main

        main()
    except KeyboardInterrupt:
        # No orderly end: interrupted while it compiles, JAX crashes in one.
        os.write(2, b"\n")
        os._exit(130)
