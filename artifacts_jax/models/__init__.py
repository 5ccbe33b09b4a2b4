"""The networks: generator (encoder, decoder, repair) and discriminator (trunk, heads), as pure Flax Linen modules.

architecture.py makes them from a configuration; cpu/ has fast forms of what they compute.
"""
