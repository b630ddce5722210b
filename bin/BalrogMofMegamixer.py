#!/usr/bin/env python3
"""BalrogMofMegamixer.py -c <mof yaml> -t <tile> -n <ncpu>"""

from balrogutils.cli.legacy import mof_megamixer

mof_megamixer()
