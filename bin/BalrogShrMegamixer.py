#!/usr/bin/env python3
"""BalrogShrMegamixer.py -c <shr yaml> -t <tile> -n <ncpu>"""

from balrogutils.cli.legacy import mcal_megamixer

mcal_megamixer()
