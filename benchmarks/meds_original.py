"""What the original `meds` package needs for the work of meds_writer.py and meds_reader.py; run by these.

    meds_original.py write FILE OUTPUT      make the cut-outs of FILE again from its source images
    meds_original.py read FILE OBJECTS      read the first so many objects

Prints CPU microseconds per cut-out as one line of JSON. Needs only numpy, fitsio and `meds`, so that it runs where
balrogutils is not installed.
"""

import contextlib
import json
import os
import sys
import time
from pathlib import Path

import fitsio
import numpy as np

REPEATS = 3


def clock(path, work, count, repeats=REPEATS):
    """Return the least CPU time of some calls in microseconds per cut-out, the file opened anew for each.

    Some versions of cfitsio keep every unpacked tile of an open file.
    """
    import meds

    taken = []
    for _ in range(repeats):
        file = meds.MEDS(path)
        begin = time.process_time()
        work(file)
        taken.append(time.process_time() - begin)
        file.close()
    return 1e6 * min(taken) / count


def write(path, target):
    import meds

    with fitsio.FITS(path) as file:
        objects, info = file["object_data"].read(), file["image_info"].read()
        types = [hdu.get_extname().removesuffix("_cutouts") for hdu in file if hdu.get_extname().endswith("_cutouts")]
    needed = np.zeros(len(objects), dtype=[("id", "i8"), ("box_size", "i8"), ("ra", "f8"), ("dec", "f8")])
    for name in needed.dtype.names:
        needed[name] = objects[name]
    config = {"cutout_types": types, "first_image_is_coadd": True, "check_in_coadd": False}
    taken = []

    def work():
        maker = meds.MEDSMaker(needed, info, config=config, meta_data=np.zeros(1, dtype=[("magzp_ref", "f8")]))
        # The layout is not part of what is compared.
        maker._build_meds_layout()
        begin = time.process_time()
        maker._write_data(target)
        taken.append(time.process_time() - begin)

    for _ in range(2):
        work()
    with fitsio.FITS(target) as file:
        made = int(file["object_data"]["ncutout"][:].sum())
    return {"write": 1e6 * min(taken) / made, "cutouts": made}


def read(path, objects):
    import meds

    file = meds.MEDS(path)
    rows = range(min(int(objects), file.size))
    count = int(file["ncutout"][: len(rows)].sum())
    slots = [(i, k) for i in rows for k in range(file["ncutout"][i])]
    few = slots[: max(1, len(slots) // 10)]
    file.close()
    result = {"list": clock(path, lambda m: [m.get_cutout_list(i) for i in rows], count)}
    result["one"] = clock(path, lambda m: [m.get_cutout(i, k) for i, k in slots], count)
    result["uberseg"] = clock(path, lambda m: [m.get_uberseg(i, k) for i, k in few], len(few), 2)
    result["version"] = meds.__version__
    return result


if __name__ == "__main__":
    # The package reports what it does on the standard output.
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        result = {"write": write, "read": read}[sys.argv[1]](*sys.argv[2:])
    sys.stdout.write(json.dumps(result) + "\n")
