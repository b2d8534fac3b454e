"""Work that the front process carries out by itself, one module a kind.

scan.py          a scan for models
reset.py         a reset of a device
transfer.py      a transfer of a blob
validate.py      a validation of a model's files
execute.py       its step on a device, if one is asked for
convert.py       a conversion of a model
load_to_host.py  a load into the RAM tier
"""
