"""Fast forms for CPUs of what the networks compute, each equal to a plain form that it is tested against.

Rests on nothing.
"""
