"""The commands of `jaxrl-reason`, one module each."""
