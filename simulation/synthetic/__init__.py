"""Generated hospitals in MIMIC-IV and MIMIC-IV-ECG layout, with a known best possible AUROC.

``process`` draws what is hidden in each stay, ``tables`` and ``signals`` make the EHR and the ECG that show it,
``hospital`` writes one hospital's tree, ``generate`` writes all of them and ``truth.json``.
"""
