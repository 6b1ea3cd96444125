"""The checks that the probes judge: our own, in a table, and those that an app adds."""
