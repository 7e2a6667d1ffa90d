"""Where jobs run: here, in local processes, on Ray, on Slurm. Imports scheduling."""
