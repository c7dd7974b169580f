"""The prover-verifier game."""
