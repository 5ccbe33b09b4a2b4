"""The version of the package; setup.py reads it without importing the package."""

__version__ = '0.2.0.dev0'
