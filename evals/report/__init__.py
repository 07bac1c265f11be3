"""What people look at: table, page, model card, exports, what a run would ask, what stands behind
one item.
"""
