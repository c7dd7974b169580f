"""One loss, one gradient or one advantage out of several objectives."""
