"""DRIVER. Starts ranks on a Spark cluster, watches them, and brings their results and errors home.

`session` makes the Spark session, `launch` runs a training; `rank` is the only module that runs elsewhere:
inside the Spark tasks.
"""
