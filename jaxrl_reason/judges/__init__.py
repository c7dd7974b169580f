"""Models that judge responses: rubrics, comparisons, and a verifier's yes or no."""
