"""Using real models: reading them, generating text, writing a folder with a card."""
