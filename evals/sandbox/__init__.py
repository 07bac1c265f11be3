"""Runs programs a model wrote, assuming they are hostile: pool.py says how, jail/ is what runs
outside this process.
"""
