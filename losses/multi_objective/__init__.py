"""One loss, gradient or advantage from several objectives."""
