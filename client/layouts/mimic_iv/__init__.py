"""MIMIC-IV and MIMIC-IV-ECG: ``tables`` (where each lies), ``columns``, ``items``, and ``layout``, which reads them."""
