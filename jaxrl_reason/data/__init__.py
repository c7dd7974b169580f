"""Datasets on disk and the streams that read them."""
