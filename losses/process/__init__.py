"""Process rewards: rewards and losses for the steps and tokens of a response."""
