"""Runs the console command where it is not on the PATH: python -m artifacts_jax COMMAND."""

from artifacts_jax import cli

if __name__ == '__main__':
    cli.main()
