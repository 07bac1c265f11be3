"""Two runs held against each other: how much differs, how sure that is, and the gate
that decides.
"""
