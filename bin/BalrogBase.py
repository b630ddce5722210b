#!/usr/bin/env python3
"""BalrogBase.py -c <desmeds yaml> -t <tile> -g <galsim config> -n <ncpu> -m <mode>"""

from balrogutils.cli.legacy import balrog_base

balrog_base()
