"""placeholder, replaced by its owner."""

if __name__ == "losses":
    raise ImportError("import this package as jaxrl_reason.losses, not as losses")
