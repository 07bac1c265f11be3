"""What only the project's own proof needs: other harnesses' scorers, the protocol's open points,
REPRODUCTION.md.
"""
