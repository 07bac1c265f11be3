"""What lies on disk: the store of answers and findings, a run's folder and its forms, spools, lines
of files.
"""
