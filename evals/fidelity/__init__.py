"""Proof that the scorers are right: other people's recorded outputs scored again, judges
calibrated.
"""
