"""`python -m jaxrl_reason`, the same as the command `jaxrl-reason`."""

# Worker processes may import this file again, which must run nothing.
if __name__ == "__main__":
    from jaxrl_reason.cli.main import main

    main()
