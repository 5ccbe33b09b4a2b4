"""The networks: generator (encoder, decoder, repair) and discriminator (trunk, heads), as pure Flax Linen modules.

architecture.py creates them from a configuration; cpu/ has faster CPU implementations of their layers.
"""
