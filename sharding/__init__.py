"""placeholder, replaced by its owner."""

if __name__ == "sharding":
    raise ImportError("import this package as jaxrl_reason.sharding, not as sharding")
