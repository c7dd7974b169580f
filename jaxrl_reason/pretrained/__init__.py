"""Real models as people use them: read, talked to, written as a folder with a card."""
