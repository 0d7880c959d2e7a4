"""WFDB records as arrays: headers, samples, leads, resampling, and what is wrong with them."""
