"""Devices, processes and the host: mapping of functions over devices, synchronisation of processes, locks, memory.

Only parallel.py decides how functions are mapped over devices. May import models, drawing and config.
"""
