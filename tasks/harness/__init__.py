"""Tasks of lm-evaluation-harness as benchmarks: it builds their documents, requests, filters and
metrics; asking, keeping, going on and comparing are ours.
"""
