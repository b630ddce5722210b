#!/usr/bin/env python3
"""balrog.py [arguments]: Balrog on one image; --help lists the arguments."""

import sys

from balrogutils.cli.main import main

main(["image", *sys.argv[1:]])
