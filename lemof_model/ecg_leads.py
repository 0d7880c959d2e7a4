"""How machines and converters call the twelve leads, and the units of their voltages.

The lists are closed: what is not on them is another signal (Frank's VX to VZ, a pressure, an inverted -aVR).
"""

from lemof_model.features import ECG_LEADS

MICROVOLTS = {  # of a unit, in any case; the micro sign is the Greek letter once case is folded
    **dict.fromkeys(("mv", "mvolt", "millivolt", "millivolts"), 1000.0),
    **dict.fromkeys(("uv", "μv", "uvolt", "microvolt", "microvolts"), 1.0),
    **dict.fromkeys(("v", "volt", "volts"), 1e6),
    **dict.fromkeys(("nv", "nanovolt", "nanovolts"), 1e-3),
}

_BEFORE = (
    "", "lead ", "lead_", "lead-", "lead", "ecg ", "ecg_", "ecg-", "ekg ", "ekg_", "ecg lead ", "ecg_lead_",
    "mdc_ecg_lead_", "mdc_ecg_elec_potl_",
)  # fmt: skip
_OTHER_NAMES = {  # in Latin countries; in DICOM; by the electrode (IEC 60601-2-25)
    "I": ("di", "lead i (einthoven)"), "II": ("dii",), "III": ("diii",),
    **{f"V{number}": (f"c{number}",) for number in range(1, 7)},
}  # fmt: skip
LEAD_OF = {
    before + name: lead
    for lead in ECG_LEADS
    for name in (lead.lower(), *_OTHER_NAMES.get(lead, ()))
    for before in _BEFORE
}


def lead_of(description: str) -> str | None:
    """The lead that a description stands for; upper and lower case are one, and so are I, I. and I:

    Example:
        >>> lead_of("MDC_ECG_LEAD_AVR"), lead_of("Lead I"), lead_of("v4."), lead_of("-aVR"), lead_of("VX")
        ('aVR', 'I', 'V4', None, None)
    """
    return LEAD_OF.get(" ".join(description.casefold().split()).rstrip(".:"))
