"""One optimiser step on packed sequences: state, packing, forward, update."""
