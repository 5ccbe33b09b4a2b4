"""Figures, each written to a PNG file: charts, grids of images on a sheet, photographs with boxes or label maps.

Knows arrays and names, nothing of runs.
"""
