"""Figures, each written to a PNG file: charts, grids of images, and the sheet that lays these out.

Knows arrays and names, nothing of runs. Rests on nothing.
"""
