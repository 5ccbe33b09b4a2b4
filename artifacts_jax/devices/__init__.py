"""The machine: how functions are mapped over devices, what processes of one run need of one another, and the host.

parallel.py alone decides the mapping.
"""
