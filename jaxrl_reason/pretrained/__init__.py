"""Pretrained models: reading them, generating text, writing folders with cards."""
