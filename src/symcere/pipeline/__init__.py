"""`symcere run` as data flowing through stages, folder in, folder out."""
