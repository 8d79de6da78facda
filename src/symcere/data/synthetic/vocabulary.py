"""The words of every made-up world: facts, which decide; sentiments, which do not; and fillers."""

FACTS = tuple(
    "gasket oem aluminum nylon torque bolt ceramic rubber brass thread bearing voltage fuse relay ohm amp lumen "
    "battery filter carbon steel leather cotton velcro zipper maple rosewood nickel fret pickup humidity reverb "
    "xlr phantom impedance stereo bluetooth usb adapter bracket hinge caliper rotor coolant viscosity gauge "
    "piston valve".split()
)
SENTIMENTS = (
    tuple("terrible awful horrible disappointed useless worst hate bad".split()),
    tuple("okay fine average acceptable mediocre decent alright fair".split()),
    tuple("great good love perfect excellent amazing wonderful happy".split()),
)
FILLERS = tuple(
    "i bought this for my and it was the a one with after weeks use when came arrived box shipping day would "
    "again really just got works had time to on second price brother garage house put back first".split()
)

EPOCH = 1_300_000_000
"""Seconds since 1970 of the first review."""
