"""Faster CPU implementations of layers and optimiser operations. Tests compare each with its plain implementation."""
