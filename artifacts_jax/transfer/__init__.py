"""Downstream evaluation of the trained features with published protocols; most tasks are one module."""
