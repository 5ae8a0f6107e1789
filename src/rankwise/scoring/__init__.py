"""What a model's scores are worth: metrics with intervals, paired tests, calibration, prediction files.

    intervals     Wilson and bootstrap intervals
    metrics       everything measured on labelled rows, whole or batch by batch
    report        the same for a terminal
    paired        two or more models on the same rows
    compare       paired over run folders
    calibration   temperature, coverage against accuracy, abstention
    predictions   files of predictions, written batch by batch
    looks         how often the test set was looked at

Everything here is numpy (and a little scipy); torch is never imported.
"""
