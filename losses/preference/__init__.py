"""Losses on pairs of responses: DPO and its relatives, with and without a reference."""
