"""Streams a completion of a model: `python -m jaxrl_reason.generate --help`."""

if __name__ == "__main__":
    try:
        # Inside, so that Ctrl-C while JAX is imported ends like any other.
        from jaxrl_reason.generate_cli import main

        main()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
