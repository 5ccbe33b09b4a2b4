"""Figures, each written to a PNG file: charts, grids of images with the sheet that lays these out, photographs with boxes.

Knows arrays and names, nothing of runs. Rests on nothing.
"""
