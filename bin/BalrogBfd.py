#!/usr/bin/env python3
"""BalrogBfd.py -t <tile> [-c <bfd yaml>] [-n <ncpu>]"""

from balrogutils.cli.legacy import balrog_bfd

balrog_bfd()
