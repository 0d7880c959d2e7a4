"""MIMIC-IV and MIMIC-IV-ECG to a cohort, one clinical concept a file.

Read in this order: ``tables`` (find and scan), ``stays`` (who is in the cohort), ``statics``, ``measurements``,
``vitals``, ``labs``, ``grid``, ``diagnoses``, ``ecg_links``, ``ecg_waveforms``, and ``prepare``, which drives them.
"""
