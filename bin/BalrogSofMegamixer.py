#!/usr/bin/env python3
"""BalrogSofMegamixer.py -c <sof yaml> -t <tile> -n <ncpu>"""

from balrogutils.cli.legacy import sof_megamixer

sof_megamixer()
