"""Proof that the scorers are right: other people's recorded outputs, other harnesses, calibrated judges."""
