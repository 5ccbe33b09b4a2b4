"""Figures, each written to a PNG file: charts, grids of images, and photographs with boxes or label maps.

This subpackage knows only arrays and names, not runs.
"""
